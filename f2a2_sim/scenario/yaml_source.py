"""YAML text as plain data that remembers the line of every key.

Scalars are those of YAML 1.2: ``off`` is a word, ``1e-4`` a number, ``5e5`` the integer 500000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from f2a2_sim.scenario.problems import Problem, ScenarioProblems

KeyPath = tuple[str | int, ...]

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9][0-9_]*(?:[eE]\+?[0-9]{1,2})?$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*\.(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE]-[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_RESOLVERS = (
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", _BOOL, list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (declared so by the base class)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _RESOLVERS:
        _class.add_implicit_resolver(_tag, _pattern, _first)


@dataclass
class YamlSource:
    """Parsed YAML: ``data``, and by key path the place that set the key (for messages)."""

    label: str
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """``file:line`` (or the override) that set the key, or else the nearest key around it."""
        for length in range(len(path), -1, -1):
            prefix = path[:length]
            if prefix in self.overrides:
                return f"override {self.overrides[prefix]}"
            if prefix in self.lines:
                return f"{self.label}:{self.lines[prefix]}"
        return self.label

    def line_of(self, key: str) -> int:
        """Line of a dotted key, or of the nearest one around it; 0 for an override."""
        path: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        for length in range(len(path), -1, -1):
            if path[:length] in self.overrides:
                return 0
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 0


def parse_yaml(text: str, label: str) -> YamlSource:
    """Parse one YAML document; raises :class:`ScenarioProblems` on wrong syntax or a key given twice."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{label}:{mark.line + 1}" if mark is not None else label
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise ScenarioProblems(
            label, [Problem(place, "", None, f"not valid YAML: {what}", "correct the syntax at that line")]
        ) from error
    except RecursionError as error:
        what = "nested too deeply"
        raise ScenarioProblems(label, [Problem(label, "", None, what, "nest less deeply")]) from error
    except yaml.YAMLError as error:
        raise ScenarioProblems(
            label, [Problem(label, "", None, f"not valid YAML: {error}", "save the file as plain UTF-8 text")]
        ) from error
    source = YamlSource(label, None)
    problems: list[Problem] = []
    source.data = _construct(root, (), source, problems, frozenset())
    if problems:
        raise ScenarioProblems(label, problems)
    return source


def parse_value(text: str) -> Any:
    """One YAML-typed value of an override (``64``, ``1e-4``, ``null``, ``[0, 1]``, ``{kind: ring}``)."""
    return parse_yaml(text, "override").data


def dump_yaml(data: Any) -> str:
    """YAML text that :func:`parse_yaml` reads back equal; keys keep their order."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110)
    return text


def _construct(
    node: yaml.Node | None,
    path: KeyPath,
    source: YamlSource,
    problems: list[Problem],
    parents: frozenset[int],
) -> Any:
    if node is None:
        return None
    source.lines.setdefault(path, node.start_mark.line + 1)
    place = f"{source.label}:{node.start_mark.line + 1}"
    key = dotted(path)
    if id(node) in parents:
        problems.append(Problem(place, key, None, "an alias that contains itself", "write the value out"))
        return None
    inside = parents | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        return [_construct(child, (*path, i), source, problems, inside) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(
                    Problem(f"{source.label}:{line}", key, None, "a key must be a word", "name the key")
                )
                continue
            name = str(key_node.value)
            child_path: KeyPath = (*path, name)
            if name in mapping:
                problems.append(
                    Problem(
                        f"{source.label}:{line}",
                        dotted(child_path),
                        None,
                        f"key given twice, first on line {source.lines[child_path]}",
                        "keep one of the two",
                    )
                )
                continue
            source.lines[child_path] = line
            mapping[name] = _construct(value_node, child_path, source, problems, inside)
        return mapping
    return _scalar(node, place, key, problems)


def _scalar(node: yaml.Node, place: str, key: str, problems: list[Problem]) -> Any:
    try:
        return _plain_value(node, place, key, problems)
    except (ValueError, OverflowError):  # of the type that its tag says
        problems.append(Problem(place, key, str(node.value)[:80], "not a number", "write a plain number"))
        return None


def _plain_value(node: yaml.Node, place: str, key: str, problems: list[Problem]) -> Any:
    text = str(node.value)
    kind = node.tag.rpartition(":")[2]
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    digits = text.replace("_", "")
    if kind == "int":
        mantissa, _, exponent = digits.lower().partition("e")
        return int(mantissa) * 10 ** int(exponent or 0)
    if kind == "float":
        value = float(digits.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if value != value:
            problems.append(
                Problem(place, key, text, "not a number", "write a number, or null where it is allowed")
            )
        return value
    problems.append(
        Problem(place, key, text, f"YAML tag {node.tag} is not allowed here", "write a plain value")
    )
    return None


def dotted(path: KeyPath) -> str:
    """``('devices', 'fleet', 0, 'share')`` as the user writes it: ``devices.fleet.0.share``."""
    return ".".join(str(part) for part in path)
