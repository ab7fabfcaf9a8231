"""Sizes of MAAC's attention critic, and where each of its parameter arrays lies in a flat row.

A row holds one whole critic of n agents, so that a copy of it is a message, and what consensus may share
is a slice of it: ``[attention | action encoders | state encoders | heads]``.  Agents whose observations have
one size are stacked, so that they cost one product instead of one each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.errors import UsageError
from f2a2_sim.learners.stacked import padded


@dataclass(frozen=True)
class AgentGroup:
    """Neighbouring agents ``first .. stop - 1`` whose observations have the same size."""

    first: int
    stop: int
    observation_size: int

    @property
    def agents(self) -> slice:
        """Their places along an axis of all agents."""
        return slice(self.first, self.stop)

    @property
    def count(self) -> int:
        """How many they are."""
        return self.stop - self.first


def group_agents(observation_sizes: Sequence[int]) -> tuple[AgentGroup, ...]:
    """Runs of neighbouring agents with equal observations, in the agents' order."""
    groups: list[AgentGroup] = []
    for size, run in groupby(observation_sizes):
        first = groups[-1].stop if groups else 0
        groups.append(AgentGroup(first, first + len(list(run)), size))
    return tuple(groups)


@dataclass(frozen=True)
class Segment:
    """One parameter array: its place in a row, its shape, and the fan-in that its initial values go by."""

    offset: int
    shape: tuple[int, ...]
    fan_in: int


@dataclass(frozen=True)
class CriticArrays:
    """Views of ``C`` rows of parameters, or of gradients, by what they are for (symbols: `AttentionCritic`).

    Weights are ``[in, out]``; the heads of the attention lie side by side in ``out``.  The last row of an
    encoder's weight is its bias.  Lists hold one entry per group of agents.
    """

    selector: Tensor  # [C, hidden, hidden]
    key: Tensor  # [C, hidden, hidden]
    value: Tensor  # [C, hidden, hidden]
    value_bias: Tensor  # [C, hidden]
    encoders: list[Tensor]  # [C, group, actions + observation + 1, hidden]
    states: list[Tensor]  # [C, group, observation + 1, hidden]
    head: Tensor  # [C, n, 2 hidden, hidden], its rows [state | what the others do]
    head_bias: Tensor  # [C, n, hidden]
    output: Tensor  # [C, n, hidden, actions]
    output_bias: Tensor  # [C, n, actions]


@dataclass(frozen=True)
class AttentionShape:
    """An attention critic for agents with these observation sizes and ``n_actions`` actions each."""

    observation_sizes: tuple[int, ...]
    n_actions: int
    hidden: int = 128
    heads: int = 4

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise UsageError(
                f"attention heads: {self.heads} heads cannot share {self.hidden} hidden units equally; "
                "choose heads that divide them"
            )
        if self.n_agents < 2:
            raise UsageError(f"attention critic: {self.n_agents} agents; expected at least two, to attend to")

    @property
    def n_agents(self) -> int:
        return len(self.observation_sizes)

    @property
    def head_width(self) -> int:
        """Units of one head."""
        return self.hidden // self.heads

    @cached_property
    def groups(self) -> tuple[AgentGroup, ...]:
        return group_agents(self.observation_sizes)

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Every agent's group, and its place in it."""
        return tuple((g, member) for g, group in enumerate(self.groups) for member in range(group.count))

    def others(self, agent: int) -> tuple[tuple[int, int], ...]:
        """The places of all but one agent, in their order."""
        return self.places[:agent] + self.places[agent + 1 :]

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Every parameter array, in the order in which they lie in a row."""
        offset, segments = 0, []
        for shape, fan_in in self._sizes():
            segments.append(Segment(offset, shape, fan_in))
            offset += padded(prod(shape))
        return tuple(segments)

    @cached_property
    def size(self) -> int:
        """Floats of one row, padding included."""
        last = self.segments[-1]
        return last.offset + padded(prod(last.shape))

    @property
    def parameters(self) -> int:
        """Trained numbers of one row, padding left out."""
        return sum(prod(segment.shape) for segment in self.segments)

    @property
    def attention_columns(self) -> slice:
        """Columns of keys, selectors and values."""
        return slice(0, self.segments[4].offset)

    @property
    def common_columns(self) -> slice:
        """Columns of what all agents' Q pass through: attention and action encoders."""
        return slice(0, self.segments[4 + len(self.groups)].offset)

    def arrays(self, rows: Tensor, places: Sequence[int] | None = None) -> CriticArrays:
        """The parameter arrays within ``rows`` ``[C, size]``, last dimension dense.

        ``places``: where each of `segments` lies, if not at its offset.
        """
        at = [s.offset for s in self.segments] if places is None else places
        views = [
            rows.narrow(1, place, prod(s.shape)).view(-1, *s.shape)
            for place, s in zip(at, self.segments, strict=True)
        ]
        selector, key, value, value_bias, *rest = views
        k = len(self.groups)
        return CriticArrays(selector, key, value, value_bias, rest[:k], rest[k : 2 * k], *rest[2 * k :])

    def initial(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """One row drawn as torch.nn.Linear draws it: uniform in +-1/sqrt(fan_in); padding 0."""
        row = np.zeros(self.size)
        for segment in self.segments:
            size = prod(segment.shape)
            values = (2.0 * generator.random(size) - 1.0) / sqrt(segment.fan_in)
            row[segment.offset : segment.offset + size] = values
        return row

    def _sizes(self) -> Iterator[tuple[tuple[int, ...], int]]:
        n, hidden, actions = self.n_agents, self.hidden, self.n_actions
        yield from [((hidden, hidden), hidden)] * 3
        yield (hidden,), hidden
        for group in self.groups:
            inputs = actions + group.observation_size
            yield (group.count, inputs + 1, hidden), inputs
        for group in self.groups:
            yield (group.count, group.observation_size + 1, hidden), group.observation_size
        yield (n, 2 * hidden, hidden), 2 * hidden
        yield (n, hidden), 2 * hidden
        yield (n, hidden, actions), hidden
        yield (n, actions), hidden
