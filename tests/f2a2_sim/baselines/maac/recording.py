"""A recorded update of the original MAAC, and a learner put into the state before it.

A recording is an ``.npz`` file; what belongs to it but is kept apart lies beside it as ``<name>_extra.npz``.
Names and shapes of parameters are those of the original's ``state_dict`` (torch's layout, ``[out, in]``).
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.baselines.joint_replay import JointBatch
from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.learner import Choose, Maac
from f2a2_sim.learners.attention_shape import AttentionShape
from f2a2_sim.learners.stacked import MlpShape

FOLDER = Path(os.environ.get("F2A2_MAAC_DIR", Path(__file__).parents[3] / "data" / "maac"))
_EXTRA = "_extra"


def recordings() -> list[Path]:
    """Every recording there is."""
    return sorted(p for p in FOLDER.glob("maac_parity_*.npz") if not p.stem.endswith(_EXTRA))


class Recording:
    """The arrays of a recording by name; ``exact``: those of the update in float64."""

    def __init__(self, path: Path) -> None:
        self._arrays: dict[str, NDArray[np.generic]] = {}
        for part in (path.with_name(f"{path.stem}{_EXTRA}.npz"), path):
            if part.exists():
                with np.load(part) as file:
                    self._arrays.update({key.removeprefix(f"{_EXTRA}/"): file[key] for key in file.files})
        self.n = int(self["meta/nagents"])
        self.observation_sizes = tuple(int(size) for size in self["meta/obs_dims"])
        self.batch = int(self["meta/batch"])

    def __getitem__(self, key: str) -> NDArray[np.generic]:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def below(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """What is recorded under ``prefix``, by the rest of its name."""
        return {
            key.removeprefix(prefix): value for key, value in self._arrays.items() if key.startswith(prefix)
        }

    def stacked(self, prefix: str) -> NDArray[np.generic]:
        """``prefix/0``, ``prefix/1``, ... as one array."""
        return np.stack([self[f"{prefix}/{i}"] for i in range(self.n)])

    @property
    def has_optimiser(self) -> bool:
        """Whether Adam's state before the update is known: recorded, or zero."""
        return bool(self.below("adam0/critic/")) or self.fresh

    @property
    def fresh(self) -> bool:
        """Whether this is the first update."""
        return not any(self.below("p0/policy/0/in_fn.num_batches_tracked").values())

    def learner(self, dtype: torch.dtype, config: MaacConfig | None = None) -> Maac:
        """A learner in the state before the update."""
        learner = Maac(
            config or self.config(),
            self.observation_sizes,
            int(self["meta/act_dims"][0]),
            np.random.default_rng(0),
            dtype=dtype,
        )
        critic = learner.critic
        for rows, of in ((critic.parameters, "p0/critic/"), (critic.targets, "p0/target_critic/")):
            self._fill(named_critic(learner.shape, rows), of)
        for policy in learner.policies:
            for row, i in enumerate(range(policy.group.first, policy.group.stop)):
                for rows, of in ((policy.parameters, "policy"), (policy.targets, "target_policy")):
                    self._fill(named_policy(policy.shape, rows[row : row + 1]), f"p0/{of}/{i}/")
                for name, moments in (("mean", policy.moments.mean), ("var", policy.moments.variance)):
                    moments[row].copy_(torch.from_numpy(self[f"p0/policy/{i}/in_fn.running_{name}"]))
        if self.below("adam0/critic/"):
            self._restore_optimisers(learner)
        return learner

    def config(self, **changes: float) -> MaacConfig:
        """The settings of the recorded update."""
        recorded = {
            "hidden_size": int(self["meta/hidden"]),
            "heads": int(self["meta/heads"]),
            "learning_rate": float(self["meta/pi_lr"]),
            "critic_learning_rate": float(self["meta/q_lr"]),
            "critic_weight_decay": float(self["meta/critic_weight_decay"]),
            "discount": float(self["meta/gamma"]),
            "tau": float(self["meta/tau"]),
            "reward_scale": float(self["meta/reward_scale"]),
            "batch_size": self.batch,
        }
        return MaacConfig.model_validate(recorded | changes)

    def joint_batch(self, learner: Maac) -> JointBatch:
        """The recorded batch."""

        def by_group(prefix: str) -> list[Tensor]:
            return [
                torch.from_numpy(np.stack([self[f"{prefix}/{i}"] for i in range(g.first, g.stop)]))
                for g in learner.shape.groups
            ]

        return JointBatch(
            by_group("batch/obs"),
            torch.from_numpy(self.stacked("batch/act").argmax(axis=-1)),
            torch.from_numpy(self.stacked("batch/rew")),
            by_group("batch/next_obs"),
            torch.from_numpy(self.stacked("batch/done")),
        )

    def choose(self, prefix: str) -> Choose:
        """Replays the recorded actions under ``prefix``."""
        return lambda probabilities: torch.from_numpy(self.stacked(prefix))

    def _fill(self, named: dict[str, Views], prefix: str) -> None:
        for name, views in named.items():
            write(views, self[prefix + name])

    def _restore_optimisers(self, learner: Maac) -> None:
        def fill(views: dict[str, Views], prefix: str, kind: str) -> None:
            self._fill(views, f"{prefix}{kind}/")

        adam = learner.critic.adam
        for moment, kind in ((adam.first_moment, "exp_avg"), (adam.second_moment, "exp_avg_sq")):
            fill(named_critic(learner.shape, moment), "adam0/critic/", kind)
        adam.steps[:] = float(next(iter(self.below("adam0/critic/step/").values())))
        for policy in learner.policies:
            for row, i in enumerate(range(policy.group.first, policy.group.stop)):
                moments = ((policy.adam.first_moment, "exp_avg"), (policy.adam.second_moment, "exp_avg_sq"))
                for moment, kind in moments:
                    fill(named_policy(policy.shape, moment[row : row + 1]), f"adam0/policy/{i}/", kind)
                policy.adam.steps[row] = float(next(iter(self.below(f"adam0/policy/{i}/step/").values())))


