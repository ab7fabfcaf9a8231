"""What CUDA graphs save: milliseconds per update of eight agents, and of an action.

    F2A2_RECORDED_UPDATES=1 python -m benchmarks.graphs       # recorded updates; then with 0: plain ones
    python -m benchmarks.graphs --device cpu             # the same work here

Sizes are about those of Cooperative Treasure Collection, batches those of the runs in docs/results.md. What
is drawn are random numbers; an action is one of every rollout.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from f2a2_sim.learners.base import FleetSetup, make_fleet
from f2a2_sim.learners.config import LearnerConfig
from f2a2_sim.learners.joint.base import JointFleet

SIZES, ACTIONS, ROLLOUTS = (86,) * 6 + (50,) * 2, 5, 12
LEARNERS: dict[str, dict[str, Any]] = {
    "f2a2_sac": {},
    "f2a2_ddpg": {"critic": "attention"},
    "f2a2_coma": {
        "critic": "attention",
        "advantage": "return",
        "standardise_advantage": True,
        "td_baseline": True,
        "hidden_size": 64,
        "batch_size": 300,
    },
}


def filled(name: str, keys: dict[str, Any], device: torch.device, rng: np.random.Generator) -> JointFleet:
    """A fleet that remembers sixty steps."""
    config = LearnerConfig.model_validate(
        {"name": name, "replay_transitions": 20_000, "batch_size": 256, **keys}
    )
    n = len(SIZES)
    setup = FleetSetup(
        max(SIZES),
        ACTIONS,
        list(range(n)),
        n,
        "attention",
        beta=0.1,
        penalty_step=0.3,
        observation_sizes=SIZES,
        rollouts=ROLLOUTS,
        device=device,
    )
    fleet = make_fleet(config, setup)
    assert isinstance(fleet, JointFleet)
    seen = rng.standard_normal((n, ROLLOUTS, max(SIZES))).astype(np.float32)
    for _ in range(60):
        following = rng.standard_normal(seen.shape).astype(np.float32)
        actions = rng.integers(0, ACTIONS, (n, ROLLOUTS))
        logits = rng.standard_normal((n, ROLLOUTS, ACTIONS)).astype(np.float32)
        rewards = rng.standard_normal((n, ROLLOUTS)).astype(np.float32)
        ended = np.zeros(n, dtype=np.bool_)
        fleet.remember(np.arange(n), seen, actions, logits, rewards, following, ended)
        seen = following
    return fleet


def milliseconds(work: Callable[[], object], device: torch.device, repeats: int = 60) -> float:
    """Mean time of ``work``, after twelve times that do not count."""
    for _ in range(12):
        work()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    device = torch.device(parser.parse_args().device)
    rows = np.arange(len(SIZES))
    for name, keys in LEARNERS.items():
        rng = np.random.default_rng(0)
        fleet = filled(name, keys, device, rng)
        seen = rng.standard_normal((len(rows), ROLLOUTS, max(SIZES))).astype(np.float32)

        def update(fleet: JointFleet = fleet, rng: np.random.Generator = rng) -> object:
            uniforms = rng.random((len(rows), fleet.draws_per_update))
            return fleet.update(rows, fleet.draw_batch(rows, uniforms))

        def act(fleet: JointFleet = fleet, rng: np.random.Generator = rng, seen: np.ndarray = seen) -> object:
            return fleet.act(rows, seen, rng.random((len(rows), ROLLOUTS)))

        print(f"{name}: update {milliseconds(update, device):.2f} ms, act {milliseconds(act, device):.2f} ms")


if __name__ == "__main__":
    main()
