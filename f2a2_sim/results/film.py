"""Frames to a film: a caption strip above each picture, and the encoders for .gif and .mp4."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from f2a2_sim.errors import RunError, UsageError
from f2a2_sim.results.folder import write_atomically

Frame = NDArray[np.uint8]
Rgb = tuple[int, int, int]

FORMATS = (".gif", ".mp4")
_STRIP = 0.065  # of the picture's width
_BACKGROUND: Rgb = (29, 35, 48)
_GIF_COLOURS = 64
_HOLD_S = 1.5
_LEAST_WIDTH = 480


@dataclass(frozen=True)
class Word:
    """A piece of a caption, with a colour of its own."""

    text: str
    colour: Rgb = (236, 239, 244)


def captioned(frame: Frame, words: Sequence[Word]) -> Frame:
    """The picture with a strip of text above it: uint8, both sides even; small pictures are enlarged."""
    scale = math.ceil(_LEAST_WIDTH / frame.shape[1])
    frame = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = frame.shape[:2]
    strip = max(18, round(width * _STRIP))
    canvas = Image.new("RGB", (width + width % 2, strip + height + (strip + height) % 2), _BACKGROUND)
    canvas.paste(Image.fromarray(frame), (0, strip))
    draw = ImageDraw.Draw(canvas)
    font, gap = _fitting_font(words, width, strip)
    left = gap
    for word in words:
        draw.text((left, strip / 2), word.text, fill=word.colour, font=font, anchor="lm")
        left += draw.textlength(word.text, font=font) + gap
    return np.asarray(canvas, dtype=np.uint8)


def write_film(path: Path, frames: Sequence[Frame], fps: int) -> None:
    """Write a .gif or .mp4, whole or not at all; the last frame stays a moment.

    Raises UsageError for another ending, or for .mp4 without the package that encodes it.
    """
    check_format(path)
    held = max(1, round(_HOLD_S * fps))
    if path.suffix.lower() == ".gif":
        write_atomically(path, _gif(frames, fps, held))
    else:
        _write_mp4(path, [*frames, *[frames[-1]] * (held - 1)], fps)


def check_format(path: Path) -> None:
    """UsageError unless a film can be written under that name."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"--out {path}: films end in .gif or .mp4; name one such as {path.with_suffix('.gif')}"
        )
    if path.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise UsageError(
                f"--out {path}: .mp4 needs the package imageio-ffmpeg, which is not installed. Name a .gif,"
                " or install it: pip install 'f2a2-sim[video]'"
            ) from None


def _gif(frames: Sequence[Frame], fps: int, held: int) -> bytes:
    images = [
        Image.fromarray(frame).quantize(_GIF_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        for frame in frames
    ]
    tick_ms = max(20, round(1000 / fps))
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=[tick_ms] * (len(images) - 1) + [tick_ms * held],
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()


def _write_mp4(path: Path, frames: Sequence[Frame], fps: int) -> None:
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    temporary = path.with_name(f".{path.stem}.tmp.mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = imageio_ffmpeg.write_frames(
            str(temporary), (width, height), fps=fps, macro_block_size=2, quality=7, ffmpeg_log_level="error"
        )
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: the film cannot be written ({error}). Check space and rights") from error
    finally:
        temporary.unlink(missing_ok=True)


def _fitting_font(
    words: Sequence[Word], width: int, strip: int
) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, float]:
    """The largest font in which the words and the gaps between them fit into the strip."""
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for size in range(max(9, round(strip * 0.6)), 8, -1):
        font = ImageFont.load_default(size)
        gap = 0.9 * size
        if sum(measure.textlength(word.text, font=font) + gap for word in words) + gap <= width:
            break
    return font, gap
