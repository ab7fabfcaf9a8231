"""What MAAC's speed is measured against does what ours does: one update from the same start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.plain_maac import PlainMaac, PlainTraining, Sample
from f2a2_sim.baselines.joint_replay import JointBatch
from f2a2_sim.baselines.maac import critic as critic_module
from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.learner import Maac
from tests.f2a2_sim.baselines.maac.recording import Views, named_critic, named_policy, read, write

SIZES, ACTIONS, BATCH = (6, 9, 9, 5), 5, 24
CONFIG = MaacConfig(hidden_size=16, heads=4, batch_size=BATCH, policy_clip=0.01, critic_clip_per_agent=0.05)


def pairs(ours: Maac, plain: PlainMaac) -> list[tuple[dict[str, Views], torch.nn.Module]]:
    """Our parameters by name, and the module that has those of the same names."""
    found = [
        (named_critic(ours.shape, ours.critic.parameters), plain.critic),
        (named_critic(ours.shape, ours.critic.targets), plain.target_critic),
    ]
    for policy in ours.policies:
        for row, i in enumerate(range(policy.group.first, policy.group.stop)):
            for rows, modules in (
                (policy.parameters, plain.policies),
                (policy.targets, plain.target_policies),
            ):
                found.append((named_policy(policy.shape, rows[row : row + 1]), modules[i]))
    return found


@pytest.mark.parametrize("part", [BATCH, 7])
def test_an_update_is_ours(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours also computes a batch in parts, the last one smaller."""
    monkeypatch.setattr(critic_module, "PART", part)
    rng, n = np.random.default_rng(3), len(SIZES)
    ours = Maac(CONFIG, SIZES, ACTIONS, rng, dtype=torch.float64)
    plain = PlainMaac(CONFIG, SIZES, ACTIONS)
    for named, module in pairs(ours, plain):
        module.double()
        parameters = dict(module.named_parameters())
        assert parameters.keys() == named.keys()
        with torch.no_grad():
            for name, views in named.items():
                write(views, rng.normal(scale=0.3, size=read(views).shape))
                parameters[name].copy_(torch.from_numpy(read(views)))

    seen, following = ([rng.normal(size=(BATCH, size)) for size in SIZES] for _ in range(2))
    actions, next_actions, new_actions = rng.integers(0, ACTIONS, (3, n, BATCH))
    rewards, ended = 50 * rng.normal(size=(n, BATCH)), (rng.random((n, BATCH)) < 0.3).astype(float)

    def by_group(arrays: list[NDArray[np.float64]]) -> list[torch.Tensor]:
        return [torch.from_numpy(np.stack(arrays[group.agents])) for group in ours.shape.groups]

    def by_agent(arrays: NDArray[np.float64] | list[NDArray[np.float64]]) -> list[torch.Tensor]:
        return [torch.from_numpy(array) for array in arrays]

    batch = JointBatch(
        by_group(seen),
        torch.from_numpy(actions),
        torch.from_numpy(rewards),
        by_group(following),
        torch.from_numpy(ended),
    )
    hot = np.eye(ACTIONS)[actions]
    sample = Sample(by_agent(seen), by_agent(hot), by_agent(rewards), by_agent(following), by_agent(ended))
    for _ in range(2):  # Adam's first step is but a sign
        ours.update(batch, lambda _: torch.from_numpy(next_actions), lambda _: torch.from_numpy(new_actions))
        plain.update(
            sample,
            lambda i, _: torch.from_numpy(next_actions[i]).unsqueeze(1),
            lambda i, _: torch.from_numpy(new_actions[i]).unsqueeze(1),
        )
    for named, module in pairs(ours, plain):
        for name, parameter in module.named_parameters():
            np.testing.assert_allclose(read(named[name]), parameter.detach().numpy(), rtol=0, atol=1e-9)


def test_it_plays_and_learns() -> None:
    training = PlainTraining("rover_tower", MaacConfig(rollouts=2, batch_size=16, replay_transitions=100))
    before = [p.detach().clone() for p in training.learner.critic.parameters()]
    for _ in range(30):  # beyond an episode's end
        training.step()
    training.update()
    assert not any(
        torch.equal(p, old) for p, old in zip(training.learner.critic.parameters(), before, strict=True)
    )
