"""Recordings of the original environments, as steps that the rules can be held to.

A folder (``F2A2_PARITY_DIR``, else ``tests/data/particle``) holds ``ctc_*.npz`` and ``rt_*.npz`` of two
kinds. A trajectory has arrays with a first axis T + 1 (state and observations, index 0 after the reset) or T
(actions, rewards), and the state of the random numbers at every moment. Probes, ``*_probes.npz``, are steps
that have nothing to do with one another: ``pre_`` and ``post_`` state, and the seed of what is drawn within
the step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from f2a2_sim.worlds.particle import RoverTower, TreasureCollection
from f2a2_sim.worlds.particle.base import NONE
from f2a2_sim.worlds.particle.rover_tower import RoverTowerState
from f2a2_sim.worlds.particle.treasure_collection import TreasureState

Arrays = Mapping[str, NDArray[Any]]
Rules = TreasureCollection | RoverTower
State = TreasureState | RoverTowerState

SHIPPED = Path(__file__).parents[3] / "data" / "particle"
TOLERANCE = 1e-9
ROLES = {"ctc": ("collector", "deposit"), "rt": ("listener", "speaker")}


def folder() -> Path:
    return Path(os.environ.get("F2A2_PARITY_DIR", SHIPPED))


def files(where: Path, probes: bool) -> list[Path]:
    """Recordings of a folder, of one kind."""
    found = sorted([*where.glob("ctc_*.npz"), *where.glob("rt_*.npz")])
    return [path for path in found if path.stem.endswith("_probes") == probes]


def load(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as data:
        return dict(data)


def world_of(path: Path) -> str:
    """``ctc`` or ``rt``."""
    return path.stem.partition("_")[0]


def new_rules(world: str) -> Rules:
    return TreasureCollection() if world == "ctc" else RoverTower()


def state_of(world: str, moments: Arrays) -> State:
    """The state at n moments, as a batch of n rollouts: float64 and int64, copied.

    moments: arrays by their plain names, ``agent_pos`` and so on, all with a first axis n.
    """
    if world == "ctc":
        return TreasureState(
            position=moments["agent_pos"].copy(),
            velocity=moments["agent_vel"].copy(),
            holding=moments["agent_holding"][:, :6].astype(np.int64),
            treasure_position=moments["treasure_pos"].copy(),
            treasure_type=moments["treasure_type"].astype(np.int64),
            treasure_alive=moments["treasure_alive"].astype(np.bool_),
        )
    said = moments["agent_c"][:, 4:]
    return RoverTowerState(
        position=moments["agent_pos"].copy(),
        velocity=moments["agent_vel"].copy(),
        rover_of=moments["speaker_listener"].astype(np.int64),
        goal=moments["speaker_goal"].astype(np.int64),
        landmark_position=moments["landmark_pos"].copy(),
        message=np.where(said.any(axis=2), said.argmax(axis=2), NONE),
    )


@dataclass
class Steps:
    """n single steps of one world: state before and after, actions ``[n, 8]``, what each gave, its draws."""

    world: str
    before: State
    after: State
    actions: NDArray[np.int64]
    observations: tuple[NDArray[np.float64], ...]
    rewards: NDArray[np.float64]
    streams: list[np.random.RandomState]


def trajectory_steps(world: str, data: Arrays) -> Steps:
    """All steps of a trajectory, each from its recorded state and with the recorded random numbers."""
    last = len(data["actions"])
    fixed = {name: np.repeat(data[name][None], last, axis=0) for name in _pairing(data)}
    before, after = (
        state_of(world, {name: data[name][t : t + last] for name in _dynamic(world)} | fixed) for t in (0, 1)
    )
    return Steps(
        world,
        before,
        after,
        data["actions"],
        tuple(data[f"obs_{role}"][1:] for role in ROLES[world]),
        data["rewards"],
        [generator_at(data, t) for t in range(last)],
    )


def probe_steps(world: str, data: Arrays) -> Steps:
    """All probes of a file; actions, observations and rewards may be named with or without ``post_``."""
    seeds = data["rng_seed"].tolist()
    fixed = {name: data[name] for name in _pairing(data)}
    if world == "rt" and "pre_landmark_pos" not in data:
        fixed["landmark_pos"] = np.concatenate([_landmarks_drawn(seed) for seed in seeds])
    before, after = (
        state_of(
            world,
            {name: data[f"{when}_{name}"] for name in _dynamic(world) if f"{when}_{name}" in data} | fixed,
        )
        for when in ("pre", "post")
    )
    return Steps(
        world,
        before,
        after,
        _either(data, "actions"),
        tuple(_either(data, f"obs_{role}") for role in ROLES[world]),
        _either(data, "rewards"),
        [np.random.RandomState(seed) for seed in seeds],
    )


def probes_of(steps: Steps, seeds: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Steps in the layout of a probe file."""
    data: dict[str, NDArray[Any]] = {"actions": steps.actions, "rewards": steps.rewards, "rng_seed": seeds}
    data |= {f"obs_{role}": seen for role, seen in zip(ROLES[steps.world], steps.observations, strict=True)}
    for when, state in (("pre", steps.before), ("post", steps.after)):
        data |= {f"{when}_{name}": value for name, value in _arrays_of(state).items()}
    if isinstance(steps.before, RoverTowerState):
        data |= {
            "speaker_listener": steps.before.rover_of,
            "listener_speaker": steps.before.tower_of,
            "speaker_goal": steps.before.goal,
        }
    return data


def generator_at(data: Arrays, moment: int) -> np.random.RandomState:
    draws = np.random.RandomState()
    draws.set_state(("MT19937", data["mt_key"][moment], int(data["mt_pos"][moment])))
    return draws


def _dynamic(world: str) -> tuple[str, ...]:
    own = (
        ("agent_holding", "treasure_pos", "treasure_type", "treasure_alive")
        if world == "ctc"
        else ("agent_c", "landmark_pos")
    )
    return ("agent_pos", "agent_vel", *own)


def _pairing(data: Arrays) -> list[str]:
    return [name for name in ("speaker_listener", "speaker_goal") if name in data]


def _either(data: Arrays, name: str) -> NDArray[Any]:
    return data[name] if name in data else data[f"post_{name}"]


def _landmarks_drawn(seed: int) -> NDArray[np.float64]:
    rules = RoverTower()
    rules.reset([np.random.RandomState(seed)])
    return rules.state.landmark_position


def _arrays_of(state: State) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"agent_pos": state.position, "agent_vel": state.velocity}
    if isinstance(state, TreasureState):
        empty = np.full((len(state.holding), 2), NONE)
        return arrays | {
            "agent_holding": np.concatenate([state.holding, empty], axis=1),
            "treasure_pos": state.treasure_position,
            "treasure_type": state.treasure_type,
            "treasure_alive": state.treasure_alive,
        }
    said = np.vstack([np.eye(5), np.zeros(5)])[state.message]
    return arrays | {
        "agent_c": np.concatenate([np.zeros_like(said), said], axis=1),
        "landmark_pos": state.landmark_position,
    }