Views = list[Tensor]
"""The columns of one of the original's parameters, left to right: here they need not lie side by side."""


def read(views: Views) -> NDArray[np.generic]:
    """The parameter as the original has it."""
    return torch.cat(views, dim=-1).numpy()


def write(views: Views, value: NDArray[np.generic]) -> None:
    """Set the parameter to what the original has."""
    ends = np.cumsum([view.shape[-1] for view in views])
    for view, part in zip(views, np.split(value, ends[:-1], axis=-1), strict=True):
        view.copy_(torch.from_numpy(part))


def named_critic(shape: AttentionShape, rows: Tensor) -> dict[str, Views]:
    """Views of the one row in ``rows`` by the original's names, in its layout, ``[out, in]``."""
    p = shape.arrays(rows)
    named: dict[str, Views] = {}
    a, width = shape.n_actions, shape.head_width
    for g, group in enumerate(shape.groups):
        for at, i in enumerate(range(group.first, group.stop)):
            encoder, state = p.encoders[g][0, at], p.states[g][0, at]
            named[f"critic_encoders.{i}.enc_fc1.weight"] = [encoder[a:-1].T, encoder[:a].T]
            named[f"critic_encoders.{i}.enc_fc1.bias"] = [encoder[-1]]
            named[f"state_encoders.{i}.s_enc_fc1.weight"] = [state[:-1].T]
            named[f"state_encoders.{i}.s_enc_fc1.bias"] = [state[-1]]
    for i in range(shape.n_agents):
        named[f"critics.{i}.critic_fc1.weight"] = [p.head[0, i].T]
        named[f"critics.{i}.critic_fc1.bias"] = [p.head_bias[0, i]]
        named[f"critics.{i}.critic_fc2.weight"] = [p.output[0, i].T]
        named[f"critics.{i}.critic_fc2.bias"] = [p.output_bias[0, i]]
    for h in range(shape.heads):
        head = slice(h * width, (h + 1) * width)
        named[f"key_extractors.{h}.weight"] = [p.key[0][:, head].T]
        named[f"selector_extractors.{h}.weight"] = [p.selector[0][:, head].T]
        named[f"value_extractors.{h}.0.weight"] = [p.value[0][:, head].T]
        named[f"value_extractors.{h}.0.bias"] = [p.value_bias[0, head]]
    return named


def named_policy(shape: MlpShape, row: Tensor) -> dict[str, Views]:
    """Views of one policy ``[1, P]`` by the original's names, in its layout."""
    first, second, second_bias, third, third_bias = shape.views(row)
    return {
        "fc1.weight": [first[0, :-1].T],
        "fc1.bias": [first[0, -1]],
        "fc2.weight": [second[0, 0].T],
        "fc2.bias": [second_bias[0, 0]],
        "fc3.weight": [third[0, 0].T],
        "fc3.bias": [third_bias[0, 0]],
    }


@cache
def recording_of(path: Path) -> Recording:
    """The recording, read once."""
    return Recording(path)
