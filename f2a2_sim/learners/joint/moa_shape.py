"""Sizes of one agent's models of the others, and where each network lies in its flat row.

A row is ``[character | mental | natural | impromptu]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.joint.moa_config import MoaConfig
from f2a2_sim.learners.joint.moa_gru import GruLayer, GruShape
from f2a2_sim.learners.stacked import MlpArrays, MlpShape

SEQUENCES_AT_ONCE = 512
"""Sequences that go through a recurrent network together where their number is free: they fit the cache."""


@dataclass(frozen=True)
class MoaArrays:
    """Views of the parameters, or of their gradients, of ``b`` agents' models."""

    character: list[GruLayer]
    mental: list[GruLayer]
    natural: MlpArrays
    impromptu: MlpArrays


@dataclass(frozen=True)
class MoaShape:
    """The four networks; the recurrent ones read observation and action, side by side (``width``)."""

    config: MoaConfig
    n_agents: int
    observation_size: int
    n_actions: int

    @property
    def width(self) -> int:
        """Numbers of one step of one agent."""
        return self.observation_size + self.n_actions

    @property
    def steps_at_once(self) -> int:
        """Joint steps, or trajectories of all others, that go through a recurrent network together."""
        return max(1, SEQUENCES_AT_ONCE // (self.n_agents - 1))

    @property
    def recurrent(self) -> GruShape:
        """Of the character and of the mental network."""
        return GruShape(self.width, self.config.recurrent_size, self.config.recurrent_layers)

    @property
    def natural(self) -> MlpShape:
        """Its inputs are ``[observation | character | mental state | identity]``."""
        return self._prediction(self.observation_size + 2 * self.config.recurrent_size)

    @property
    def impromptu(self) -> MlpShape:
        """Its inputs are ``[observation | identity]``."""
        return self._prediction(self.observation_size)

    @property
    def size(self) -> int:
        """Floats of one row, padding included."""
        return 2 * self.recurrent.size + self.natural.size + self.impromptu.size

    def arrays(self, rows: Tensor) -> MoaArrays:
        """The networks within ``rows`` ``[b, size]`` (last dimension dense)."""
        recurrent = self.recurrent
        sizes = [recurrent.size, recurrent.size, self.natural.size, self.impromptu.size]
        character, mental, natural, impromptu = torch.split(rows, sizes, dim=1)
        return MoaArrays(
            recurrent.arrays(character),
            recurrent.arrays(mental),
            self.natural.arrays(natural),
            self.impromptu.arrays(impromptu),
        )

    def initial(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """One row, every network drawn as torch draws it."""
        shapes = (self.recurrent, self.recurrent, self.natural, self.impromptu)
        return np.concatenate([shape.initial(generator) for shape in shapes])

    def activations(self) -> int:
        """Numbers that one update of one agent holds at once, besides parameters, gradients included."""
        config, others = self.config, self.n_agents - 1
        steps_of_natural = -(-config.natural_pairs // others) * others
        pairs = steps_of_natural + -(-config.impromptu_pairs // others) * others
        of_step = config.recurrent_layers * 7 * config.recurrent_size + self.width
        drawn = min(config.character_trajectories_per_update, self.steps_at_once)
        read = config.history_steps * steps_of_natural + config.trajectory_steps * others * drawn
        of_pair = self.natural.inputs + 2 * config.hidden_size * config.hidden_layers + self.n_actions
        return read * of_step + pairs * of_pair + self.size

    def _prediction(self, inputs: int) -> MlpShape:
        inputs += self.n_agents if self.config.identity else 0
        return MlpShape(inputs, self.config.hidden_size, self.config.hidden_layers, self.n_actions)
