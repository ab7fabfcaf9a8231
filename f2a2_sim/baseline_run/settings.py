"""What a baseline's training is: which learner, where, how long, with which settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from f2a2_sim.baselines.config import CentralConfig
from f2a2_sim.baselines.registry import baseline_of
from f2a2_sim.baselines.worlds import rules_of
from f2a2_sim.errors import UsageError
from f2a2_sim.results.folder import BaselineFolder
from f2a2_sim.scenario.keys import nearest_key
from f2a2_sim.scenario.problems import ScenarioProblems
from f2a2_sim.scenario.yaml_source import dump_yaml, parse_value


class BaselineSettings(BaseModel):
    """The whole of ``baseline.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    baseline: str
    world: str
    episodes: int = Field(ge=1)
    seed: int = Field(ge=0)
    config: dict[str, Any]

    @classmethod
    def of(
        cls, baseline: str, world: str, overrides: Sequence[str], episodes: int, seed: int
    ) -> BaselineSettings:
        """From the command line; UsageError names what is wrong with it."""
        model = baseline_of(baseline).config
        rules_of(world)
        given = dict(_parsed(override) for override in overrides)
        config = _validated(baseline, model, given)
        return cls(baseline=baseline, world=world, episodes=episodes, seed=seed, config=config.model_dump())

    @classmethod
    def read(cls, folder: BaselineFolder) -> BaselineSettings:
        """From the folder of a training; UsageError if the file is damaged."""
        try:
            settings = cls.model_validate(folder.read_scenario())
        except ValidationError as error:
            details = error.errors()[0]
            key = ".".join(map(str, details["loc"]))
            raise UsageError(
                f"{folder.scenario_file}: {key}: {details['msg']}. It is damaged; restore it, or begin anew"
            ) from None
        settings.learner_config()
        return settings

    def learner_config(self) -> CentralConfig:
        """``config`` as the learner's own settings."""
        return _validated(self.baseline, baseline_of(self.baseline).config, self.config)

    def to_yaml(self) -> str:
        return dump_yaml(self.model_dump())

    def identity(self) -> str:
        """A fingerprint of everything that results depend on; not of how long the training is to be."""
        fields = self.model_dump(exclude={"episodes"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


def _parsed(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{override}: expected key=value; write for example batch_size=512")
    try:
        return key.strip(), parse_value(text)
    except ScenarioProblems as error:
        problem = error.problems[0]
        raise UsageError(f"{override}: {problem.expectation}; {problem.remedy}") from None


def _validated(baseline: str, model: type[CentralConfig], values: dict[str, Any]) -> CentralConfig:
    """The settings; UsageError lists every key that is wrong."""
    try:
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        listed = "\n".join(f"  {_told(model, details)}" for details in error.errors())
    raise UsageError(f"settings of {baseline}:\n{listed}")


def _told(model: type[CentralConfig], details: ErrorDetails) -> str:
    key = ".".join(map(str, details["loc"]))
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    subject = f"{key} = {details['input']}"
    if details["type"] != "extra_forbidden":
        return f"{subject}: {details['msg'].replace('Input should be', 'expected')}; change {key}"
    nearest = nearest_key(model, (key,))
    hint = f"did you mean {nearest}?" if nearest else f"known are {', '.join(model.model_fields)}"
    return f"{subject}: no such key; {hint}"
