"""What is wrong with a scenario: where, which key and value, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from f2a2_sim.errors import ScenarioError

_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    ``value`` is None where it is not a single value, ``remedy`` empty where the expectation says it.
    """

    place: str
    key: str
    value: Any
    expectation: str
    remedy: str

    def __str__(self) -> str:
        subject = self.key
        if self.key and self.value is not None:
            subject = f"{self.key} = {_short(self.value)}"
        first = f"{self.place}  {subject}".rstrip()
        sentence = "; ".join(part for part in (self.expectation, self.remedy) if part)
        return f"{first}\n      {sentence}"


class ScenarioProblems(ScenarioError):
    """Every problem found in one scenario; the message lists them all."""

    def __init__(self, label: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "a problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        listed = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"scenario {label} has {count}:\n{listed}")


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
