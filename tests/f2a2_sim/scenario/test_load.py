"""Loading scenarios: overrides, round trips, and an error for every way of getting it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from f2a2_sim.errors import ScenarioError
from f2a2_sim.scenario.load import (
    dump_scenario,
    find_scenario,
    load_scenario,
    parse_scenario,
    shipped_scenarios,
)
from f2a2_sim.scenario.problems import Problem, ScenarioProblems
from f2a2_sim.scenario.schema import Scenario

SMALL = """\
# a comment
name: small
duration: {episodes: 2}
world:
  env: battle
  agents: 64
devices:
  fleet:
    - {profile: raspberry_pi_5, share: 0.5}
    - {profile: jetson_nano, share: 0.5}
"""


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "small.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


def problems(path: Path, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(ScenarioProblems) as caught:
        load_scenario(path, overrides)
    return caught.value.problems


def only_problem(path: Path, *overrides: str) -> Problem:
    (problem,) = problems(path, *overrides)
    return problem


# ---------------------------------------------------------------- good scenarios


def test_given_keys_and_defaults(write) -> None:
    scenario = load_scenario(write(SMALL))
    assert (scenario.name, scenario.seed, scenario.world.agents) == ("small", 1, 64)
    assert scenario.learner.temperature == 0.08
    assert [group.profile for group in scenario.devices.fleet] == ["raspberry_pi_5", "jetson_nano"]


def test_name_defaults_to_the_file(write) -> None:
    assert load_scenario(write(SMALL.replace("name: small\n", ""), "other.yaml")).name == "other"


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
def test_shipped_scenarios_load_by_name_and_survive_a_round_trip(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert parse_scenario(dump_scenario(scenario)) == scenario


def test_all_scenarios_of_the_repository_are_shipped() -> None:
    folder = Path(__file__).parents[3] / "scenarios"
    assert (
        {path.stem for path in folder.glob("*.yaml")}
        == set(shipped_scenarios())
        >= {"magent_256", "quickstart"}
    )


def test_a_file_wins_over_a_shipped_name(write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(SMALL, "quickstart")
    monkeypatch.chdir(path.parent)
    assert find_scenario("quickstart") == Path("quickstart")


def test_the_resolved_scenario_has_every_key(write) -> None:
    scenario = load_scenario(write(SMALL), ["network.link.loss={kind: bernoulli, probability: 1e-5}"])
    text = dump_scenario(scenario)
    assert "wait_timeout_s: null" in text
    assert parse_scenario(text) == scenario


def test_relative_files_are_those_beside_the_scenario(write) -> None:
    trace = write("device,start_s,end_s\n0,0,1\n", "on.csv")
    path = write(SMALL + "  availability: {kind: trace, path: on.csv}\n")
    assert load_scenario(path).devices.availability.path == str(trace)  # type: ignore[union-attr]


# ---------------------------------------------------------------- overrides


def test_overrides_are_typed_like_yaml(write) -> None:
    scenario = load_scenario(
        write(SMALL),
        [
            "world.agents=32",
            "learner.learning_rate=1e-3",
            "learner.joint=false",
            "learner.grad_clip=null",
            "world.opponent=iql",
            "consensus.interval={mean_updates: 8, std_updates: 4}",
            "learner.replay_transitions=1e5",
        ],
    )
    assert scenario.world.agents == 32
    assert scenario.world.opponent == "iql"
    assert scenario.learner.learning_rate == 1e-3
    assert scenario.learner.joint is False
    assert scenario.learner.grad_clip is None
    assert scenario.consensus.interval.std_updates == 4.0
    assert scenario.learner.replay_transitions == 100_000


def test_overrides_index_and_extend_lists(write) -> None:
    scenario = load_scenario(
        write(SMALL),
        [
            "devices.fleet.0.share=0.25",
            "devices.fleet.1.share=0.25",
            "devices.fleet.2={profile: h200, share: 0.5}",
        ],
    )
    assert [(g.profile, g.share) for g in scenario.devices.fleet] == [
        ("raspberry_pi_5", 0.25),
        ("jetson_nano", 0.25),
        ("h200", 0.5),
    ]


def test_an_override_into_a_section_that_is_not_written_starts_from_its_default(write) -> None:
    scenario = load_scenario(write(SMALL), ["network.topology.share=0.5", "consensus.interval.std_updates=3"])
    assert scenario.network.topology.share == 0.5  # type: ignore[union-attr]
    assert scenario.consensus.interval.mean_updates == 1.0


def test_an_override_of_kind_drops_the_keys_of_the_old_kind(write) -> None:
    path = write(SMALL + "  jitter: {kind: lognormal, sigma: 0.5}\n")
    assert load_scenario(path, ["devices.jitter.kind=none"]).devices.jitter.kind == "none"
    both = [
        "devices.availability.kind=churn",
        "devices.availability.mean_on_s=5",
        "devices.availability.mean_off_s=6",
    ]
    assert load_scenario(path, both).devices.availability.mean_off_s == 6  # type: ignore[union-attr]


def test_later_overrides_win(write) -> None:
    assert load_scenario(write(SMALL), ["seed=3", "seed=4"]).seed == 4


@pytest.mark.parametrize("override", ["world.agents", "=3", "world..agents=3", ""])
def test_an_override_without_key_or_value(write, override: str) -> None:
    problem = only_problem(write(SMALL), override)
    assert problem.place == f"override {override}"
    assert "world.agents=64" in problem.remedy


def test_an_override_with_wrong_yaml_or_a_wrong_way(write) -> None:
    found = problems(
        write(SMALL), "seed=[1", "world.agents.x=1", "devices.fleet.5.share=1", "devices.fleet.a=1"
    )
    assert [problem.key for problem in found] == [
        "seed",
        "world.agents.x",
        "devices.fleet.5.share",
        "devices.fleet.a",
    ]
    assert "not valid YAML" in found[0].expectation
    assert "not a section" in found[1].expectation
    assert "list of 2" in found[2].expectation


def test_a_wrong_value_names_its_override(write) -> None:
    problem = only_problem(write(SMALL), "world.agents=6_000")
    assert problem.place.endswith(":4") or problem.place.startswith("override world.agents")
    assert "12 to 625" in problem.expectation and "6000" in problem.expectation


# ---------------------------------------------------------------- wrong scenarios


def test_a_wrong_key_names_file_line_value_and_nearest_key(write) -> None:
    path = write(SMALL.replace("agents: 64", "agents: 64\n  episode_step: 9"))
    problem = only_problem(path)
    assert (problem.place, problem.key, problem.value) == (f"{path}:7", "world.episode_step", 9)
    assert problem.remedy == "did you mean world.episode_steps?"


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("wrld={}", "world"),
        ("learner.batchsize=3", "learner.batch_size"),
        ("temperature=1", "learner.temperature"),
        ("devices.fleet.0.profil=x", "devices.fleet.0.profile"),
        ("consensus.interval.mean_update=3", "consensus.interval.mean_updates"),
        ("network.topology={kind: k_regular, degree: 4, degre: 3}", "network.topology.degree"),
        ("devices.custom_profiles.mine.memory_byte=3", "devices.custom_profiles.mine.memory_bytes"),
    ],
)
def test_nearest_keys(write, override: str, nearest: str) -> None:
    assert only_problem(write(SMALL), override).remedy == f"did you mean {nearest}?"


def test_a_key_unlike_any_other_lists_those_that_exist(write) -> None:
    assert only_problem(write(SMALL), "duration.zzz=1").remedy.startswith("known here: env_steps, episodes")


def test_a_key_of_another_kind_says_of_which(write) -> None:
    problem = only_problem(write(SMALL), "network.topology={kind: ring, degree: 4}")
    assert "k_regular or small_world" in problem.remedy


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("world.agents=many", "world.agents", "a valid integer; write a plain number"),
        ("world.agents=64.5", "world.agents", "a valid integer"),
        ("world.agents='64'", "world.agents", "without quotes"),
        ("world.observation_latency_s=5 ms", "world.observation_latency_s", "a plain number of seconds"),
        ("world.observation_latency_s=-1", "world.observation_latency_s", "greater than or equal to 0"),
        ("world.observation_latency_s=.inf", "world.observation_latency_s", "finite"),
        ("learner.joint=off", "learner.joint", "write false"),
        ("learner.joint=1", "learner.joint", "boolean"),
        ("learner.tau=1.5", "learner.tau", "less than or equal to 1"),
        ("world.mode=fast", "world.mode", "'lockstep' or 'realtime'"),
        ("world.opponent=ppo", "world.opponent", "match pattern"),
        ("world.env=a.b.c", "world.env", "match pattern"),
        ("devices.fleet={}", "devices.fleet", "array"),
        ("world=3", "world", "object"),
        ("network.topology={kind: star}", "network.topology.kind", "one of: empty, complete, ring"),
        ("network.topology={degree: 3}", "network.topology.kind", "set it to one of: empty, complete"),
        ("devices.availability={kind: churn, mean_on_s: 3}", "devices.availability.mean_off_s", "needed"),
        ("duration=null", "duration", "object"),
        ("name=a/b", "name", "match pattern"),
        ("seed=-1", "seed", "greater than or equal to 0"),
        ("checkpoint.keep=0", "checkpoint.keep", "greater than or equal to 1"),
        ("learner.learning_rate=.inf", "learner.learning_rate", "a finite number"),
        ("learner.temperature=1.0e400", "learner.temperature", "a finite number"),
        ("network.link.profile=[1]", "network.link.profile", "a valid string"),
        ("world.agents=!!int abc", "world.agents", "not a number"),
        (f"learner.batch_size={'9' * 5000}", "learner.batch_size", "not a number"),
    ],
)
def test_wrong_values_name_key_value_and_expectation(write, override: str, key: str, words: str) -> None:
    problem = only_problem(write(SMALL), override)
    assert problem.key == key
    assert problem.place.startswith("override") or problem.place.endswith((":3", ":4", ":8"))
    assert words in f"{problem.expectation}; {problem.remedy}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["duration.episodes=null"], ["episodes, env_steps, virtual_time_s and wall_time_s are all null"]),
        (["world.mode=realtime"], ["mode: realtime", "period_s is null"]),
        (["world.period_s=0.1"], ["period_s: 0.1", "mode: lockstep"]),
        (
            ["world.mode=realtime", "world.period_s=0.1", "world.observation_latency_s=0.2"],
            ["observation_latency_s: 0.2", "longer than period_s, 0.1"],
        ),
        (["world.agents=11"], ["12 to 625", "agents is 11"]),
        (["world.agents=626"], ["12 to 625", "agents is 626"]),
        (["world.agents=null"], ["battle needs agents"]),
        (["world.env_args={a: 1}"], ["battle takes no env_args", "has a"]),
        (["world.env=ctc", "world.agents=null", "world.env_args={a: 1}"], ["ctc takes no env_args"]),
        (["world.env=rover_tower", "world.agents=null", "world.map_size=40"], ["env is rover_tower"]),
        (["world.env=m:f", "world.agents=null", "world.opponent=iql"], ["opponent: iql", "env is m:f"]),
        (["world.env=m:f", "world.agents=null", "world.map_size=40"], ["map_size: 40", "env is m:f"]),
        (["devices.fleet.0.share=0.4"], ["0.4 + 0.5 = 0.9", "add up to 1"]),
        (["devices.fleet=[]"], ["fleet is empty"]),
        (["consensus.wait=neighbours"], ["wait: neighbours", "wait_timeout_s: null"]),
        (["consensus.wait_timeout_s=2"], ["wait_timeout_s: 2", "wait: none"]),
        (
            ["consensus.scheme=none", "consensus.wait=neighbours", "consensus.wait_timeout_s=1"],
            ["scheme: none", "wait: neighbours"],
        ),
        (["consensus.scheme=push_sum", "consensus.max_age_s=3"], ["push_sum", "max_age_s is 3"]),
        (["consensus.scheme=push_sum"], ["push_sum needs a fixed graph", "redraw is every_round"]),
        (
            ["learner.replay_transitions=6400"],
            ["batch_size: 128", "keeps 100", "at most 50", "at least 16384"],
        ),
        (["learner.warmup_transitions=9000"], ["warmup_transitions: 9000", "keeps 7812", "at most 3906"]),
        (["network.partitions=[{start_s: 3, end_s: 2, fraction: 0.5}]"], ["end_s = 2.0", "start_s = 3.0"]),
        (["network.link={loss_per: packet}"], ["loss_per", "mtu_bytes"]),
        (["devices.availability={kind: schedule, on: [[5, 3]]}"], ["[5, 3]", "end after it starts"]),
    ],
)
def test_values_that_do_not_fit_together_are_both_named(
    write, overrides: list[str], words: list[str]
) -> None:
    problem = only_problem(write(SMALL), *overrides)
    for word in words:
        assert word in problem.expectation


def test_push_sum_on_a_fixed_graph_is_allowed(write) -> None:
    load_scenario(write(SMALL), ["consensus.scheme=push_sum", "network.topology.redraw=never"])


def test_all_problems_come_at_once_in_the_order_of_the_file(write) -> None:
    text = SMALL.replace("agents: 64", "agents: many\n  mode: fast").replace("share: 0.5}", "shar: 0.5}", 1)
    path = write(text + "sed: 3\n")
    found = problems(path)
    assert [problem.key for problem in found] == ["world.agents", "world.mode", "devices.fleet.0.shar", "sed"]
    with pytest.raises(ScenarioError, match="has 4 problems:"):
        load_scenario(path)


def test_wrong_syntax_and_repeated_keys_name_the_line(write) -> None:
    assert only_problem(write("name: a\nworld: [1\n")).place.endswith("small.yaml:3")
    assert only_problem(write(SMALL + "name: again\n")).expectation == "key given twice, first on line 2"


@pytest.mark.parametrize("text", ["", "# nothing\n", "3\n", "- a\n"])
def test_a_file_without_keys(write, text: str) -> None:
    with pytest.raises(ScenarioError, match="must hold keys such as name, world and duration"):
        load_scenario(write(text))


def test_a_file_that_is_no_text(write, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("quikstart", "did you mean quickstart"),
        ("nothing_like_it", "shipped scenarios: .*magent_256"),
        ("no/such.yaml", "no such file"),
        ("/", "is a folder"),
    ],
)
def test_unknown_names_list_the_shipped_ones(name: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        load_scenario(name)
    assert "magent_256" in str(caught.value)


def test_scenarios_are_frozen(write) -> None:
    scenario = load_scenario(write(SMALL))
    with pytest.raises(ValueError, match="frozen"):
        scenario.seed = 3  # type: ignore[misc]


def test_python_may_build_a_scenario_without_yaml() -> None:
    scenario = Scenario.model_validate({"name": "x", "duration": {"episodes": 1}, "world": {"agents": 12}})
    assert parse_scenario(dump_scenario(scenario)) == scenario
