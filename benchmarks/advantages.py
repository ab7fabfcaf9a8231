"""Does a critic of F2A2-SAC tell actions apart, and how soon? Judged by true advantages.

    python -m benchmarks.advantages [--world ctc] [--updates 4000] [--seed 1] [KEY=VALUE ...]
    python -m benchmarks.advantages --run runs/sac_ctc_1 [--fit 1200]   # critics of a run

All agents play uniformly at random and go on doing so: their policies are held there, and the critics learn
what that play is worth from a replay of 960 episodes of it, which does not grow. What an action is worth is
measured by playing on from states of other such episodes, 48 times for each of an agent's five actions with
the same random numbers (its own reward, discounted, 20 steps ahead); its advantage is the difference from
the mean of the five. The table shows how advantages by the critics correlate with these, and the critics'
squared error on what they learn from. "Reliability" is the correlation of two halves of the repetitions.

KEY=VALUE are keys of the scenario. Attention blocks are averaged after every update, without delay or loss.

With ``--run`` nothing is learnt: states are those that the run's agents come to, and they play on by their
policies of its newest checkpoint. Values of states are compared, too: means over an agent's actions. With
``--fit EPISODES`` besides, a perceptron learns the first agent's returns of 20 steps, in so many episodes of
the same play, from its observations: how far that gets says what so many episodes can teach at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.joint import learn_once
from f2a2_sim.compute import prepare_torch
from f2a2_sim.learners.joint.base import JointFleet
from f2a2_sim.learners.joint.drawn import choose
from f2a2_sim.learners.joint.sac import SacFleet
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.scenario.load import load_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_policies
from f2a2_sim.worlds.particle import RULES
from f2a2_sim.worlds.particle.base import Observations, Rules

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROLLOUTS, BATCHES = 12, 80
STATES, REPEATS, AHEAD = 480, 48, 20
AT_ONCE = 32  # states that are played on from at once
FIT_UPDATES = 16_000


class Play(Protocol):
    """How everybody plays: chance is drawn first, so that it can be the same for different actions."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.generic]: ...

    def act(self, seen: NDArray[np.float32], drawn: NDArray[np.generic]) -> IntArray:
        """Actions ``[rows, n]`` at observations ``[n, rows, size]``, with chance ``[rows, n]``."""


@dataclass(frozen=True)
class RandomPlay:
    """Every action is as likely as every other."""

    actions: int

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.generic]:
        return rng.integers(0, self.actions, shape)

    def act(self, seen: NDArray[np.float32], drawn: NDArray[np.generic]) -> IntArray:
        return drawn.astype(np.int64)


@dataclass(frozen=True)
class OwnPlay:
    """By the policies of a fleet."""

    fleet: JointFleet

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.generic]:
        return rng.random(shape)

    def act(self, seen: NDArray[np.float32], drawn: NDArray[np.generic]) -> IntArray:
        observed = torch.from_numpy(seen).to(self.fleet.parameters)
        logits = self.fleet.actors.logits(torch.arange(self.fleet.n_agents), observed)
        return np.ascontiguousarray(choose(logits, torch.from_numpy(drawn.T)).numpy().T)


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
        return centred(self.values.mean(axis=-1))

    @property
    def of_states(self) -> FloatArray:
        """Values of states, as the mean of those of an agent's actions ``[n, states]``."""
        return np.asarray(self.values.mean(axis=(2, 3)))

    def reliability(self) -> tuple[FloatArray, FloatArray]:
        """How two halves of the repetitions correlate: advantages, values of states; each ``[n]``."""
        first, second = (self.values[..., half] for half in (0, 1))
        of_states = _correlations(first.mean(axis=-1), second.mean(axis=-1))
        return _correlations(centred(first), centred(second)), of_states


@torch.inference_mode()
def measure(world: str, limit: float, discount: float, seed: int, play: Play) -> Truth:
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
        observed = padded(seen, limit)
        shown[:, now] = observed[:, now]
        seen, _ = rules.step(play.act(observed, play.draw(rng, (STATES, n))))
    chosen = play.act(shown, play.draw(rng, (STATES, n)))

    values = np.empty((n, STATES, actions, 2))
    jobs = [(agent, first) for agent in range(n) for first in range(0, STATES, AT_ONCE)]
    for agent, first in track(jobs, "what actions are worth", console=Console(stderr=True)):
        size = min(AT_ONCE, STATES - first)
        state, own, repeat = (x.ravel() for x in np.indices((size, actions, REPEATS)))
        streams = [np.random.default_rng([seed, first + s, k]) for s, k in zip(state, repeat, strict=True)]
        rules.reset(streams)
        for name, of_all in kept.items():
            setattr(rules.state, name, of_all[first + state])
        later = play.draw(np.random.default_rng([seed, first, agent]), (AHEAD, size, REPEATS, n))
        total = np.zeros(len(state))
        for ahead in range(AHEAD):
            if ahead == 0:
                joint = chosen[first + state]
                joint[:, agent] = own
            else:
                joint = play.act(padded(seen, limit), later[ahead][state, repeat])
            seen, rewards = rules.step(joint)
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


