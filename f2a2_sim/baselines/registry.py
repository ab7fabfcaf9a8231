"""The baselines by name: settings, and how a trainer of one is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from f2a2_sim.baselines.coma import Coma, ComaConfig
from f2a2_sim.baselines.config import CentralConfig
from f2a2_sim.baselines.iql import Iql, IqlConfig
from f2a2_sim.baselines.ma_ac import MaAc, MaAcConfig
from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.learner import Maac
from f2a2_sim.baselines.maddpg import Maddpg, MaddpgConfig
from f2a2_sim.baselines.trainer import CentralLearner, CentralTrainer, Timed
from f2a2_sim.baselines.worlds import ParticleEpisodes, rules_of
from f2a2_sim.errors import UsageError
from f2a2_sim.randomness import Streams


@dataclass(frozen=True)
class Baseline:
    """A learner that the command line knows.

    ``learner`` takes settings of type ``config``, observation sizes by agent, the number of actions, a
    generator for the initial weights, and the torch device to compute on.
    """

    config: type[CentralConfig]
    learner: Callable[..., CentralLearner]


BASELINES: dict[str, Baseline] = {
    "maac": Baseline(MaacConfig, Maac),
    "maddpg": Baseline(MaddpgConfig, Maddpg),
    "coma": Baseline(ComaConfig, Coma),
    "ma_ac": Baseline(MaAcConfig, MaAc),
    "iql": Baseline(IqlConfig, Iql),
}


def baseline_of(name: str) -> Baseline:
    """The baseline of that name; UsageError if there is none."""
    if name not in BASELINES:
        raise UsageError(f"baseline {name}: there is none of that name; use {', '.join(BASELINES)}")
    return BASELINES[name]


def make_trainer(
    name: str, world: str, config: CentralConfig, seed: int, device: torch.device, timed: Timed
) -> CentralTrainer:
    """A training that has not begun; everything random in it follows from ``seed``."""
    rules = rules_of(world)
    streams = Streams(seed, len(rules.agents))
    learner = baseline_of(name).learner(
        config,
        rules.observation_sizes,
        rules.n_actions,
        np.random.default_rng(streams.seed_for("networks")),
        device,
    )
    episode_steps = rules.episode_steps if config.episode_steps is None else config.episode_steps
    episodes = ParticleEpisodes(rules, config.rollouts, streams, config.observation_limit)
    return CentralTrainer(episodes, episode_steps, config, learner, streams, timed)
