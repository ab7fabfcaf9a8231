"""The command line: what it says, and what it exits with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import f2a2_sim
from f2a2_sim import api
from f2a2_sim.cli import app
from f2a2_sim.errors import CheckpointError, RunError

TINY = """\
name: tiny
duration: {episodes: 1}
world: {agents: 12, episode_steps: 12}
learner: {hidden_size: 8, batch_size: 8, replay_transitions: 1200}
record: {every_steps: 4, baseline_episodes: 1}
"""

COMMANDS = [
    "run",
    "resume",
    "report",
    "validate",
    "profiles",
    "schema",
    "scenarios",
    "trace",
    "replay",
    "keys",
    "calibrate",
    "compare",
    "train-opponent",
]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


# ---------------------------------------------------------------- help and lists


def test_version() -> None:
    assert call("--version").stdout == f"f2a2-sim {f2a2_sim.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_listed_and_has_help(command: str) -> None:
    assert command in call("--help").stdout
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "--help" in result.stdout


def test_help_and_lists_do_not_import_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from f2a2_sim.cli import app\n"
        "for a in (['--help'], ['run', '--help'], ['scenarios'], ['profiles'], ['schema']):\n"
        "    assert CliRunner().invoke(app, a).exit_code == 0, a\n"
        "heavy = {'torch', 'magent2', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_schema_is_json() -> None:
    assert json.loads(call("schema").stdout)["properties"]["world"]["description"] == "The environment."


def test_scenarios_lists_what_is_shipped() -> None:
    assert "magent_256" in call("scenarios").stdout


def test_profiles_lists_and_shows_sources() -> None:
    everything = call("profiles").stdout
    assert "raspberry_pi_5" in everything and "wifi" in everything
    assert "wifi" not in call("profiles", "devices").stdout
    one = call("profiles", "devices", "raspberry_pi_5").stdout
    assert "memory_bandwidth_bytes_per_s" in one and "BCM2712" in one


@pytest.mark.parametrize("what", ["devices", "links"])
def test_an_unknown_profile_names_the_nearest(what: str) -> None:
    nearest = {"devices": "jetson_nano", "links": "wifi_5"}[what]
    result = call("profiles", what, nearest[:-1])
    assert result.exit_code == 2
    assert nearest in result.stderr


# ---------------------------------------------------------------- exit status


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["run"],
        ["run", "--nosuch", "x"],
        ["run", "quickstart", "--threads", "0"],
        ["run", "quickstart", "--device", "tpu"],
        ["run", "nosuch_scenario"],
        ["validate", "quickstart", "world.agent=64"],
        ["validate", "quickstart", "network.topology={kind: k_regular, degree: 99}"],
        ["resume", "/no/such/run"],
        ["report", "/no/such/run"],
        ["trace", "/no/such/run"],
        ["replay", "/no/such/run"],
        ["train-opponent", "--rounds", "none"],
    ],
)
def test_wrong_use_exits_with_2_and_no_traceback(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr and "internal error" not in result.stderr


def test_validate_says_that_a_scenario_is_good(tiny: Path) -> None:
    result = call("validate", tiny, "seed=7")
    assert result.exit_code == 0
    assert result.stdout == f"{tiny}: a valid scenario (tiny, seed 7)\n"


def test_validate_warns_of_what_will_not_learn() -> None:
    result = call("validate", "ctc", "consensus.shared=critic")
    assert result.exit_code == 0 and result.stdout == "ctc: a valid scenario (ctc, seed 1)\n"
    assert result.stderr.startswith("f2a2-sim: warning: learner.critic_l2 = 0.001 with consensus.shared")


def test_validate_names_file_line_and_key(tiny: Path) -> None:
    tiny.write_text(TINY.replace("batch_size", "batchsize"))
    result = call("validate", tiny)
    assert (
        f"{tiny}:4  learner.batchsize = 8\n      no such key; did you mean learner.batch_size?"
        in result.stderr
    )


@pytest.mark.parametrize(("error", "status"), [(RunError("disk full"), 1), (CheckpointError("foreign"), 2)])
def test_errors_for_people_are_printed_as_they_stand(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(api, "run", fail)
    result = call("run", tiny)
    assert (result.exit_code, result.stderr) == (status, f"f2a2-sim: {error}\n")


def test_a_bug_is_short_on_screen_and_whole_in_a_file(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(api, "run", fail)
    result = call("run", tiny)
    assert result.exit_code == 1
    assert "internal error: ZeroDivisionError: oops" in result.stderr
    log = Path(result.stderr.split("the traceback is in ")[1].split(";")[0])
    assert "in fail" in log.read_text()
    log.unlink()
    assert isinstance(call("--debug", "run", tiny).exception, ZeroDivisionError)


def test_options_reach_the_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def fake(scenario: f2a2_sim.Scenario, **options: object) -> None:
        seen.update(options, seed=scenario.seed, agents=scenario.world.agents)
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run", fake)
    result = call(
        "run",
        tiny,
        "world.agents=20",
        "seed=3",
        "--seed",
        "5",
        "--out",
        tmp_path / "r",
        "--threads",
        "2",
        "-q",
    )
    assert result.exit_code == 130
    assert seen == {
        "seed": 5,
        "agents": 20,
        "out": tmp_path / "r",
        "device": "cpu",
        "threads": 2,
        "progress": False,
    }


# ---------------------------------------------------------------- keys


def test_keys_makes_them_and_says_what_goes_where(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    result = call("keys", folder, "--agents", "2")
    assert result.exit_code == 0, result.output
    made = {"world.key", "agent-0.key", "agent-1.key", "members.json"}
    assert {path.name for path in folder.iterdir()} == made
    assert "members.json: the list of members; copy it to every machine" in result.stdout
    assert "agent-0.key to agent-1.key: each only to the machine of its agent" in result.stdout
    secret = (folder / "world.key").read_text()
    assert json.loads(secret)["secret_key"] not in result.output
    again = call("keys", folder, "--agents", "2")
    assert again.exit_code == 2 and "never overwritten" in again.stderr and "Traceback" not in again.output
    assert (folder / "world.key").read_text() == secret


# ---------------------------------------------------------------- whole runs


def test_run_report_trace_and_replay(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = call("run", tiny, "--out", run, "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert str(run / "report.html") in result.stdout
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"
    (run / "report.html").unlink()
    assert call("report", run).stdout == f"{run / 'report.html'}\n"
    assert call("trace", run).stdout == f"{run / 'trace.json'}\n"
    film = call("replay", run, "--steps", "3")
    assert film.exit_code == 0
    assert (run / "replay.gif").read_bytes().startswith(b"GIF8")
    again = call("run", tiny, "--out", run, "-q")
    assert again.exit_code == 2
    assert "resume" in again.stderr
    assert call("validate", run / "scenario.yaml").exit_code == 0


def test_two_reports_make_a_comparison(tiny: Path, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("a", "b")]
    for seed, run in enumerate(runs):
        assert call("run", tiny, f"seed={seed}", "--out", run, "-q").exit_code == 0
    assert str(tmp_path / "comparison.html") in call("report", *runs).stdout


def test_sigint_ends_with_130_and_resume_goes_on(tiny: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["run", tiny, "duration.episodes=400", "checkpoint.every_wall_s=0.1", "--out", run, "-q"]
    process = subprocess.Popen(
        [sys.executable, "-m", "f2a2_sim", *map(str, command)], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(run.glob("checkpoints/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"f2a2-sim resume {run}" in stderr
    episodes = json.loads((run / "summary.json").read_text())["episodes"]
    assert 0 <= episodes < 400
    scenario = (run / "scenario.yaml").read_text()
    (run / "scenario.yaml").write_text(scenario.replace("episodes: 400", f"episodes: {episodes + 3}"))
    assert call("resume", run, "-q").exit_code == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["episodes"]) == ("finished", episodes + 3)


def test_module_form_and_exit_status_of_the_process() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "f2a2_sim", "validate", "nosuch"], capture_output=True, text=True
    )
    assert process.returncode == 2
    assert "shipped scenarios" in process.stderr
