"""MAAC written plainly in PyTorch, as Iqbal and Sha's program is structured: what ours is measured against.

A module per agent and a module per head, called in loops; autograd; one ``torch.optim.Adam`` for the critic
and one for each policy; twelve single worlds stepped in turn; a replay of one numpy array per agent and kind.
The arithmetic is that of `f2a2_sim.baselines.maac` (tests/benchmarks/test_plain_maac.py compares an update).
Where nothing is to be differentiated no graph is recorded, which makes this rather faster than the original.

Parameters have the names that they have there, so that a saved ``state_dict`` says what is what.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils import clip_grad_norm_

from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.worlds.particle import ParticleEnv, ctc, rover_tower

WORLDS: dict[str, Callable[[], ParticleEnv]] = {"ctc": ctc, "rover_tower": rover_tower}


class Policy(nn.Module):
    """Logits of one agent's actions; observations are normalised by their batch, or by running moments."""

    def __init__(self, observation_size: int, n_actions: int, hidden: int) -> None:
        super().__init__()
        self.in_fn = nn.BatchNorm1d(observation_size, affine=False)
        self.fc1 = nn.Linear(observation_size, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, n_actions)
        self.nonlin = nn.LeakyReLU()

    def forward(self, observation: Tensor) -> Tensor:
        first = self.nonlin(self.fc1(self.in_fn(observation)))
        logits: Tensor = self.fc3(self.nonlin(self.fc2(first)))
        return logits


def encoder(prefix: str, inputs: int, hidden: int) -> nn.Sequential:
    """Batch normalisation, a layer, a leaky ReLU."""
    return nn.Sequential(
        OrderedDict(
            {
                f"{prefix}_bn": nn.BatchNorm1d(inputs, affine=False),
                f"{prefix}_fc1": nn.Linear(inputs, hidden),
                f"{prefix}_nl": nn.LeakyReLU(),
            }
        )
    )


