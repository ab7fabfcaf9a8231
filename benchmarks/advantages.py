"""Does a critic of F2A2-SAC tell actions apart, and how soon? Judged by true advantages.

    python -m benchmarks.advantages [--world ctc] [--updates 4000] [--seed 1] [KEY=VALUE ...]

All agents play uniformly at random and go on doing so: their policies are held there, and the critics learn
what that play is worth from a replay of 960 episodes of it, which does not grow. What an action is worth is
measured by playing on from states of other such episodes, 48 times for each of an agent's five actions with
the same random numbers (its own reward, discounted, 20 steps ahead); its advantage is the difference from
the mean of the five. The table shows how advantages by the critics correlate with these, and the critics'
squared error on what they learn from. "Reliability" is the correlation of two halves of the repetitions.

KEY=VALUE are keys of the scenario. Attention blocks are averaged after every update, without delay or loss.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.joint import learn_once
from f2a2_sim.compute import prepare_torch
from f2a2_sim.learners.joint.sac import SacFleet
from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.simulator.build import build
from f2a2_sim.worlds.particle import RULES
from f2a2_sim.worlds.particle.base import Observations

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROLLOUTS, BATCHES = 12, 80
STATES, REPEATS, AHEAD = 480, 48, 20
AT_ONCE = 32  # states that are played on from at once


@dataclass(frozen=True)
class Truth:
    """What actions are worth: ``values`` ``[n, states, actions, 2]``, by two halves of the repetitions.

    Observations are padded ``[n, states, size]``; ``actions`` ``[n, states]`` are the others' in that step.
    """

    observations: NDArray[np.float32]
    actions: IntArray
    values: FloatArray

    @property
    def advantages(self) -> FloatArray:
        """``[n, states, actions]``."""
        return _centred(self.values.mean(axis=-1))

    def reliability(self) -> FloatArray:
        """Of each agent ``[n]``."""
        halves = [_centred(self.values[..., half]) for half in (0, 1)]
        return _correlations(*halves)


def measure(world: str, limit: float, discount: float, seed: int) -> Truth:
    """Play on from states at random times of random episodes."""
    rules, rng = RULES[world](), np.random.default_rng(seed)
    n, actions = len(rules.agents), rules.n_actions
    seen = rules.reset([np.random.default_rng([seed, state]) for state in range(STATES)])
    last = rules.episode_steps // 2
    when = rng.integers(last // 5, last, STATES)
    kept: dict[str, NDArray[np.generic]] = {}
    shown = np.zeros((n, STATES, max(rules.observation_sizes)), dtype=np.float32)
    for step in range(last):
        now = when == step
        for name, values in vars(rules.state).items():
            kept.setdefault(name, values.copy())[now] = values[now]
        shown[:, now] = padded(seen, limit)[:, now]
        seen, _ = rules.step(rng.integers(0, actions, (STATES, n)))
    chosen = rng.integers(0, actions, (STATES, n))

    values = np.empty((n, STATES, actions, 2))
    jobs = [(agent, first) for agent in range(n) for first in range(0, STATES, AT_ONCE)]
    for agent, first in track(jobs, "what actions are worth", console=Console(stderr=True)):
        size = min(AT_ONCE, STATES - first)
        state, own, repeat = (x.ravel() for x in np.indices((size, actions, REPEATS)))
        rules.reset([np.random.default_rng([seed, first + s, k]) for s, k in zip(state, repeat, strict=True)])
        for name, of_all in kept.items():
            setattr(rules.state, name, of_all[first + state])
        later = np.random.default_rng([seed, first, agent]).integers(0, actions, (AHEAD, size, REPEATS, n))
        total = np.zeros(len(state))
        for ahead in range(AHEAD):
            joint = later[ahead][state, repeat]
            if ahead == 0:
                joint = chosen[first + state]
                joint[:, agent] = own
            _, rewards = rules.step(joint)
            total += discount**ahead * rewards[:, agent]
        halves = total.reshape(size, actions, 2, REPEATS // 2)
        values[agent, first : first + size] = halves.mean(axis=-1)
    return Truth(shown, chosen.T, values)


def fill(fleet: SacFleet, world: str, limit: float, seed: int) -> None:
    """Let everybody play at random, and remember it."""
    rules, rng = RULES[world](), np.random.default_rng([seed, 1])
    n, every = fleet.n_agents, np.arange(fleet.n_agents)
    streams = [np.random.default_rng([seed, 2, rollout]) for rollout in range(ROLLOUTS)]
    logits = np.zeros((n, ROLLOUTS, rules.n_actions), dtype=np.float32)
    nobody = np.zeros(n, dtype=np.bool_)
    for _ in track(range(BATCHES), "random play", console=Console(stderr=True)):
        seen = padded(rules.reset(streams), limit)
        for _ in range(rules.episode_steps):
            actions = rng.integers(0, rules.n_actions, (ROLLOUTS, n))
            observed, rewards = rules.step(actions)
            following = padded(observed, limit)
            paid = np.ascontiguousarray(rewards.T).astype(np.float32)
            fleet.remember(every, seen, np.ascontiguousarray(actions.T), logits, paid, following, nobody)
            seen = following


def padded(seen: Observations, limit: float) -> NDArray[np.float32]:
    """By agent, with zeros up to the largest size ``[n, rollouts, size]``, within the limit."""
    size = max(of_role.shape[-1] for of_role in seen)
    rows = [np.pad(of_role, ((0, 0), (0, 0), (0, size - of_role.shape[-1]))) for of_role in seen]
    joined = np.concatenate(rows, axis=1).transpose(1, 0, 2)
    return np.clip(joined, -limit, limit).astype(np.float32)


@torch.inference_mode()
def told(fleet: SacFleet, truth: Truth) -> FloatArray:
    """Advantages by the first critic of each agent ``[n, states, actions]``."""
    n = fleet.n_agents
    observations = torch.from_numpy(truth.observations).expand(n, -1, -1, -1)
    actions = torch.from_numpy(truth.actions).expand(n, -1, -1)
    critic, run = fleet.critic(0), slice(0, n)
    inputs = critic.inputs(fleet._seen(observations, None), fleet._entered(actions))
    return _centred(fleet._values(critic, "parameters", inputs, run, variants=1)[0].double().numpy())


def learn(fleet: SacFleet, rng: np.random.Generator) -> float:
    """One update of all; the critics' mean squared error before it."""
    error = float(learn_once(fleet, rng)["critic_loss"].mean()) / 2.0
    own = fleet.shared_parameters()
    fleet.adopt(np.arange(fleet.n_agents), own.mean(dim=0, keepdim=True).expand_as(own))
    return error


