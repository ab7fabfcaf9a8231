"""Gradients of MOA in float64 against autograd of its losses, written down on torch's own modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, leaky_relu

from f2a2_sim.learners.joint.moa import MoaSetup, OthersModel
from f2a2_sim.learners.joint.moa_config import MoaConfig
from f2a2_sim.learners.joint.moa_passes import MoaPasses
from f2a2_sim.learners.stacked import MlpArrays

N, OBSERVERS, SIZE, ACTIONS, ROLLOUTS = 4, (2, 0), 6, 3, 2
WIDTH, SMALL = SIZE + ACTIONS, 4
CONFIG: dict[str, Any] = {
    "trajectories": 20,
    "trajectory_steps": 5,
    "history_steps": 3,
    "recurrent_size": SMALL,
    "hidden_size": 7,
    "impromptu_pairs": 13,  # 5 joint steps
    "natural_pairs": 25,  # 9 joint steps
    "character_trajectories_per_update": 20,
    "character_refresh_updates": 1,
    "block_agents": 2,
}


@dataclass
class Step:
    """What all saw and did at one step of all rollouts, and who saw it."""

    observations: Tensor  # [n, rollouts, size]
    actions: Tensor  # [n, rollouts]
    known: Tensor  # [n, rollouts]
    begins: list[bool]
    rows: list[int]


def make(steps: int, **changes: Any) -> tuple[OthersModel, list[Step], Tensor, Tensor]:
    """Models that have seen ``steps`` steps; the steps; the random trajectories."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def choose(*shape: int) -> Tensor:
        return torch.randint(0, ACTIONS, shape, generator=generator)

    config = MoaConfig.model_validate(CONFIG | changes)
    like = torch.empty(0, dtype=torch.float64)
    models = OthersModel(config, MoaSetup(OBSERVERS, N, SIZE, ACTIONS, (5, 6), 0.01, ROLLOUTS, like))
    trajectories, moves = draw(20, 5, N, SIZE), choose(20, 5, N)
    models.gather(trajectories, moves)
    seen = []
    for number in range(steps):
        known = torch.rand(N, ROLLOUTS, generator=generator) < 0.8
        begins = [number % 4 == 0, number % 6 == 2]
        rows = [[0, 1], [1, 0], [1]][number % 3]
        step = Step(draw(N, ROLLOUTS, SIZE), choose(N, ROLLOUTS), known, begins, rows)
        models.observe(np.array(rows), step.observations, step.actions, np.array(begins), known)
        seen.append(step)
    return models, seen, trajectories, moves


def perceptron(arrays: MlpArrays, row: int, inputs: Tensor) -> Tensor:
    hidden = inputs @ arrays.first[row, :-1] + arrays.first[row, -1]
    for layer in arrays.layers:
        hidden = leaky_relu(hidden, 0.01) @ layer.weights[0][row] + layer.biases[0][row, 0]
    return hidden


def one_hot(action: Tensor) -> Tensor:
    return torch.eye(ACTIONS, dtype=torch.float64)[action]


def recurrent(layers: Any, row: int, inputs: list[Tensor]) -> Tensor:
    """Last state of a two-layer GRU over a list of steps, from its published equations."""
    for layer in layers:
        h, states = torch.zeros(SMALL, dtype=torch.float64), []
        for x in inputs:
            r, z, v = (x @ layer.below[row] + layer.below_bias[row, 0]).chunk(3)
            u_r, u_z, u_v = (h @ layer.before[row] + layer.before_bias[row, 0]).chunk(3)
            r, z = torch.sigmoid(r + u_r), torch.sigmoid(z + u_z)
            h = (1 - z) * torch.tanh(v + r * u_v) + z * h
            states.append(h)
        inputs = states
    return inputs[-1] if inputs else torch.zeros(SMALL, dtype=torch.float64)


class Plain:
    """One observer's models and losses, pair by pair."""

    def __init__(self, models: OthersModel, row: int, trajectories: Tensor, moves: Tensor) -> None:
        self.row, self.own = row, OBSERVERS[row]
        self.identity = models.config.identity
        self.others = [j for j in range(N) if j != self.own]
        self.leaf = models.parameters.detach().clone().requires_grad_()
        self.arrays = models.shape.arrays(self.leaf)
        self.trajectories, self.moves = trajectories, moves

    def character(self, j: int, which: list[int]) -> Tensor:
        states = []
        for t in which:
            steps = [
                torch.cat([o, one_hot(a)])
                for o, a in zip(self.trajectories[t, :, j], self.moves[t, :, j], strict=True)
            ]
            states.append(recurrent(self.arrays.character, self.row, steps))
        return torch.stack(states).mean(dim=0)

    def natural(self, j: int, o: Tensor, character: Tensor, history: list[Tensor]) -> Tensor:
        mental = recurrent(self.arrays.mental, self.row, history)
        return perceptron(self.arrays.natural, self.row, torch.cat([o, character, mental, self.who(j)]))

    def impromptu(self, j: int, o: Tensor) -> Tensor:
        return perceptron(self.arrays.impromptu, self.row, torch.cat([o, self.who(j)]))

    def who(self, j: int) -> Tensor:
        return torch.eye(N, dtype=torch.float64)[j, : N if self.identity else 0]


