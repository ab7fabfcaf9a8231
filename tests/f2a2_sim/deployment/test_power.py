"""Power is read where the machine tells it, and nothing is made up where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from f2a2_sim.deployment.power import PowerMeter, cards_w, sum_of_cards


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    (tmp_path / "sys").mkdir()
    return tmp_path / "sys"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def program(folder: Path, body: str) -> str:
    """A program in the place of nvidia-smi."""
    path = write(folder / "nvidia-smi", f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


NONE = "/no/such/nvidia-smi"


def test_counters_that_begin_anew_tell_nothing(sysfs: Path) -> None:
    assert PowerMeter(sysfs, NONE).source is None
    assert PowerMeter(sysfs, NONE).stop() is None
    counter = write(sysfs / "class/powercap/intel-rapl:0/energy_uj", "1000000\n")
    meter = PowerMeter(sysfs, NONE)
    assert meter.source == "energy counters of 1 processor packages (RAPL), and nothing else"
    meter.start()
    counter.write_text("3000000\n")
    watts = meter.stop()
    assert watts is not None and watts > 0
    counter.write_text("5\n")
    assert meter.stop() is None, "the counter has begun anew"


def test_sensors_and_graphics_cards_are_added_up(sysfs: Path, tmp_path: Path) -> None:
    write(sysfs / "class/hwmon/hwmon3/power1_input", "4500000\n")
    meter = PowerMeter(sysfs, program(tmp_path, "echo 70.25; echo 30.50"))
    meter.start()
    assert meter.stop() == pytest.approx(4.5 + 100.75)
    assert meter.source is not None and "1 power sensors" in meter.source and "nvidia-smi" in meter.source
    program(tmp_path, "exit 9")
    assert meter.stop() is None, "half of it is not the power of the machine"


def test_the_program_is_asked_for_nothing_but_power(tmp_path: Path) -> None:
    asked = program(
        tmp_path, '[ "$*" = "--query-gpu=power.draw --format=csv,noheader,nounits" ] && echo 12.5'
    )
    assert cards_w(asked) == 12.5


@pytest.mark.parametrize(
    "body", ["exit 9", "echo 'NVIDIA-SMI has failed'", "echo '[N/A]'", "printf '\\377\\376'", ""]
)
def test_a_program_that_does_not_say_is_no_source(body: str, sysfs: Path, tmp_path: Path) -> None:
    meter = PowerMeter(sysfs, program(tmp_path, body))
    assert meter.source is None and meter.stop() is None


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        ("69.43\n", 69.43),
        ("69.43\n70.57\n", 140.0),
        (" 69.43 \n[N/A]\n", 69.43),
        ("[Not Supported]\n", None),
        ("N/A\n", None),
        ("nan\n", None),
        ("-1.0\n", None),
        ("0.00\n", 0.0),
        ("No devices were found\n", None),
        ("", None),
    ],
)
def test_answers_of_nvidia_smi(text: str, watts: float | None) -> None:
    assert sum_of_cards(text) == (None if watts is None else pytest.approx(watts))
