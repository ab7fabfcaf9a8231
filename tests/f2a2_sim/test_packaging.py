"""What is installed: every package, and the data that they read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import f2a2_sim

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("f2a2_sim", "network", "devices")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found | {"f2a2_sim.scenarios"}


def test_one_version() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == f2a2_sim.__version__


def test_every_dependency_is_pinned_for_ci() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pinned = {
        line.partition("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    names = {entry.partition(">")[0].partition("[")[0].lower() for entry in wanted}
    assert names - {"f2a2-sim"} <= pinned


def test_public_names_are_there_and_others_are_not() -> None:
    for name in f2a2_sim.__all__:
        assert getattr(f2a2_sim, name) is not None
    assert sorted(f2a2_sim.__all__) == dir(f2a2_sim)
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        f2a2_sim.runs  # noqa: B018
