"""A simulated and a real run side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from f2a2_sim.api import run
from f2a2_sim.cli import app
from f2a2_sim.deployment.measured import Measured, Spread
from f2a2_sim.deployment.prediction import Line, compare_runs, relative_distance, write_page
from f2a2_sim.scenario.load import load_scenario
from tests.f2a2_sim.deployment.test_calibrate import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same scenario on a fast device and on a slow one."""
    place = tmp_path_factory.mktemp("runs")
    (place / "tiny.yaml").write_text(TINY)
    for name, device in (("fast", "intel_nuc_8"), ("slow", "raspberry_pi_3b_plus")):
        scenario = load_scenario(place / "tiny.yaml", [f"devices.fleet=[{{profile: {device}}}]"])
        run(scenario, place / name, threads=1)
    return place / "fast", place / "slow"


class TestError:
    @pytest.mark.parametrize(
        ("simulated", "real", "error", "words"),
        [(1.1, 1.0, 0.1, "+10.0 %"), (0.0, 0.0, 0.0, "+0.0 %"), (1.0, 0.0, float("inf"), "not foreseen")],
    )
    def test_is_a_share_of_what_was_real(
        self, simulated: float, real: float, error: float, words: str
    ) -> None:
        line = Line("steps", simulated, real)
        assert line.error == pytest.approx(error)
        assert line.cells[3] == words

    def test_is_none_of_the_unknown(self) -> None:
        assert Line("steps", None, 1.0).cells == ("steps", "-", "1", "-")


def test_a_run_against_itself(runs: tuple[Path, Path]) -> None:
    found = compare_runs(runs[0], runs[0])
    assert {line.error for line in found.lines} <= {0.0, None}
    assert sum(line.error is not None for line in found.lines) > 15
    assert found.parameters == "equal, bit for bit"
    assert found.returns == "equal in all 2 episodes"
    assert found.verdict.startswith("Within 15 %: ")
    assert found.verdict.count("%") == 3 and found.verdict.count(":") == 1


def test_a_slower_device(runs: tuple[Path, Path]) -> None:
    found = compare_runs(*runs)
    errors = {line.what: line.error for line in found.lines}
    assert errors["computing an update, median"] < -0.3  # type: ignore[operator]
    assert errors["from consensus round to round, median"] is not None
    assert errors["bytes of a message"] == 0.0
    off, within = found.verdict.removesuffix(".").split(". ")
    assert off.startswith("Off by more than 15 %: from consensus round to round, median ")
    assert within.startswith("Within 15 %: bytes ")
    assert errors["steps of the world"] == 0.0


def test_measured_times_come_before_modelled_ones(runs: tuple[Path, Path], tmp_path: Path) -> None:
    real = tmp_path / "real"
    shutil.copytree(runs[1], real)
    spread = Spread(count=9, p10=1.0, p50=2.0, p90=3.0, mean=2.5)
    Measured(update_s=spread, act_mean_s=0.1, mix_mean_s=0.5, processors=2, machine="x").write(real)
    lines = {line.what: line for line in compare_runs(runs[0], real).lines}
    assert lines["computing an update, median"].real == 2.0
    assert lines["averaging in a round, mean"].real == 0.5


def test_page_holds_everything(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = write_page(compare_runs(*runs), tmp_path / "compare.html").read_text()
    assert page.count("<svg") == 3
    assert "from consensus round to round" in page and "raspberry_pi_3b_plus" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_relative_distance() -> None:
    theirs = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert relative_distance(theirs, theirs) == 0.0
    assert relative_distance(torch.tensor([[3.0, 4.0], [1.0, 0.5]]), theirs) == pytest.approx(0.5)


def test_command(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["compare", *map(str, runs), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "Final parameters" in result.output and out.is_file()
    assert CliRunner().invoke(app, ["compare", str(tmp_path), str(runs[0])]).exit_code == 2
