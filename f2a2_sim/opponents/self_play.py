"""Independent Q-learning by self-play: both armies of a battle play, and feed, one network of action values.

Parameters are shared over both armies, as in the independent-Q baseline of MAgent (Zheng et al., "MAgent: A
many-agent reinforcement learning platform for artificial collective intelligence", AAAI 2018): every unit is
its own Q-learner on its own view and reward, and takes all others for part of its surroundings. Double
Q-learning with a target network, n-step returns (uncorrected), Huber loss, Adam at a rate
that falls linearly, epsilon-greedy exploration that falls linearly to a floor and stays there. Half of every
batch is mirrored left to right: otherwise the policy of one side grows stronger than that of the other.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from f2a2_sim.errors import CheckpointError
from f2a2_sim.opponents.iql import Layer, SoftPolicy
from f2a2_sim.opponents.replay import LEVELS, StepReplay
from f2a2_sim.worlds.battle_engine import (
    ATTACKS,
    CHANNELS,
    LEFT,
    MOVES,
    N_ACTIONS,
    OBSERVATION_SIZE,
    RIGHT,
    STAY,
    VIEW,
    BattleEngine,
)
from f2a2_sim.worlds.battlefield import smallest_map

_CHECKPOINT = "f2a2-sim opponent training"
_SIDES = (LEFT, RIGHT)
REMEMBERED_ROUNDS = 100
MIRRORED_ACTION = np.array(
    [MOVES.index((-dx, dy)) for dx, dy in MOVES]
    + [len(MOVES) + ATTACKS.index((-dx, dy)) for dx, dy in ATTACKS]
)


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the result; rounds are episodes of self-play."""

    rounds: int = 2000
    agents: int = 64
    map_size: int | None = None
    steps: int = 200
    seed: int = 1
    hidden_size: int = 128
    hidden_layers: int = 2
    negative_slope: float = 0.01
    learning_rate_first: float = 5e-4
    learning_rate_last: float = 5e-5
    discount: float = 0.95
    n_step: int = 3
    batch_size: int = 256
    update_every_steps: int = 4
    target_every_updates: int = 400
    replay_steps: int = 2000
    warmup_steps: int = 400
    epsilon_first: float = 1.0
    epsilon_last: float = 0.05
    epsilon_rounds: int = 200
    play_temperature: float = 0.02
    play_epsilon: float = 0.02


@dataclass(frozen=True)
class RoundResult:
    """One round, both armies together: attacks that landed, kills, reward per unit, steps, mean TD loss."""

    round: int
    hits: int
    kills: int
    return_mean: float
    steps: int
    epsilon: float
    loss: float