def joint_steps(seen: list[Step], row: int) -> list[tuple[Step, int, list[tuple[Step, int]]]]:
    """(step, rollout, history of at most three) that a row has seen, newest first."""
    episodes: list[list[tuple[Step, int]]] = [[] for _ in range(ROLLOUTS)]
    found = []
    for step in seen:
        for rollout in range(ROLLOUTS):
            if step.begins[rollout]:
                episodes[rollout] = []
        if row in step.rows:
            found.append([(step, rho, episodes[rho][-3:]) for rho in range(ROLLOUTS)])
            for rollout in range(ROLLOUTS):
                episodes[rollout].append((step, rollout))
    return [entry for at_once in reversed(found) for entry in at_once]


def losses(plain: Plain, seen: list[Step], characters: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Cross-entropy of natural prediction (9 joint steps) and impromptu prediction (5)."""
    entries = joint_steps(seen, plain.row)
    natural, impromptu = [], []
    for number, (step, rollout, past) in enumerate(entries[:9]):
        for j in plain.others:
            if not step.known[j, rollout]:
                continue
            o, a = step.observations[j, rollout], step.actions[j, rollout]
            history = [torch.cat([s.observations[j, rho], one_hot(s.actions[j, rho])]) for s, rho in past]
            natural.append(cross_entropy(plain.natural(j, o, characters[j], history), a))
            if number < 5:
                impromptu.append(cross_entropy(plain.impromptu(j, o), a))
    return torch.stack(natural).mean(), torch.stack(impromptu).mean()


@pytest.mark.parametrize(("steps", "identity"), [(3, True), (12, False)])
def test_gradient_is_that_of_both_losses(
    steps: int, identity: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's own setting: every trajectory counts in every update; a store half full, and full."""
    monkeypatch.setattr("f2a2_sim.learners.joint.moa_shape.SEQUENCES_AT_ONCE", 22)  # 7 trajectories
    models, seen, trajectories, moves = make(steps, identity=identity)
    found: list[Tensor] = []
    original = MoaPasses.character_gradient

    def watch(passes: MoaPasses, *arguments: Any) -> None:
        original(passes, *arguments)
        found.append(passes.parameters_gradient.clone())

    monkeypatch.setattr(MoaPasses, "character_gradient", watch)
    plains = [Plain(models, row, trajectories, moves) for row in (0, 1)]
    statistics = models.update(np.array([1, 0]), np.random.default_rng(0).random((2, 20)))
    for row, plain in enumerate(plains):
        characters = {j: plain.character(j, list(range(20))) for j in plain.others}
        natural, impromptu = losses(plain, seen, characters)
        (gradient,) = torch.autograd.grad(natural + impromptu, plain.leaf)
        torch.testing.assert_close(found[0][row], gradient[row])
        assert statistics["moa_loss_natural"][1 - row] == pytest.approx(natural.item())
        assert statistics["moa_loss_impromptu"][1 - row] == pytest.approx(impromptu.item())


def test_drawn_trajectories_give_the_gradient_and_the_last_reading_the_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models, seen, trajectories, moves = make(
        8, character_trajectories_per_update=10, character_refresh_updates=10
    )
    found: list[Tensor] = []
    original = MoaPasses.character_gradient

    def watch(passes: MoaPasses, *arguments: Any) -> None:
        original(passes, *arguments)
        found.append(passes.parameters_gradient.clone())

    uniforms = np.random.default_rng(1).random((2, 10))
    models.update(np.array([0, 1]), uniforms)  # now the characters are old
    read = models.characters.clone()
    monkeypatch.setattr(MoaPasses, "character_gradient", watch)
    plain = Plain(models, 1, trajectories, moves)
    models.update(np.array([0, 1]), uniforms)
    drawn = np.floor(2 * (np.arange(10) + uniforms[1])).astype(int).tolist()
    characters = {}
    for at, j in enumerate(plain.others):
        some = plain.character(j, drawn)
        characters[j] = read[1, at] + some - some.detach()
    natural, impromptu = losses(plain, seen, characters)
    (gradient,) = torch.autograd.grad(natural + impromptu, plain.leaf)
    torch.testing.assert_close(found[0][1], gradient[1])
    assert torch.equal(models.characters, read)


def test_characters_are_the_mean_over_all_trajectories() -> None:
    models, _, trajectories, moves = make(0)
    for row in (0, 1):
        plain = Plain(models, row, trajectories, moves)
        for at, j in enumerate(plain.others):
            character = plain.character(j, list(range(20)))
            torch.testing.assert_close(models.characters[row, at], character.detach())


def test_prediction_is_the_mean_of_both_logits() -> None:
    models, _, trajectories, moves = make(0)
    generator = torch.Generator().manual_seed(9)
    batch = 4
    observations = torch.randn(2, N, batch, SIZE, dtype=torch.float64, generator=generator)
    histories = torch.randn(2, N, batch, 3, WIDTH, dtype=torch.float64, generator=generator)
    lengths = torch.randint(0, 4, (2, N, batch), generator=generator)
    predicted = models.logits(np.array([1, 0]), observations, histories, lengths)
    for place, row in enumerate((1, 0)):
        plain = Plain(models, row, trajectories, moves)
        assert not predicted[place, plain.own].any()
        for j in plain.others:
            character = plain.character(j, list(range(20)))
            for m in range(batch):
                o = observations[place, j, m]
                first = 3 - int(lengths[place, j, m])
                natural = plain.natural(j, o, character, list(histories[place, j, m, first:]))
                expected = (natural + plain.impromptu(j, o)) / 2
                torch.testing.assert_close(predicted[place, j, m], expected.detach())
