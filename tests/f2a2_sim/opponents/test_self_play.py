from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from f2a2_sim.errors import CheckpointError
from f2a2_sim.opponents.self_play import MIRRORED_ACTION, SelfPlay, TrainSettings, mirror
from f2a2_sim.worlds.battle_engine import LEFT, RIGHT, BattleEngine

TINY = TrainSettings(
    rounds=4, agents=12, steps=24, hidden_size=16, batch_size=32, replay_steps=80, warmup_steps=20,
    target_every_updates=3,
)  # fmt: skip


def weights(play: SelfPlay) -> np.ndarray:
    return np.concatenate([part.ravel() for layer in play.layers() for part in layer])


def test_the_same_seed_gives_the_same_policy() -> None:
    torch.set_num_threads(1)
    first, second, other = SelfPlay(TINY), SelfPlay(TINY), SelfPlay(dataclasses.replace(TINY, seed=2))
    untrained = weights(first)
    for play in (first, second, other):
        results = [play.play_round() for _ in range(3)]
    assert np.array_equal(weights(first), weights(second))
    assert not np.array_equal(weights(first), weights(other))
    assert np.abs(weights(first) - untrained).max() > 1e-3
    assert results[0].round == 1
    assert results[0].epsilon == 1.0 > results[2].epsilon


def test_a_training_goes_on_from_its_checkpoint_as_if_never_stopped(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole, first, second = SelfPlay(TINY), SelfPlay(TINY), SelfPlay(TINY)
    for _ in range(4):
        whole.play_round()
    for _ in range(2):
        first.play_round()
    path = tmp_path / "x.checkpoint"
    first.save(path)
    second.load(path)
    for _ in range(2):
        second.play_round()
    assert np.array_equal(weights(whole), weights(second))
    assert list(whole.recent) == list(second.recent)
    assert [p.name for p in tmp_path.iterdir()] == ["x.checkpoint"]


def test_checkpoints_of_other_trainings_and_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.checkpoint"
    play = SelfPlay(TINY)
    play.save(path)
    with pytest.raises(CheckpointError, match=r"other settings \(seed = 1, here 5\)"):
        SelfPlay(dataclasses.replace(TINY, seed=5)).load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        SelfPlay(TINY).load(path)
    save_file({"w": np.zeros(3, np.float32)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        SelfPlay(TINY).load(path)


def test_mirrored_views_are_what_the_mirrored_army_sees() -> None:
    """Both armies act in mirror image; then unit by unit one sees the mirror image of what the other sees."""
    n, size = 36, 37  # odd, and the mirror line is x = 17: the left wall is one cell further than the right
    engine = BattleEngine(n, size)
    engine.reset(0)
    twin = {}
    for side in (LEFT, RIGHT):
        for row, (x, y) in enumerate(engine.positions(side).tolist()):
            twin[side, x if side == LEFT else 2 * (size // 2 - 1) - x, y] = row
    partner = np.array([twin[RIGHT, x, y] for x, y in engine.positions(LEFT).tolist()])
    for action in (11, 1, 7, 3):  # one step each, so that no unit is in another's way
        left = engine.view(LEFT)
        right = engine.view(RIGHT)[partner]
        seen_enemy_or_friend = slice(1, 5)
        one = mirror((right * 100).round().astype(np.uint8), np.ones(n, np.bool_)).reshape(n, 13, 13, 5)
        two = (left * 100).round().astype(np.uint8).reshape(n, 13, 13, 5)
        np.testing.assert_array_equal(one[..., seen_enemy_or_friend], two[..., seen_enemy_or_friend])
        engine.step((np.full(n, action), np.full(n, MIRRORED_ACTION[action])))
    unchanged = mirror(one.reshape(n, -1), np.zeros(n, np.bool_))
    np.testing.assert_array_equal(unchanged, one.reshape(n, -1))
    assert MIRRORED_ACTION[MIRRORED_ACTION].tolist() == list(range(21))


def test_learning_fits_what_it_is_told() -> None:
    """With no bootstrap left (discount 0) the values of stored pairs come to their rewards."""
    torch.set_num_threads(1)
    settings = dataclasses.replace(TINY, discount=0.0, n_step=1, learning_rate_first=3e-3, epsilon_last=1.0)
    play = SelfPlay(dataclasses.replace(settings, rounds=12, learning_rate_last=3e-3, update_every_steps=1))
    losses = [play.play_round().loss for _ in range(12)]
    assert losses[-1] < 0.2 * losses[0]
