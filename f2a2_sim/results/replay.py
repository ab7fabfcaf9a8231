"""A film of one episode, played with the policies in a run's checkpoint; needs no screen.

The episode is a fresh one: a new world with a seed of its own, no devices and no network, every
action at once. It shows what the agents have learned, not what the run looked like.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from f2a2_sim.errors import CheckpointError
from f2a2_sim.learners.base import Learner, joint_information, make_fleet
from f2a2_sim.learners.joint.replay import padded_observations
from f2a2_sim.randomness import Streams
from f2a2_sim.results.film import Frame, Word, captioned, check_format, write_film
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.words import number
from f2a2_sim.scenario.load import parse_scenario
from f2a2_sim.scenario.schema import Scenario
from f2a2_sim.simulator.build import build_world, fleet_setup, fleets_of
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_policies
from f2a2_sim.worlds.base import World, WorldStep

Policy = Callable[[WorldStep, NDArray[np.bool_]], NDArray[np.int64]]

_RED, _BLUE = (246, 120, 130), (130, 175, 246)


def write_replay(
    run_dir: Path,
    out: Path | None = None,
    *,
    checkpoint: int | None = None,
    seed: int = 0,
    fps: int = 12,
    max_steps: int | None = None,
) -> Path:
    """Play one episode and write it as a film, ``RUN/replay.gif`` unless ``out`` says otherwise.

    ``checkpoint`` is a number, or the newest; ``seed`` chooses the episode; ``max_steps`` cuts it short.
    Raises UsageError for a folder, checkpoint or file name that will not do.
    """
    folder = RunFolder.open(run_dir)
    path = folder.path / "replay.gif" if out is None else out
    check_format(path)
    scenario = parse_scenario(folder.scenario_file.read_text(encoding="utf-8"), str(folder.scenario_file))
    alone = scenario.world.model_copy(update={"rollouts": 1})  # one rollout fills a picture
    scenario = scenario.model_copy(update={"world": alone})
    world = build_world(scenario)
    streams = Streams(seed, dense_ids=len(world.agents))
    policy = load_policy(folder, scenario, world, streams, checkpoint)
    limit = world.episode_steps if max_steps is None else min(max_steps, world.episode_steps)
    write_film(path, play(world, policy, streams.seed_for("replay"), limit), fps)
    return path


def play(world: World, policy: Policy, seed: int, max_steps: int) -> list[Frame]:
    """One episode as captioned frames, the start included."""
    step = world.reset(seed)
    totals = dict.fromkeys(step.counts, 0.0)
    total_return = 0.0
    frames = [captioned(world.render(), caption(world, step, 0, totals, total_return))]
    for taken in range(1, max_steps + 1):
        step = world.step(policy(step, step.alive))
        total_return += float(step.rewards.sum()) / len(world.agents)
        for name, value in step.counts.items():
            totals[name] = totals.get(name, 0.0) + value
        frames.append(captioned(world.render(), caption(world, step, taken, totals, total_return)))
        if step.done:
            break
    return frames


def caption(
    world: World, step: WorldStep, taken: int, totals: dict[str, float], total_return: float
) -> list[Word]:
    """What the strip above a frame says."""
    words = [Word(f"step {taken}/{world.episode_steps}")]
    enemies = world.episode_summary().get("enemy_alive")
    if enemies is not None:
        words += [Word(f"red {int(step.alive.sum())}", _RED), Word(f"blue {int(enemies)}", _BLUE)]
    words += [Word(f"{name} {number(totals[name])}") for name in ("hits", "kills") if name in totals]
    return [*words, Word(f"return {number(total_return)}")]


def load_policy(
    folder: RunFolder, scenario: Scenario, world: World, streams: Streams, checkpoint: int | None = None
) -> Policy:
    """The policies of a checkpoint: sampled, as in training, from ``streams``.

    Raises CheckpointError if there is none, if it is damaged, or if it does not fit the scenario.
    """
    source = find_checkpoint(folder, checkpoint)
    policies = read_policies(folder, source)
    fleets = _fleets(scenario, world)
    if len(policies) != len(fleets):
        raise CheckpointError(
            f"{source.path}: holds {len(policies)} fleets of agents, but the scenario beside it has"
            f" {len(fleets)}. Put back the scenario.yaml that belongs to it"
        )
    for (_, learner), parameters in zip(fleets, policies, strict=True):
        if parameters.shape != learner.parameters.shape:
            raise CheckpointError(
                f"{source.path}: policies of shape {list(parameters.shape)}, but the scenario beside"
                f" it has {list(learner.parameters.shape)}. Put back the scenario.yaml that belongs to it"
            )
        with torch.no_grad():
            learner.parameters.copy_(parameters)
    exploration = streams.family("replay")
    joint = joint_information(scenario.learner.name)

    def act(step: WorldStep, alive: NDArray[np.bool_]) -> NDArray[np.int64]:
        actions = np.full(len(alive), world.default_action, dtype=np.int64)
        for ids, learner in fleets:
            rows = np.flatnonzero(alive[ids])
            if rows.size == 0:
                continue
            uniforms = exploration.uniform(ids[rows])
            if joint:
                seen = padded_observations(step.observations, 1)
                chosen, _ = learner.act(rows, seen[rows], uniforms)
                actions[ids[rows]] = chosen[:, 0]
            else:
                seen = np.stack([step.observations[agent] for agent in ids[rows]])
                actions[ids[rows]], _ = learner.act(rows, seen, uniforms[:, 0])
        return actions

    return act


def _fleets(scenario: Scenario, world: World) -> list[tuple[NDArray[np.int64], Learner]]:
    """The simulator's fleets, with next to no replay memory."""
    config = scenario.learner.model_copy(
        update={"batch_size": 2, "warmup_transitions": 0, "replay_transitions": 4 * len(world.agents)}
    )
    return [
        (ids, make_fleet(config, fleet_setup(scenario, world, ids, [0] * len(ids))))
        for ids in fleets_of(scenario, world)
    ]
