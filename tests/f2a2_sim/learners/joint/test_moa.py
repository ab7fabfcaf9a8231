"""Models of other agents: what they learn, what they keep apart, what they save and cost."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from f2a2_sim.errors import CheckpointError, UsageError
from f2a2_sim.learners.joint.moa import STATISTICS, MoaSetup, OthersModel
from f2a2_sim.learners.joint.moa_config import MoaConfig

N, SIZE, ACTIONS, ROLLOUTS = 3, 4, 3, 4
ROWS = np.arange(N)
SMALL: dict[str, Any] = {
    "trajectories": 6,
    "trajectory_steps": 4,
    "history_steps": 3,
    "recurrent_size": 16,
    "hidden_size": 32,
    "impromptu_pairs": 160,
    "natural_pairs": 200,
    "character_trajectories_per_update": 2,
    "character_refresh_updates": 3,
}


class Play:
    """Random observations; what is done follows a rule."""

    def __init__(self, rule: str, seed: int = 0) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._rule = rule
        self._before = torch.zeros(N, ROLLOUTS, dtype=torch.int64)
        self.number = 0

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._random)

    def observations(self) -> Tensor:
        """None of their numbers is near 0, where rules change."""
        drawn = self.draw(N, ROLLOUTS, SIZE)
        return drawn + 0.3 * drawn.sign()

    def actions(self, seen: Tensor, begins: bool) -> Tensor:
        """"now": each agent by a column of its own; "before": one after the other, from any; "random"."""
        if self._rule == "before" and not begins:
            return (self._before + 1) % ACTIONS
        if self._rule == "now":
            own = torch.stack([seen[j, :, j] for j in range(N)])
            return 2 * (own > 0).long()
        return torch.randint(0, ACTIONS, seen.shape[:2], generator=self._random)

    def step(self, models: OthersModel, rows: Any = ROWS) -> None:
        """All rollouts take a step; an episode lasts 10."""
        observations = self.observations()
        begins = self.number % 10 == 0
        actions = self.actions(observations, begins)
        models.observe(rows, observations, actions, np.full(ROLLOUTS, begins))
        self._before = actions
        self.number += 1

    def next_step(self) -> tuple[Tensor, Tensor]:
        """What will be seen, and done, at a step that is not the first of an episode."""
        observations = self.observations()
        return observations, self.actions(observations, False)


def make(seeds: tuple[int, ...] = (1, 2, 3), rate: float = 0.005, **changes: Any) -> OthersModel:
    config = MoaConfig.model_validate(SMALL | changes)
    setup = MoaSetup(range(N), N, SIZE, ACTIONS, seeds, rate, ROLLOUTS, torch.empty(0))
    models = OthersModel(config, setup)
    generator = torch.Generator().manual_seed(7)
    shape = (config.trajectories, config.trajectory_steps, N)
    models.gather(
        torch.randn(*shape, SIZE, generator=generator), torch.randint(0, ACTIONS, shape, generator=generator)
    )
    return models


def learn(models: OthersModel, play: Play, updates: int, rows: Any = ROWS, steps: int = 5) -> dict[str, Any]:
    """``steps`` of the world before each update; the last update's statistics."""
    statistics: dict[str, Any] = {}
    for _ in range(updates):
        for _ in range(steps):
            play.step(models, rows)
        uniforms = np.random.default_rng(play.number).random((N, models.draws_per_update))
        statistics = models.update(rows, uniforms[rows])
    return statistics


