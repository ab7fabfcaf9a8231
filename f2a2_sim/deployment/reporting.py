"""What an agent reports to the world: its totals, and what has happened since its last report."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from f2a2_sim.deployment.assembly import AgentParts
from f2a2_sim.deployment.messages import Report
from f2a2_sim.deployment.notes import HELD
from f2a2_sim.deployment.sketch import sketch


def make_report(
    parts: AgentParts, refused: Mapping[str, int], step: int
) -> tuple[Report, dict[str, NDArray[Any]]]:
    """Fields and tensors of the report at that step; ``refused``: messages of peers, by reason."""
    sums, count, update_s = parts.labour.take_statistics()
    learner = parts.fleet.learner
    shared = learner.shared_parameters()[parts.row]
    dual = learner.dual[parts.row] if len(learner.dual) else torch.zeros_like(shared)
    report = Report(
        step=step,
        updates=parts.updates,
        rounds=int(parts.exchange.round[parts.me]),
        statistics=sums,
        statistics_count=count,
        dual_norm=float(torch.linalg.vector_norm(dual)),
        counts={
            **parts.carrier.counts.as_dict(),
            "unusable": parts.carrier.unusable,
            **{f"refused_{reason}": number for reason, number in refused.items()},
        },
        ages_s=parts.recorder.take_ages(),
        update_s=update_s[-HELD:],
        busy_act_s=parts.labour.busy_s["act"],
        busy_learn_s=parts.labour.busy_s["learn"],
        busy_mix_s=parts.labour.busy_s["mix"],
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    seed = parts.scenario.seed
    tensors: dict[str, NDArray[Any]] = {"sketch": sketch(shared, seed), "dual": sketch(dual, seed)}
    spans = parts.recorder.take_timeline()
    return report, tensors | ({"spans": spans} if len(spans) else {})
