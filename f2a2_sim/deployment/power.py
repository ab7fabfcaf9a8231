"""Power that this machine says it draws, where it says so."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from pathlib import Path

_RAPL = "class/powercap"
_HWMON = "class/hwmon"
_NVIDIA_SMI = "nvidia-smi"
_QUERY = ("--query-gpu=power.draw", "--format=csv,noheader,nounits")
_ANSWER_S = 20.0  # the first call of nvidia-smi may have to wake the driver


class PowerMeter:
    """Mean watts between `start` and `stop`: from the energy counters of the processor packages (RAPL), or
    else from the board's sensors (hwmon), and of NVIDIA's graphics cards from nvidia-smi; what there is of
    these is added up. ``source`` is None where nothing can be read."""

    def __init__(self, sysfs: Path = Path("/sys"), nvidia_smi: str | None = None) -> None:
        """``nvidia_smi``: the program to ask; None: the one on the path, if there is one."""
        counters = sorted((sysfs / _RAPL).glob("intel-rapl:*/energy_uj"))
        packages = [counter for counter in counters if counter.parent.name.count(":") == 1]
        self._counters = [counter for counter in packages if _read(counter) is not None]
        sensors = sorted((sysfs / _HWMON).glob("hwmon*/power*_average")) or sorted(
            (sysfs / _HWMON).glob("hwmon*/power*_input")
        )
        self._sensors = [] if self._counters else [sensor for sensor in sensors if _read(sensor) is not None]
        program = nvidia_smi or shutil.which(_NVIDIA_SMI)
        self._cards = program if program is not None and cards_w(program) is not None else None
        self._began: tuple[float, list[float]] = (0.0, [])

    @property
    def source(self) -> str | None:
        """What is read."""
        parts = []
        if self._counters:
            parts.append(f"energy counters of {len(self._counters)} processor packages (RAPL)")
        if self._sensors:
            parts.append(f"{len(self._sensors)} power sensors of the board (hwmon)")
        if self._cards is not None:
            parts.append("graphics cards (nvidia-smi)")
        return f"{' and '.join(parts)}, and nothing else" if parts else None

    def start(self) -> None:
        self._began = (time.monotonic(), [_read(counter) or 0.0 for counter in self._counters])

    def stop(self) -> float | None:
        """Watts since `start` (sensors and graphics cards: now); None if nothing can be read, or not all that
        could be before, or a counter has begun anew."""
        parts: list[float | None] = []
        if self._counters:
            parts.append(self._counted_w())
        if self._sensors:
            parts.append(sum(_read(sensor) or 0.0 for sensor in self._sensors) / 1e6)
        if self._cards is not None:
            parts.append(cards_w(self._cards))
        watts = [part for part in parts if part is not None]
        return sum(watts) if parts and len(watts) == len(parts) else None

    def _counted_w(self) -> float | None:
        began_s, before = self._began
        passed_s = time.monotonic() - began_s
        after = [_read(counter) or 0.0 for counter in self._counters]
        if passed_s <= 0 or any(b > a for a, b in zip(after, before, strict=True)):
            return None
        return (sum(after) - sum(before)) / 1e6 / passed_s


def cards_w(nvidia_smi: str) -> float | None:
    """Watts of all graphics cards together, by that program; None if it does not say."""
    try:
        answer = subprocess.run(
            [nvidia_smi, *_QUERY], capture_output=True, text=True, timeout=_ANSWER_S, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return sum_of_cards(answer.stdout)


def sum_of_cards(text: str) -> float | None:
    """Of nvidia-smi's answer, a line a card: watts, or "[N/A]" and the like; None without any watts."""
    watts = []
    for line in text.splitlines():
        try:
            value = float(line)
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0.0:
            watts.append(value)
    return sum(watts) if watts else None


def _read(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