def playing(
    rules: Rules, play: Play, limit: float, episodes: int, seed: int
) -> Iterator[tuple[NDArray[np.float32], IntArray, FloatArray]]:
    """Steps without an end: observations ``[n, episodes, size]``, actions and rewards ``[episodes, n]``."""
    n, rng = len(rules.agents), np.random.default_rng(seed)
    seen = rules.reset([np.random.default_rng([seed, episode]) for episode in range(episodes)])
    while True:
        observed = padded(seen, limit)
        actions = play.act(observed, play.draw(rng, (episodes, n)))
        seen, rewards = rules.step(actions)
        yield observed, actions, rewards


def parser_of_runs(description: str | None, episodes: int) -> argparse.ArgumentParser:
    """For what plays episodes with the policies of some runs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--episodes", type=int, default=episodes)
    parser.add_argument("--seed", type=int, default=5)
    return parser


@torch.inference_mode()
def told(fleet: SacFleet, seen: NDArray[np.float32], actions: IntArray) -> FloatArray:
    """Values by the first critic of each agent ``[n, states, actions]``; arguments as in `Truth`."""
    n = fleet.n_agents
    observations = torch.from_numpy(seen).expand(n, -1, -1, -1)
    joint = torch.from_numpy(actions).expand(n, -1, -1)
    critic, run = fleet.critic(0), slice(0, n)
    inputs = critic.inputs(fleet._seen(observations, None), fleet._entered(joint))
    return fleet._values(critic, "parameters", inputs, run, variants=1)[0].double().numpy()


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


def centred(values: FloatArray) -> FloatArray:
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def _correlations(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.array([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)])


def correlate(fleet: SacFleet, truth: Truth) -> tuple[FloatArray, FloatArray]:
    """What the critics say with the truth: advantages, values of states; of each agent ``[n]``."""
    values = told(fleet, truth.observations, truth.actions)
    of_states = _correlations(values.mean(axis=-1), truth.of_states)
    return _correlations(centred(values), truth.advantages), of_states


def fleet_of(scenario: Scenario) -> JointFleet:
    """All agents of a particle world's scenario, untrained."""
    fleet = build(scenario, prepare_torch("cpu", 1), resuming=True).population.fleets[0].learner
    if not isinstance(fleet, JointFleet):
        raise SystemExit(f"{scenario.learner.name} plays no particle world; give another scenario or run")
    return fleet


def fleet_of_run(path: Path) -> tuple[Scenario, JointFleet]:
    """A run's scenario, and its agents as of the newest checkpoint."""
    folder = RunFolder.open(path)
    scenario = load_scenario(folder.scenario_file)
    fleet = fleet_of(scenario)
    fleet.parameters.copy_(read_policies(folder, find_checkpoint(folder))[0])
    return scenario, fleet


def with_sac(fleet: JointFleet) -> SacFleet:
    """The same fleet, if it is of F2A2-SAC, whose critics are looked into."""
    assert isinstance(fleet, SacFleet), "this looks into F2A2-SAC's critics"
    return fleet