def uniform(fleet: SacFleet) -> None:
    """Policies that prefer nothing."""
    *_, weight, bias = fleet.actor_shape.views(fleet.parameters[:, fleet.actor_columns])
    weight.zero_()
    bias.zero_()


def _centred(values: FloatArray) -> FloatArray:
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def _correlations(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.array([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--world", choices=sorted(RULES), default="ctc")
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    device = prepare_torch("cpu", 1)
    held = f"learner.replay_transitions={BATCHES * ROLLOUTS * RULES[arguments.world]().episode_steps}"
    # The smallest rate: policies stay where they are.
    keys = [held, *arguments.keys, "learner.actor_learning_rate=1e-30", "consensus.shared=attention"]
    scenario = load_scenario(arguments.world, keys)
    limit = scenario.world.observation_limit or np.inf
    fleet = build(scenario, device).population.fleets[0].learner
    assert isinstance(fleet, SacFleet), "this looks into F2A2-SAC's critics"
    uniform(fleet)
    fill(fleet, arguments.world, limit, arguments.seed)
    truth = measure(arguments.world, limit, fleet.config.discount, arguments.seed)

    table = Table(title=f"{arguments.world}: advantages by critics and true ones, {' '.join(arguments.keys)}")
    groups = fleet.attention_shape.groups
    for column in ("updates", *(f"agents {g.first} to {g.stop - 1}" for g in groups), "squared error"):
        table.add_column(column, justify="right")
    reliable = truth.reliability()
    table.add_row("reliability", *(f"{reliable[g.agents].mean():.3f}" for g in groups), "")
    rng, errors = np.random.default_rng([arguments.seed, 3]), []
    looks = np.unique(np.geomspace(250, arguments.updates, 8).astype(int))
    for update in track(range(1, arguments.updates + 1), "updates", console=Console(stderr=True)):
        errors.append(learn(fleet, rng))
        if update in looks or update == arguments.updates:
            found = _correlations(told(fleet, truth), truth.advantages)
            shown = (f"{found[g.agents].mean():.3f}" for g in groups)
            table.add_row(f"{update}", *shown, f"{np.mean(errors[-200:]):.3f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