class SelfPlay:
    """The state of a training; every round is a function of it, the settings and the round's number."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.rounds_done = 0
        self.recent: deque[RoundResult] = deque(maxlen=REMEMBERED_ROUNDS)
        self._updates = 0
        map_size = settings.map_size if settings.map_size is not None else smallest_map(settings.agents)
        self._engine = BattleEngine(settings.agents, map_size)
        self._replay = StepReplay(settings.replay_steps, 2 * settings.agents, OBSERVATION_SIZE)
        self._network = _network(settings, torch.Generator().manual_seed(settings.seed))
        self._target = _network(settings, torch.Generator().manual_seed(settings.seed))
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=settings.learning_rate_first)

    def play_round(self) -> RoundResult:
        """One episode of self-play, learning on the way."""
        settings = self.settings
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([settings.seed, self.rounds_done])))
        epsilon = _linear(
            settings.epsilon_first, settings.epsilon_last, self.rounds_done, settings.epsilon_rounds
        )
        rate_first, rate_last = settings.learning_rate_first, settings.learning_rate_last
        rate = _linear(rate_first, rate_last, self.rounds_done, settings.rounds)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        policy = SoftPolicy(epsilon, 0.0)
        n = settings.agents
        self._engine.reset(int(rng.integers(2**31)))
        seen = self._look()
        hits = kills = steps = 0
        total = 0.0
        losses: list[float] = []
        while steps < settings.steps:
            acted = np.concatenate([self._engine.alive(side) for side in _SIDES])
            actions = np.full(2 * n, STAY, dtype=np.int64)
            uniforms = rng.random((2 * n, 2))
            actions[acted] = policy.choose(self._values(seen[acted]), uniforms[acted])
            left, right = self._engine.step((actions[:n], actions[n:]))
            rewards = np.concatenate([left.rewards, right.rewards])
            over = not (left.alive.any() and right.alive.any())
            ended = acted if over else np.concatenate([left.died, right.died])
            self._replay.add(seen, actions, rewards, acted, ended)
            seen = self._look()
            hits, kills, steps = hits + left.hits + right.hits, kills + left.kills + right.kills, steps + 1
            total += float(rewards.sum(dtype=np.float64))
            if self._replay.written > settings.warmup_steps and steps % settings.update_every_steps == 0:
                losses.append(self._update(rng))
            if over:
                break
        self._replay.close_round(seen)
        self.rounds_done += 1
        loss = float(np.mean(losses)) if losses else float("nan")
        result = RoundResult(self.rounds_done, hits, kills, total / (2 * n), steps, epsilon, loss)
        self.recent.append(result)
        return result

    def layers(self) -> list[Layer]:
        """The network as numpy arrays, (weight, bias) by layer."""
        return [
            (module.weight.detach().numpy().copy(), module.bias.detach().numpy().copy())
            for module in self._network
            if isinstance(module, nn.Linear)
        ]

    def save(self, path: Path) -> None:
        """Write a checkpoint (whole or not at all); only between rounds."""
        tensors = {f"network.{k}": v for k, v in self._network.state_dict().items()}
        tensors |= {f"target.{k}": v for k, v in self._target.state_dict().items()}
        for index, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{k}": v for k, v in state.items()}
        tensors |= {f"replay.{k}": torch.from_numpy(v) for k, v in self._replay.state().items()}
        metadata = {
            "format": _CHECKPOINT,
            "settings": json.dumps(dataclasses.asdict(self.settings)),
            "rounds_done": str(self.rounds_done),
            "updates": str(self._updates),
            "recent": json.dumps([dataclasses.asdict(result) for result in self.recent]),
        }
        partial = path.with_name(path.name + ".partial")
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata=metadata)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the very same settings; CheckpointError otherwise."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _CHECKPOINT:
                    raise CheckpointError(f"{path}: not a checkpoint of an opponent's training; remove it.")
                saved = json.loads(metadata["settings"])
                mine = dataclasses.asdict(self.settings)
                wrong = [k for k in mine if saved.get(k) != mine[k]]
                if wrong:
                    told = ", ".join(f"{k} = {saved.get(k)!r}, here {mine[k]!r}" for k in wrong)
                    raise CheckpointError(
                        f"{path}: of a training with other settings ({told}). "
                        "Give those settings, or another --out, or remove the checkpoint."
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                self._restore(tensors, metadata)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: damaged checkpoint ({error}). Remove it to start anew."
            ) from error

    def _restore(self, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self._network.load_state_dict(part("network."))
        self._target.load_state_dict(part("target."))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in part("adam.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": moments})
        self._replay.load_state({k: v.numpy() for k, v in part("replay.").items()})
        self.rounds_done = int(metadata["rounds_done"])
        self._updates = int(metadata["updates"])
        self.recent.extend(RoundResult(**result) for result in json.loads(metadata["recent"]))

    def _look(self) -> NDArray[np.float32]:
        return np.concatenate([self._engine.observations(side) for side in _SIDES])

    def _values(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            values: torch.Tensor = self._network(torch.from_numpy(observations))
        return values.numpy()

    def _update(self, rng: np.random.Generator) -> float:
        """One step of double Q-learning: y = G + bootstrap * Qbar(s', argmax_a Q(s', a)), Huber loss."""
        s = self.settings
        batch = self._replay.draw(s.batch_size, s.n_step, s.discount, rng)
        mirrored = rng.random(s.batch_size) < 0.5
        actions = np.where(mirrored, MIRRORED_ACTION[batch.actions], batch.actions)
        now = torch.from_numpy(mirror(batch.observations, mirrored)).float() / LEVELS
        later = torch.from_numpy(mirror(batch.later, mirrored)).float() / LEVELS
        with torch.no_grad():
            best = self._network(later).argmax(dim=1, keepdim=True)
            ahead = self._target(later).gather(1, best).squeeze(1)
            goal = torch.from_numpy(batch.returns) + torch.from_numpy(batch.bootstrap) * ahead
        value = self._network(now).gather(1, torch.from_numpy(actions)[:, None]).squeeze(1)
        loss = nn.functional.smooth_l1_loss(value, goal)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._updates += 1
        if self._updates % s.target_every_updates == 0:
            self._target.load_state_dict(self._network.state_dict())
        return float(loss.detach())


def mirror(views: NDArray[np.uint8], which: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Views ``[b, 845]`` of which those chosen, bool ``[b]``, are as seen with left and right exchanged."""
    grid = views.reshape(-1, VIEW, VIEW, CHANNELS)
    return np.where(which[:, None, None, None], grid[:, :, ::-1], grid).reshape(views.shape)


def _linear(first: float, last: float, now: int, span: int) -> float:
    return first + min(1.0, now / max(1, span)) * (last - first)


def _network(settings: TrainSettings, generator: torch.Generator) -> nn.Sequential:
    """MLP with leaky ReLU; weights and biases uniform in +-1/sqrt(fan in), from the generator."""
    sizes = [OBSERVATION_SIZE, *[settings.hidden_size] * settings.hidden_layers, N_ACTIONS]
    modules: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        if modules:
            modules.append(nn.LeakyReLU(settings.negative_slope))
        linear = nn.Linear(fan_in, fan_out)
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
        modules.append(linear)
    return nn.Sequential(*modules)
