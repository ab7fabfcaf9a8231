"""Pictures of the particle worlds: coloured discs on a light ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from f2a2_sim.worlds.particle.base import HALF_SIDE, Discs

_GROUND = (250, 248, 243)
_FIELD = (255, 255, 255)
_EDGE = (206, 203, 196)
_MARGIN = 1.1
_SMOOTHING = 2  # drawn so many times larger and scaled down, for smooth edges


def draw_discs(discs: Discs, side: int) -> NDArray[np.uint8]:
    """RGB picture, uint8 ``[side, side, 3]``, x to the right and y upwards, the origin in the middle.

    The square in which episodes start is framed. It fills the picture until someone leaves it: then the
    picture shows as much more of the plane as it takes to keep everyone in sight.
    """
    reach = (np.abs(discs.position) + discs.radius[:, None]).max()
    half = _MARGIN * max(HALF_SIDE, float(reach))
    size = side * _SMOOTHING
    image = Image.new("RGB", (size, size), _GROUND)
    draw = ImageDraw.Draw(image)

    def box(x: float, y: float, radius: float) -> list[float]:
        left, top = (x - radius + half) / (2 * half), (half - y - radius) / (2 * half)
        width = radius / half
        return [size * left, size * top, size * (left + width), size * (top + width)]

    draw.rectangle(box(0.0, 0.0, HALF_SIDE), fill=_FIELD, outline=_EDGE, width=_SMOOTHING)
    colours = np.rint(255.0 * np.clip(discs.colour, 0.0, 1.0)).astype(int)
    for (x, y), radius, colour in zip(discs.position.tolist(), discs.radius.tolist(), colours, strict=True):
        draw.ellipse(box(x, y, radius), fill=tuple(colour.tolist()))
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS), dtype=np.uint8)