def same(one: Any, other: Any) -> bool:
    """Bit for bit, NaN equal to NaN."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_deterministic_policy_is_predicted() -> None:
    models, play, row = make(rate=0.02), Play("now"), ROWS[:1]
    learn(models, play, 100, row)
    statistics = learn(models, play, 1, row, steps=20)  # 160 pairs to measure on
    for name in STATISTICS[2:]:
        assert statistics[name] > 0.95, (name, statistics)
    right = []
    for _ in range(50):
        observations, actions = play.next_step()
        logits = models.logits(row, observations.unsqueeze(0), *models.present(row))
        right.append((logits.argmax(dim=-1)[0] == actions)[1:].float().mean())
    assert float(torch.stack(right).mean()) > 0.95


def test_what_depends_on_the_past_is_known_to_the_natural_prediction_alone() -> None:
    statistics = learn(make(rate=0.02), Play("before"), 40)  # an even number: the last half of an episode
    assert (statistics["moa_accuracy_natural"] > 0.95).all()
    assert (statistics["moa_accuracy_impromptu"] < 0.6).all()
    assert (statistics["moa_accuracy"] > 0.95).all()


def test_accuracy_is_of_networks_that_have_not_seen_the_pairs() -> None:
    """Random actions: learnt by heart from the same few pairs, and yet no better than chance on new ones."""
    models, play = make(rate=0.02, impromptu_pairs=40, natural_pairs=40), Play("random")
    row, uniforms = ROWS[:1], np.random.default_rng(0).random((1, 2))
    for _ in range(5):
        play.step(models)
    first = models.update(row, uniforms)
    for _ in range(80):
        again = models.update(row, uniforms)
    assert again["moa_loss_natural"] < 0.1 and again["moa_loss_impromptu"] < 0.1  # by heart
    for name in STATISTICS[2:]:
        assert again[name] == first[name]  # there was nothing new to measure on
    for _ in range(5):
        play.step(models)
    new = models.update(row, uniforms)
    assert new["moa_accuracy"] < 0.65
    assert new["moa_loss_natural"] > 1.0
    assert models.update(row, uniforms)["moa_accuracy"] == new["moa_accuracy"]


def test_accuracy_counts_only_what_is_new_and_known() -> None:
    models = make()
    with torch.no_grad():
        models.parameters.zero_()  # all logits 0: action 0 is predicted
    begins = np.ones(ROLLOUTS, dtype=np.bool_)
    actions = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1], [2, 0, 0, 2]])
    known = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 1]], dtype=torch.bool)
    models.observe(ROWS, torch.zeros(N, ROLLOUTS, SIZE), actions, begins, known)
    uniforms = np.zeros((N, models.draws_per_update))
    statistics = models.update(ROWS, uniforms)
    assert statistics["moa_accuracy"].tolist() == pytest.approx([1 / 6, 5 / 7, 4 / 7])
    assert statistics["moa_loss_natural"] == pytest.approx(np.full(N, np.log(ACTIONS)))
    with torch.no_grad():
        models.parameters.zero_()
    models.observe(ROWS[1:], torch.zeros(N, ROLLOUTS, SIZE), 0 * actions, begins, known)
    assert models.update(ROWS, uniforms)["moa_accuracy"].tolist() == pytest.approx([1 / 6, 1, 1])


@pytest.mark.parametrize("block", [1, 2])
def test_observers_share_nothing(block: int) -> None:
    """What the others learn, miss or forget changes nothing of one observer."""
    alone, crowd = make(block_agents=block), make(seeds=(9, 2, 8), block_agents=block)
    play, same_play = Play("now"), Play("now")
    before = learn(alone, play, 3, ROWS[1:2])
    together = learn(crowd, same_play, 2, np.array([2, 1, 0]))
    crowd.reset(np.array([0]), [4])
    together = learn(crowd, same_play, 1, np.array([2, 1]))
    histories, lengths = alone.present(ROWS[1:2])
    crowd_histories, crowd_lengths = crowd.present(ROWS)
    assert torch.equal(histories[0], crowd_histories[1]) and torch.equal(lengths[0], crowd_lengths[1])
    for name in STATISTICS:
        assert together[name][1] == pytest.approx(before[name][0], rel=1e-4)
    torch.testing.assert_close(alone.parameters[1], crowd.parameters[1])
    torch.testing.assert_close(alone.characters[1], crowd.characters[1])
    assert not torch.allclose(alone.parameters[0], crowd.parameters[0])


def test_blocks_change_nothing_but_rounding() -> None:
    one, all_at_once = make(block_agents=1), make(block_agents=8)
    learn(one, Play("now"), 3)
    learn(all_at_once, Play("now"), 3)
    torch.testing.assert_close(one.parameters, all_at_once.parameters)
    torch.testing.assert_close(one.characters, all_at_once.characters)


def test_threads_change_nothing() -> None:
    """Each works on observers of its own, in buffers of its own."""
    one, two = make(character_refresh_updates=1), make(character_refresh_updates=1)
    learn(one, Play("now"), 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        learn(two, Play("now"), 2)
    finally:
        torch.set_num_threads(threads)
    assert same(one.state(), two.state())


def test_characters_are_read_anew_after_as_many_updates() -> None:
    models, play = make(character_refresh_updates=3), Play("now")
    read = [models.characters.clone()]
    for _ in range(6):
        learn(models, play, 1)
        read.append(models.characters.clone())
    changed = [not torch.equal(a, b) for a, b in pairwise(read)]
    assert changed == [False, False, True, False, False, True]
    of_row_0 = models.characters[0].clone()
    learn(models, play, 3, np.array([2]))
    assert torch.equal(models.characters[0], of_row_0)


def test_goes_on_bit_for_bit_from_a_saved_state() -> None:
    models, play = make(), Play("now")
    learn(models, play, 4)
    saved, saved_play = copy.deepcopy(models.state()), copy.deepcopy(play)
    statistics = learn(models, play, 5, np.array([2, 0]))
    resumed = make(seeds=(7, 8, 9))
    resumed.gather(torch.zeros(6, 4, N, SIZE), torch.zeros(6, 4, N))  # others than those saved
    resumed.load_state(saved)
    again = learn(resumed, saved_play, 5, np.array([2, 0]))
    assert same(statistics, again)
    assert same(models.state(), resumed.state())


def test_state_of_other_sizes_is_refused() -> None:
    with pytest.raises(CheckpointError, match="moa state"):
        make().load_state(make(hidden_size=8).state())


def test_reset_is_a_new_observer_with_the_same_trajectories() -> None:
    models, fresh = make(), make(seeds=(4, 2, 3))
    learn(models, Play("now"), 2)
    models.reset(np.array([0]), [4])
    assert torch.equal(models.parameters[0], fresh.parameters[0])
    assert torch.equal(models.characters[0], fresh.characters[0])
    assert models.can_update(ROWS).tolist() == [False, True, True]
    uniforms = np.zeros((1, models.draws_per_update))
    known = torch.zeros(N, ROLLOUTS, dtype=torch.bool)
    step = (torch.zeros(N, ROLLOUTS, SIZE), torch.zeros(N, ROLLOUTS), np.ones(ROLLOUTS, dtype=np.bool_))
    other = make()
    learn(other, Play("now"), 1)
    other.reset(np.array([0]), [4])
    other.observe(ROWS, *step, known)
    assert np.isnan(other.update(ROWS[:1], uniforms)["moa_accuracy"]).all()  # what it had is forgotten
    play, same_play = Play("now", 1), Play("now", 1)
    assert same(learn(models, play, 2, ROWS[:1]), learn(fresh, same_play, 2, ROWS[:1]))
    assert torch.equal(models.parameters[0], fresh.parameters[0])


def test_equal_seeds_are_equal_weights() -> None:
    models = make(seeds=(1, 1, 2))
    assert torch.equal(models.parameters[0], models.parameters[1])
    assert not torch.equal(models.parameters[0], models.parameters[2])


def test_long_batches_are_predicted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    models, play = make(), Play("now")
    learn(models, play, 1)
    batch = 7
    observations = play.draw(N, N, batch, SIZE)
    histories = play.draw(N, N, batch, 3, SIZE + ACTIONS)
    lengths = torch.arange(N * N * batch).view(N, N, batch) % 4
    whole = models.logits(ROWS, observations, histories, lengths)
    # Two others, so three at a time.
    monkeypatch.setattr("f2a2_sim.learners.joint.moa_shape.SEQUENCES_AT_ONCE", 6)
    torch.testing.assert_close(models.logits(ROWS, observations, histories, lengths), whole)
    some = np.array([2, 0])
    torch.testing.assert_close(
        models.logits(some, observations[some], histories[some], lengths[some]), whole[some]
    )


def test_costs_are_the_closed_form() -> None:
    models = make(trajectories=50, character_refresh_updates=4)
    hidden, width, others = 16, SIZE + ACTIONS, N - 1
    sequence_step, in_step = 2 * 3 * hidden, 2 * hidden

    def gru(sequences: int, steps: int, backward: bool) -> int:
        """Multiply-adds times two; the first state is 0, and inputs need no gradient."""
        forward = sequence_step * sequences * ((width + hidden) * steps + in_step * (steps - 1))
        if not backward:
            return forward
        back = (width + 2 * hidden) * steps + 2 * in_step * (steps - 1)
        return forward + sequence_step * sequences * back

    def perceptron(pairs: int, inputs: int) -> tuple[int, int]:
        inputs += N  # who it is
        forward = 2 * pairs * ((inputs + 1) * 32 + 32 * 32 + 32 * ACTIONS)
        return forward, forward + 2 * pairs * ((inputs + 1) * 32 + 2 * (32 * 32 + 32 * ACTIONS))

    natural, impromptu = perceptron(200, SIZE + 2 * hidden), perceptron(160, SIZE)
    to_recurrent = 2 * 200 * 32 * 2 * hidden
    update = gru(200, 3, True) + gru(2 * others, 4, True) + natural[1] + impromptu[1] + to_recurrent
    reading = gru(50 * others, 4, False)
    work = models.update_work()
    assert work.flops == pytest.approx(update + reading / 4)
    assert work.bytes > 4 * models.shape.size * 7 and work.kernels > 100
    predicted = models.logits_work(10)
    expected = gru(10 * others, 3, False)
    expected += perceptron(10 * others, SIZE + 2 * hidden)[0] + perceptron(10 * others, SIZE)[0]
    assert predicted.flops == expected


def test_memory_is_what_one_observer_holds() -> None:
    memory = make().memory_bytes()
    assert set(memory) == {"parameters", "optimiser", "replay", "activations"}
    models = make()
    row = models.parameters.shape[1]
    assert memory["optimiser"] == 8 * row
    assert memory["parameters"] == 4 * (row + 2 * 16)
    assert memory["replay"] > 4 * 6 * 4 * N * (SIZE + ACTIONS)


def test_defaults_are_the_papers() -> None:
    config = MoaConfig.model_validate({})
    assert (config.trajectories, config.trajectory_steps, config.history_steps) == (1000, 25, 5)
    assert (config.recurrent_layers, config.recurrent_size, config.hidden_size) == (2, 64, 128)
    assert (config.impromptu_pairs, config.natural_pairs) == (1200, 1600)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValidationError, match=r"\(16\) must not exceed trajectories \(6\)"):
        MoaConfig.model_validate({"trajectories": 6})
    with pytest.raises(UsageError, match="at least two"):
        setup = MoaSetup([0], 1, SIZE, ACTIONS, [0], 0.1, 1, torch.empty(0))
        OthersModel(MoaConfig.model_validate({}), setup)
    setup = MoaSetup([0], 2, SIZE, ACTIONS, [0], 0.1, 1, torch.empty(0))
    models = OthersModel(MoaConfig.model_validate(SMALL), setup)
    with pytest.raises(ValueError, match=r"expected \(6, 4, 2\)"):
        models.gather(torch.zeros(5, 4, 2, SIZE), torch.zeros(5, 4, 2))
    with pytest.raises(RuntimeError, match="gather"):
        models.update(np.array([0]), np.zeros((1, 2)))
