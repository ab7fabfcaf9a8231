"""From a YAML file (or the name of a shipped scenario) and ``key=value`` overrides to a checked Scenario."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

import f2a2_sim
from f2a2_sim.errors import ScenarioError
from f2a2_sim.scenario.keys import default_at, kinds_at, kinds_with, names_at, nearest_key
from f2a2_sim.scenario.problems import Problem, ScenarioProblems
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.scenario.yaml_source import KeyPath, YamlSource, dotted, dump_yaml, parse_value, parse_yaml

_SUFFIXES = (".yaml", ".yml")
_FILE_KEYS = ("opponent", "path", "file")
_FILE_KEY_SUFFIXES = ("_file", "_path")
_UNIT_WORDS = {"_s": "seconds", "_bytes": "bytes", "_bps": "bits per second", "_w": "watts", "_j": "joules"}


def load_scenario(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """Load a scenario file, or a shipped scenario by name, and apply dotted ``key=value`` overrides.

    Files that the scenario names relative to itself become absolute paths. Raises
    :class:`~f2a2_sim.errors.ScenarioError` that lists every problem with its line.
    """
    return load_with_source(path_or_name, overrides)[0]


def load_with_source(path_or_name: str | Path, overrides: Sequence[str] = ()) -> tuple[Scenario, YamlSource]:
    """As :func:`load_scenario`, with the parsed file too, so that later errors can name their line."""
    path = find_scenario(path_or_name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(
            f"scenario {path} cannot be read: {error}; give a readable UTF-8 YAML file"
        ) from error
    source = parse_yaml(text, str(path_or_name))
    if not isinstance(source.data, dict):
        found = "nothing" if source.data is None else f"{type(source.data).__name__}"
        raise ScenarioError(
            f"scenario {path} must hold keys such as name, world and duration, but holds {found}; "
            "see `f2a2-sim scenarios` for examples"
        )
    source.data.setdefault("name", path.stem)
    apply_overrides(source, overrides)
    _resolve_files(source.data, path.resolve().parent)
    return _validated(source), source


def parse_scenario(text: str, label: str = "scenario") -> Scenario:
    """Check a scenario that is given as YAML text, such as the resolved one of a run's folder."""
    return _validated(parse_yaml(text, label))


def dump_scenario(scenario: Scenario) -> str:
    """The resolved scenario, every key written out, as YAML that loads back equal."""
    return dump_yaml(scenario.model_dump(mode="json"))


def shipped_scenarios() -> dict[str, Path]:
    """Scenarios that come with the package, by name: from the installed package or the source tree."""
    package = Path(f2a2_sim.__file__).resolve().parent
    for folder in (package / "scenarios", package.parent / "scenarios"):
        files = sorted(folder.glob("*.yaml"))
        if files:
            return {file.stem: file for file in files}
    return {}


def find_scenario(path_or_name: str | Path) -> Path:
    """The file of a scenario; a path wins over a shipped name."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    shipped = shipped_scenarios()
    name = str(path_or_name)
    if name in shipped:
        return shipped[name]
    names = ", ".join(shipped) or "none"
    if path.is_dir():
        raise ScenarioError(f"scenario {name} is a folder; give a YAML file or a shipped name ({names})")
    close = get_close_matches(path.stem, list(shipped), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    what = (
        "no such file"
        if path.suffix in _SUFFIXES or len(path.parts) > 1
        else "no file and no shipped scenario"
    )
    raise ScenarioError(f"scenario {name}: {what} of that name; {hint}shipped scenarios: {names}")


def apply_overrides(source: YamlSource, overrides: Sequence[str]) -> None:
    """Set dotted keys in the parsed data; every malformed override is reported at once."""
    problems: list[Problem] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip() or "" in key.split("."):
            problems.append(
                Problem(
                    f"override {override}",
                    "",
                    None,
                    "an override is key=value",
                    "write for example world.agents=64",
                )
            )
            continue
        path: KeyPath = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
        try:
            value = parse_value(text)
        except ScenarioProblems as error:
            problems.extend(
                Problem(f"override {override}", key, text, problem.expectation, problem.remedy)
                for problem in error.problems
            )
            continue
        problem = _set(source.data, path, value, override)
        if problem is not None:
            problems.append(problem)
            continue
        source.overrides[path] = override
    if problems:
        raise ScenarioProblems(source.label, problems)


def _set(data: Any, path: KeyPath, value: Any, override: str) -> Problem | None:
    """Set one key, making the sections on the way; the problem if something on the way is not a section."""
    here = data
    for position, part in enumerate(path):
        last = position == len(path) - 1
        where = dotted(path[:position])
        if isinstance(here, list):
            if not isinstance(part, int) or part > len(here) or (part == len(here) and not last):
                return Problem(
                    f"override {override}",
                    dotted(path),
                    value,
                    f"{where} is a list of {len(here)}, so {part} names no item of it",
                    f"use an index from 0 to {len(here)} (the last appends)",
                )
            if part == len(here):
                here.append(None)
            key: Any = part
        elif isinstance(here, dict):
            key = str(part)
            if not last and here.get(key) is None:
                default = default_at(Scenario, path[: position + 1])
                here[key] = default if isinstance(default, dict | list) else {}
        else:
            return Problem(
                f"override {override}",
                dotted(path),
                value,
                f"{where} is the value {here}, not a section",
                "mend the key",
            )
        if last:
            if isinstance(here, dict):
                _drop_replaced(here, path, value)
            here[key] = value
        else:
            here = here[key]
    return None


def _drop_replaced(section: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Before another ``kind`` or link ``profile`` is set: remove the keys that belong to the old one."""
    if path[-1] == "kind":
        keep = names_at(Scenario, path[:-1], {"kind": value})
    elif path[-1] == "profile" and path[0] == "network":
        keep = []
    else:
        return
    for key in [key for key in section if key not in keep]:
        del section[key]


