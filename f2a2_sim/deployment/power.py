"""Power that this machine says it draws, where it says so."""

from __future__ import annotations

import time
from pathlib import Path

_RAPL = "class/powercap"
_HWMON = "class/hwmon"


class PowerMeter:
    """Mean watts between `start` and `stop`: from the energy counters of the processor packages (RAPL), or
    else from the board's sensors (hwmon). ``source`` is None where neither can be read."""

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        counters = sorted((sysfs / _RAPL).glob("intel-rapl:*/energy_uj"))
        packages = [counter for counter in counters if counter.parent.name.count(":") == 1]
        self._counters = [counter for counter in packages if _read(counter) is not None]
        sensors = sorted((sysfs / _HWMON).glob("hwmon*/power*_average")) or sorted(
            (sysfs / _HWMON).glob("hwmon*/power*_input")
        )
        self._sensors = [] if self._counters else [sensor for sensor in sensors if _read(sensor) is not None]
        self._began: tuple[float, list[float]] = (0.0, [])

    @property
    def source(self) -> str | None:
        """What is read."""
        if self._counters:
            return f"energy counters of {len(self._counters)} processor packages (RAPL): processor only"
        return f"{len(self._sensors)} power sensors of the board (hwmon)" if self._sensors else None

    def start(self) -> None:
        self._began = (time.monotonic(), [_read(counter) or 0.0 for counter in self._counters])

    def stop(self) -> float | None:
        """Watts since `start` (sensors: now); None if nothing can be read, or a counter has begun anew."""
        if self._sensors:
            return sum(_read(sensor) or 0.0 for sensor in self._sensors) / 1e6
        began_s, before = self._began
        passed_s = time.monotonic() - began_s
        after = [_read(counter) or 0.0 for counter in self._counters]
        if not after or passed_s <= 0 or any(b > a for a, b in zip(after, before, strict=True)):
            return None
        return (sum(after) - sum(before)) / 1e6 / passed_s


def _read(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
