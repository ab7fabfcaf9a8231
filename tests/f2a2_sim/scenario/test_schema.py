"""The schema as editors see it: complete, described, and closed to unknown keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from f2a2_sim.scenario.keys import default_at, kinds_at, known_keys, names_at, nearest_key
from f2a2_sim.scenario.schema import Scenario, WorldConfig, scenario_json_schema
from f2a2_sim.worlds.particle import RoverTower, TreasureCollection

SECTIONS = [
    "name",
    "seed",
    "duration",
    "world",
    "learner",
    "consensus",
    "devices",
    "network",
    "record",
    "checkpoint",
    "deployment",
]


def objects(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "Scenario", schema
    yield from schema["$defs"].items()


def test_top_level_keys_in_the_order_of_the_documentation() -> None:
    assert list(scenario_json_schema()["properties"]) == SECTIONS


def test_every_property_has_a_description_of_one_sentence() -> None:
    for name, definition in objects(scenario_json_schema()):
        for key, prop in definition.get("properties", {}).items():
            description = prop.get("description", "")
            assert description.endswith("."), f"{name}.{key} has no sentence: {description!r}"
            assert len(description) > 8, f"{name}.{key}: {description!r}"


def test_no_object_takes_unknown_keys() -> None:
    for name, definition in objects(scenario_json_schema()):
        if "properties" in definition:
            assert definition["additionalProperties"] is False, name


def test_every_key_of_the_models_is_in_the_json_schema() -> None:
    schema = scenario_json_schema()
    listed = {key for _, definition in objects(schema) for key in definition.get("properties", {})}
    keys = set(known_keys(Scenario))
    assert {key.rpartition(".")[2] for key in keys} == listed
    assert {"world.agents", "devices.fleet.0.share", "devices.custom_profiles.NAME.kind"} <= keys


def test_references_resolve() -> None:
    schema = scenario_json_schema()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].removeprefix("#/$defs/") in schema["$defs"]
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(schema)
    assert schema["$schema"].startswith("https://json-schema.org/draft/2020-12")


def test_bounds_reach_the_json_schema() -> None:
    share = scenario_json_schema()["$defs"]["FleetGroup"]["properties"]["share"]
    assert (share["exclusiveMinimum"], share["maximum"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (("consensus", "interval"), ["mean_updates", "std_updates"]),
        (("devices", "fleet", 3), ["availability", "link", "profile", "share"]),
        (("world", "env_args"), []),
        (("nothing",), []),
    ],
)
def test_names_at(path: tuple[str | int, ...], names: list[str]) -> None:
    assert names_at(Scenario, path) == names


def test_names_at_a_section_of_several_kinds_depend_on_its_kind() -> None:
    path = ("network", "topology")
    assert names_at(Scenario, path, {"kind": "ring"}) == ["kind"]
    assert names_at(Scenario, path, {"kind": "k_regular"}) == ["degree", "kind"]
    assert "ring" in kinds_at(Scenario, path)


def test_defaults_of_sections() -> None:
    assert default_at(Scenario, ("consensus", "interval")) == {"mean_updates": 1.0, "std_updates": 0.0}
    assert default_at(Scenario, ("record",))["every_steps"] == 20
    assert default_at(Scenario, ("duration",)) is None
    assert default_at(Scenario, ("world", "env_args")) == {}
    assert default_at(Scenario, ("no", "such")) is None


def test_nearest_key_beside_comes_before_one_elsewhere() -> None:
    assert nearest_key(Scenario, ("network", "link", "los")) == "network.link.loss"
    assert nearest_key(Scenario, ("share",)) == "devices.fleet.0.share"
    assert nearest_key(Scenario, ("qqqqq",)) is None


@pytest.mark.parametrize(
    ("world", "steps"),
    [
        ({"env": "battle", "agents": 12}, 200),
        ({"env": "ctc"}, TreasureCollection.episode_steps),
        ({"env": "rover_tower"}, RoverTower.episode_steps),
        ({"env": "rover_tower", "episode_steps": 40}, 40),
        ({"env": "m:f"}, 200),
    ],
)
def test_the_length_of_an_episode_is_the_worlds_unless_given(world: dict[str, Any], steps: int) -> None:
    assert WorldConfig.model_validate(world).episode_steps == steps