class Critic(nn.Module):
    """One attention critic for all agents."""

    def __init__(self, sizes: Sequence[int], n_actions: int, hidden: int, heads: int) -> None:
        super().__init__()
        width = hidden // heads
        self.critic_encoders = nn.ModuleList(encoder("enc", size + n_actions, hidden) for size in sizes)
        self.state_encoders = nn.ModuleList(encoder("s_enc", size, hidden) for size in sizes)
        self.critics = nn.ModuleList(
            nn.Sequential(
                OrderedDict(
                    critic_fc1=nn.Linear(2 * hidden, hidden),
                    critic_nl=nn.LeakyReLU(),
                    critic_fc2=nn.Linear(hidden, n_actions),
                )
            )
            for _ in sizes
        )
        self.key_extractors = nn.ModuleList(nn.Linear(hidden, width, bias=False) for _ in range(heads))
        self.selector_extractors = nn.ModuleList(nn.Linear(hidden, width, bias=False) for _ in range(heads))
        self.value_extractors = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, width), nn.LeakyReLU()) for _ in range(heads)
        )

    def forward(
        self, observations: list[Tensor], actions: list[Tensor]
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Values of all own actions by agent, and its unscaled attention logits by head."""
        joined = [torch.cat(pair, dim=1) for pair in zip(observations, actions, strict=True)]
        encoded = [encode(x) for encode, x in zip(self.critic_encoders, joined, strict=True)]
        states = [encode(x) for encode, x in zip(self.state_encoders, observations, strict=True)]
        all_keys = [[extract(e) for e in encoded] for extract in self.key_extractors]
        all_values = [[extract(e) for e in encoded] for extract in self.value_extractors]
        all_selectors = [[extract(s) for s in states] for extract in self.selector_extractors]

        values, all_logits = [], []
        for i, critic in enumerate(self.critics):
            heard, logits = [], []
            for keys, contents, selectors in zip(all_keys, all_values, all_selectors, strict=True):
                others = [j for j in range(len(encoded)) if j != i]
                question = selectors[i].view(selectors[i].shape[0], 1, -1)
                of_others = torch.stack([keys[j] for j in others]).permute(1, 2, 0)
                logit = torch.matmul(question, of_others)
                weights = torch.softmax(logit / sqrt(of_others.shape[1]), dim=2)
                what = torch.stack([contents[j] for j in others]).permute(1, 2, 0)
                heard.append((what * weights).sum(dim=2))
                logits.append(logit)
            values.append(critic(torch.cat([states[i], *heard], dim=1)))
            all_logits.append(logits)
        return values, all_logits


@dataclass(frozen=True)
class Sample:
    """A batch, each list by agent: actions are one-hot, rewards and ``ended`` ``[batch]``."""

    observations: list[Tensor]
    actions: list[Tensor]
    rewards: list[Tensor]
    next_observations: list[Tensor]
    ended: list[Tensor]


class Replay:
    """Rings of transitions, an array per agent and kind."""

    def __init__(self, sizes: Sequence[int], n_actions: int, transitions: int) -> None:
        self._observations = [np.zeros((transitions, size), dtype=np.float32) for size in sizes]
        self._following = [np.zeros((transitions, size), dtype=np.float32) for size in sizes]
        self._actions = [np.zeros((transitions, n_actions), dtype=np.float32) for _ in sizes]
        self._rewards = [np.zeros(transitions, dtype=np.float32) for _ in sizes]
        self._ended = [np.zeros(transitions, dtype=np.float32) for _ in sizes]
        self._transitions = transitions
        self._next = self._filled = 0

    def push(
        self,
        observations: list[NDArray[np.float32]],
        actions: list[NDArray[np.float32]],
        rewards: NDArray[np.float32],
        following: list[NDArray[np.float32]],
    ) -> None:
        """A step of all worlds: by agent ``[worlds, ...]``, rewards ``[worlds, n]``."""
        at = (self._next + np.arange(len(rewards))) % self._transitions
        for i in range(len(self._rewards)):
            self._observations[i][at] = observations[i]
            self._actions[i][at] = actions[i]
            self._rewards[i][at] = rewards[:, i]
            self._following[i][at] = following[i]
            self._ended[i][at] = 0.0
        self._next = (self._next + len(rewards)) % self._transitions
        self._filled = min(self._filled + len(rewards), self._transitions)

    def sample(self, batch: int, rng: np.random.Generator) -> Sample:
        """Drawn with replacement; rewards by mean and standard deviation of all that is held."""
        at = rng.integers(self._filled, size=batch)

        def read(arrays: list[NDArray[np.float32]]) -> list[Tensor]:
            return [torch.from_numpy(array[at]) for array in arrays]

        held = [rewards[: self._filled] for rewards in self._rewards]
        rewards = [torch.from_numpy((r[at] - r.mean()) / r.std()) for r in held]
        return Sample(
            read(self._observations), read(self._actions), rewards, read(self._following), read(self._ended)
        )


Choose = Callable[[int, Tensor], Tensor]
"""Chooses actions int64 ``[batch, 1]`` of an agent by their probabilities ``[batch, actions]``."""


def by_chance(agent: int, probabilities: Tensor) -> Tensor:
    """A sample for each transition."""
    return torch.multinomial(probabilities, 1)


class PlainMaac:
    """Networks, their targets, their optimisers, and an update."""

    def __init__(self, config: MaacConfig, sizes: Sequence[int], n_actions: int) -> None:
        self.config = config
        self.n_actions = n_actions
        self.critic, self.target_critic = (
            Critic(sizes, n_actions, config.hidden_size, config.heads) for _ in range(2)
        )
        self.policies, self.target_policies = (
            [Policy(size, n_actions, config.hidden_size) for size in sizes] for _ in range(2)
        )
        self.target_critic.load_state_dict(self.critic.state_dict())
        for policy, target in zip(self.policies, self.target_policies, strict=True):
            target.load_state_dict(policy.state_dict())
        self.critic_adam = torch.optim.Adam(
            self.critic.parameters(),
            lr=config.critic_learning_rate,
            weight_decay=config.critic_weight_decay,
        )
        self.policy_adams = [torch.optim.Adam(p.parameters(), lr=config.learning_rate) for p in self.policies]

    @torch.no_grad()
    def act(self, observations: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """One-hot actions by agent."""
        actions = []
        for policy, seen in zip(self.policies, observations, strict=True):
            policy.eval()
            chosen = by_chance(0, torch.softmax(policy(torch.from_numpy(seen)), dim=1))
            policy.train()
            actions.append(self._one_hot(chosen, torch.float32).numpy())
        return actions

    def update(self, sample: Sample, choose_next: Choose = by_chance, choose: Choose = by_chance) -> None:
        """Critic, policies, targets."""
        self._update_critic(sample, choose_next)
        self._update_policies(sample, choose)
        self._follow(self.target_critic, self.critic)
        for target, policy in zip(self.target_policies, self.policies, strict=True):
            self._follow(target, policy)

    def _update_critic(self, sample: Sample, choose_next: Choose) -> None:
        config = self.config
        targets = self._targets(sample, choose_next)
        values, all_logits = self.critic(sample.observations, sample.actions)
        loss = torch.zeros((), dtype=values[0].dtype)
        for q, action, target, logits in zip(values, sample.actions, targets, all_logits, strict=True):
            taken = q.gather(1, action.argmax(dim=1, keepdim=True))
            loss = loss + (taken - target).square().mean()
            for logit in logits:
                loss = loss + config.attention_decay * logit.square().mean()
        self.critic_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        shared = ("critic_encoders", "key_extractors", "selector_extractors", "value_extractors")
        for name, parameter in self.critic.named_parameters():
            if name.startswith(shared):
                assert parameter.grad is not None
                parameter.grad.mul_(1.0 / len(values))
        clip_grad_norm_(self.critic.parameters(), config.critic_clip_per_agent * len(values))
        self.critic_adam.step()

    @torch.no_grad()
    def _targets(self, sample: Sample, choose_next: Choose) -> list[Tensor]:
        config = self.config
        chosen, logs = [], []
        for i, (policy, seen) in enumerate(zip(self.target_policies, sample.next_observations, strict=True)):
            log = torch.log_softmax(policy(seen), dim=1)
            chosen.append(choose_next(i, log.exp()))
            logs.append(log.gather(1, chosen[-1]))
        hot = [self._one_hot(action, logs[0].dtype) for action in chosen]
        values, _ = self.target_critic(sample.next_observations, hot)
        return [
            reward.unsqueeze(1)
            + config.discount * (1.0 - ended.unsqueeze(1)) * q.gather(1, action)
            - log / config.reward_scale
            for reward, ended, q, action, log in zip(
                sample.rewards, sample.ended, values, chosen, logs, strict=True
            )
        ]

    def _update_policies(self, sample: Sample, choose: Choose) -> None:
        config = self.config
        all_logits = [policy(seen) for policy, seen in zip(self.policies, sample.observations, strict=True)]
        chosen = [choose(i, z.detach().softmax(dim=1)) for i, z in enumerate(all_logits)]
        with torch.no_grad():
            hot = [self._one_hot(action, all_logits[0].dtype) for action in chosen]
            values, _ = self.critic(sample.observations, hot)
        for policy, adam, logits, action, q in zip(
            self.policies, self.policy_adams, all_logits, chosen, values, strict=True
        ):
            log = torch.log_softmax(logits, dim=1)
            taken = log.gather(1, action)
            baseline = (log.exp() * q).sum(dim=1, keepdim=True)
            pull = taken / config.reward_scale - (q.gather(1, action) - baseline)
            loss = (taken * pull.detach()).mean() + config.logit_decay * logits.square().mean()
            adam.zero_grad()
            loss.backward()
            clip_grad_norm_(policy.parameters(), config.policy_clip)
            adam.step()

    @torch.no_grad()
    def _follow(self, target: nn.Module, online: nn.Module) -> None:
        tau = self.config.tau
        for mine, new in zip(target.parameters(), online.parameters(), strict=True):
            mine.copy_(mine * (1.0 - tau) + new * tau)

    def _one_hot(self, actions: Tensor, dtype: torch.dtype) -> Tensor:
        return one_hot(actions.squeeze(1), self.n_actions).to(dtype)


class PlainTraining:
    """Twelve single worlds, a replay and a learner."""

    def __init__(self, world: str, config: MaacConfig) -> None:
        self.worlds = [WORLDS[world]() for _ in range(config.rollouts)]
        self._seen = [env.reset(seed=seed)[0] for seed, env in enumerate(self.worlds)]
        self.names = self.worlds[0].possible_agents
        sizes = [self._seen[0][name].shape[0] for name in self.names]
        n_actions = 5
        self.learner = PlainMaac(config, sizes, n_actions)
        self.replay = Replay(sizes, n_actions, config.replay_transitions)
        self.rng = np.random.default_rng(0)

    def step(self) -> None:
        """One step of every world."""
        observations = self._observed()
        actions = self.learner.act(observations)
        chosen = np.stack([action.argmax(axis=1) for action in actions], axis=1)
        rewards = np.zeros((len(self.worlds), len(self.names)), dtype=np.float32)
        for w, (env, row) in enumerate(zip(self.worlds, chosen.tolist(), strict=True)):
            self._seen[w], paid, *_ = env.step(dict(zip(self.names, row, strict=True)))
            rewards[w] = [paid[name] for name in self.names]
        self.replay.push(observations, actions, rewards, self._observed())
        for w, env in enumerate(self.worlds):
            if not env.agents:
                self._seen[w] = env.reset()[0]

    def update(self) -> None:
        """One update of all networks."""
        self.learner.update(self.replay.sample(self.learner.config.batch_size, self.rng))

    def _observed(self) -> list[NDArray[np.float32]]:
        return [np.array([seen[name] for seen in self._seen], dtype=np.float32) for name in self.names]