def _resolve_files(data: Any, folder: Path) -> None:
    """Make file names absolute that are relative to the scenario's folder, or else to the working one."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items):
        if isinstance(value, str) and (str(key) in _FILE_KEYS or str(key).endswith(_FILE_KEY_SUFFIXES)):
            found = next((path for path in (folder / value, Path.cwd() / value) if path.is_file()), None)
            if found is not None:
                data[key] = str(found)
        else:
            _resolve_files(value, folder)


def _validated(source: YamlSource) -> Scenario:
    try:
        return Scenario.model_validate_json(json.dumps(source.data), strict=True)
    except ValidationError as error:
        problems = [_problem(source, details) for details in error.errors()]
        problems.sort(key=lambda problem: source.line_of(problem.key))
    raise ScenarioProblems(source.label, problems)


def _problem(source: YamlSource, details: ErrorDetails) -> Problem:
    kind = details["type"]
    path, value, exists = _locate(source.data, details["loc"], kind)
    context = details.get("ctx", {})
    if kind == "scenario_conflict":
        path = tuple(int(part) if part.isdigit() else part for part in str(context["key"]).split("."))
        return Problem(source.place(path), dotted(path), None, details["msg"], "")
    place, key = source.place(path), dotted(path)
    if kind == "extra_forbidden":
        section = _value_at(source.data, path[:-1])
        return Problem(place, key, _shown(value), "no such key", _remedy_for_unknown(path, section))
    if kind == "union_tag_not_found":
        kinds = ", ".join(kinds_at(Scenario, path))
        return Problem(place, f"{key}.kind", None, "this key is needed", f"set it to one of: {kinds}")
    if kind == "union_tag_invalid":
        path = (*path, str(context["discriminator"]).strip("'"))
        expected = str(context["expected_tags"]).replace("'", "")
        return Problem(
            source.place(path),
            dotted(path),
            context["tag"],
            f"expected one of: {expected}",
            "use one of these",
        )
    if kind == "missing":
        return Problem(place, key, None, "this key is needed", f"add {path[-1] if path else 'it'}")
    if kind == "value_error":
        return Problem(place, key, _shown(value), str(context.get("error", details["msg"])), "")
    message = details["msg"].replace("Input should be", "expected")
    return Problem(
        place, key, _shown(value) if exists else None, message, _remedy_for_value(path, value, kind)
    )


def _locate(data: Any, location: Sequence[str | int], kind: str) -> tuple[KeyPath, Any, bool]:
    """Key path, value and presence of pydantic's location, without the union members' names in it."""
    path: list[str | int] = []
    here = data
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(here, dict) and str(part) in here:
            here = here[str(part)]
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif last and kind == "missing":
            return (*path, part), None, False
        else:
            continue
        path.append(part)
    return tuple(path), here, True


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _shown(value: Any) -> Any:
    return None if isinstance(value, dict | list) else "null" if value is None else value


def _remedy_for_unknown(path: KeyPath, section: Any) -> str:
    kinds = kinds_with(Scenario, path)
    if kinds:
        return f"with kind: {section['kind']} there is none (with {' or '.join(kinds)} there is)"
    nearest = nearest_key(Scenario, path, section)
    if nearest is not None:
        return f"did you mean {nearest}?"
    names = names_at(Scenario, path[:-1], section)
    return f"known here: {', '.join(names)}" if names else "remove it"


def _remedy_for_value(path: KeyPath, value: Any, kind: str) -> str:
    name = str(path[-1]) if path else ""
    if kind == "bool_type" and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off"):
        return f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if isinstance(value, str) and kind in ("float_type", "int_type"):
        for suffix, unit in _UNIT_WORDS.items():
            if name.endswith(suffix):
                return f"write a plain number of {unit}, without quotes or unit"
        return "write a plain number, without quotes or unit"
    if kind == "literal_error" and isinstance(value, str):
        return "use one of these words"
    return f"change {name}" if name else "change it"