def returns(
    world: str, limit: float, discount: float, seed: int, play: Play, episodes: int
) -> tuple[Tensor, Tensor]:
    """The first agent's observations ``[samples, size]``, and its discounted rewards of `AHEAD` steps."""
    rules, rng = RULES[world](), np.random.default_rng([seed, 4])
    n, at_once = len(rules.agents), min(episodes, 120)
    weights = discount ** np.arange(AHEAD)
    shown, paid = [], []
    for batch in track(range(-(-episodes // at_once)), "episodes", console=Console(stderr=True)):
        seen = rules.reset([np.random.default_rng([seed, 5, batch, k]) for k in range(at_once)])
        own, rewards = [], []
        for _ in range(rules.episode_steps):
            observed = padded(seen, limit)
            own.append(observed[0])
            seen, of_all = rules.step(play.act(observed, play.draw(rng, (at_once, n))))
            rewards.append(of_all[:, 0])
        shown.extend(own[: 1 - AHEAD])
        windows = np.lib.stride_tricks.sliding_window_view(np.array(rewards), AHEAD, axis=0)
        paid.append((windows @ weights).ravel())
    return torch.from_numpy(np.concatenate(shown)), torch.from_numpy(np.concatenate(paid)).float()


def fit(observations: Tensor, paid: Tensor, truth: Truth, seed: int) -> list[float]:
    """Correlation of a perceptron's values of states with the truth, from time to time as it learns them."""
    torch.manual_seed(seed)
    mean, deviation = observations.mean(dim=0), observations.std(dim=0) + 1e-3
    observations = (observations - mean) / deviation
    asked = (torch.from_numpy(truth.observations[0]) - mean) / deviation
    paid = (paid - paid.mean()) / paid.std()
    layers = [torch.nn.Linear(observations.shape[1], 128), torch.nn.Linear(128, 128), torch.nn.Linear(128, 1)]
    leak = torch.nn.LeakyReLU()
    network = torch.nn.Sequential(layers[0], leak, layers[1], leak, layers[2])
    optimiser = torch.optim.Adam(network.parameters(), 3e-4)
    found = []
    for update in track(range(1, FIT_UPDATES + 1), "fit", console=Console(stderr=True)):
        drawn = torch.randint(len(paid), (256,))
        loss = (network(observations[drawn]).squeeze(1) - paid[drawn]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update % (FIT_UPDATES // 4) == 0:
            with torch.no_grad():
                values = network(asked).squeeze(1).double().numpy()
            found.append(float(np.corrcoef(values, truth.of_states[0])[0, 1]))
    return found


def of_run(path: Path, seed: int, episodes: list[int]) -> Table:
    """Critics of a run against the truth about its agents' play, and fits to so many episodes' returns."""
    scenario, any_fleet = fleet_of_run(path)
    fleet = with_sac(any_fleet)
    limit = scenario.world.observation_limit or np.inf
    question = scenario.world.env, limit, fleet.config.discount, seed, OwnPlay(fleet)
    truth = measure(*question)
    table = Table(title=f"{path}: what critics say and what is true, correlated")
    for column in ("agents", "advantages", "(reliability)", "values of states", "(reliability)"):
        table.add_column(column, justify="right")
    columns = [x for pair in zip(correlate(fleet, truth), truth.reliability(), strict=True) for x in pair]
    for g in fleet.attention_shape.groups:
        figures = (f"{column[g.agents].mean():.3f}" for column in columns)
        table.add_row(f"{g.first} to {g.stop - 1}", *figures)
    for count in episodes:
        fits = " ".join(f"{x:.2f}" for x in fit(*returns(*question, count), truth, seed))
        table.add_row(f"agent 0, fit of {count:,} episodes", "", "", fits, "")
    return table


def of_random_play(arguments: argparse.Namespace) -> Table:
    """What critics learn about random play, as they learn it."""
    rules = RULES[arguments.world]()
    held = f"learner.replay_transitions={BATCHES * ROLLOUTS * rules.episode_steps}"
    # The smallest rate: policies stay where they are.
    keys = [held, *arguments.keys, "learner.actor_learning_rate=1e-30", "consensus.shared=attention"]
    scenario = load_scenario(arguments.world, keys)
    limit = scenario.world.observation_limit or np.inf
    fleet = with_sac(fleet_of(scenario))
    uniform(fleet)
    fill(fleet, arguments.world, limit, arguments.seed)
    play = RandomPlay(rules.n_actions)
    truth = measure(arguments.world, limit, fleet.config.discount, arguments.seed, play)

    table = Table(title=f"{arguments.world}: advantages by critics and true ones, {' '.join(arguments.keys)}")
    groups = fleet.attention_shape.groups
    for column in ("updates", *(f"agents {g.first} to {g.stop - 1}" for g in groups), "squared error"):
        table.add_column(column, justify="right")
    reliable, _ = truth.reliability()
    table.add_row("reliability", *(f"{reliable[g.agents].mean():.3f}" for g in groups), "")
    rng, errors = np.random.default_rng([arguments.seed, 3]), []
    looks = np.unique(np.geomspace(250, arguments.updates, 8).astype(int))
    for update in track(range(1, arguments.updates + 1), "updates", console=Console(stderr=True)):
        errors.append(learn(fleet, rng))
        if update in looks or update == arguments.updates:
            found, _ = correlate(fleet, truth)
            shown = (f"{found[g.agents].mean():.3f}" for g in groups)
            table.add_row(f"{update}", *shown, f"{np.mean(errors[-200:]):.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--world", choices=sorted(RULES), default="ctc")
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", type=Path, metavar="RUN")
    parser.add_argument("--fit", type=int, nargs="+", metavar="EPISODES", default=[])
    arguments = parser.parse_args()
    if arguments.run is None:
        table = of_random_play(arguments)
    else:
        table = of_run(arguments.run, arguments.seed, arguments.fit)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
