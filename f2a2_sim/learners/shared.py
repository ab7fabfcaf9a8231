"""The consensus variable of a fleet: the columns that agents exchange, their duals, the penalty (5.1 to 5.4).

w~ is an agent's trained copy (a view of its parameter row), w its view of the consensus value, lambda its
dual. Of w only what stands in the gradient is kept: ``pull`` = lambda - beta w.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from f2a2_sim.learners.base import FleetSetup, IntArray
from f2a2_sim.learners.stacked import AdamRows, StackedAdam, blocks_of, zeros


class SharedVariable:
    """w~, lambda and w of every agent of a fleet; no dual and no penalty where ``setup.beta`` is 0."""

    def __init__(self, parameters: Tensor, columns: slice, setup: FleetSetup, block: int) -> None:
        self._parameters = parameters
        self.columns = columns
        self._setup = setup
        self._block = block
        k = parameters.shape[0] if setup.beta > 0 else 0
        size = columns.stop - columns.start
        self.dual = zeros((k, size), parameters.dtype, parameters.device)
        self.pull = zeros((k, size), parameters.dtype, parameters.device)

    def own(self) -> Tensor:
        """w~ of every agent, a view ``[k, S]``."""
        return self._parameters[:, self.columns]

    def take(self, rows: IntArray, view: Tensor) -> None:
        """w <- ``view`` ``[r, S]`` (5.4c); lambda <- dual_decay lambda + beta (w~ - w) (5.4d)."""
        beta = self._setup.beta
        if beta <= 0:
            return
        own = self.own()
        for run, positions in blocks_of(rows, self._block):
            w = _rows_of(view, positions)
            dual = self.dual[run]
            if self._setup.dual_decay < 1:
                dual.mul_(self._setup.dual_decay)
            pull = self.pull[run]
            dual.add_(torch.sub(own[run], w, out=pull), alpha=beta)  # in this order the difference is exact
            torch.sub(dual, w, alpha=beta, out=pull)

    def adopt(self, rows: IntArray, values: Tensor) -> None:
        """w~ <- ``values`` ``[r, S]``."""
        own = self.own()
        for run, positions in blocks_of(rows, self._block):
            own[run] = _rows_of(values, positions)

    def restart(self, at: Tensor) -> None:
        """w is the present w~ of rows ``at``, and lambda 0."""
        if self._setup.beta > 0:
            self.dual[at] = 0
            self.pull[at] = -self._setup.beta * self.own()[at]

    def descend(
        self, adam: StackedAdam, rows: AdamRows, run: slice, columns: slice, gradient: Tensor, decay: float
    ) -> None:
        """One step of ``columns`` along ``gradient`` + decay w~ + lambda + beta (w~ - w).

        The penalty's beta w~ enters as Adam's decay. With ``penalty_step`` kappa the penalty is not Adam's
        business: after its step, w~ <- w~ - kappa (w~ - w + lambda / beta). Adam makes every gradient's size
        its own, so within it even a small penalty crowds out the objective as soon as it is the larger one.
        Columns may be shared in part (an attention block): the penalty is then on that part.
        """
        beta, kappa = self._setup.beta, self._setup.penalty_step
        first, last = max(columns.start, self.columns.start), min(columns.stop, self.columns.stop)
        if beta <= 0 or first >= last:
            adam.apply(rows, gradient, decay)
            return
        pull = self.pull[run, first - self.columns.start : last - self.columns.start]
        within = gradient[:, first - columns.start : last - columns.start]
        own = self._parameters[run, first:last]
        if kappa is not None:
            adam.apply(rows, gradient, decay)
            own.mul_(1.0 - kappa).sub_(pull, alpha=kappa / beta)
        elif (first, last) == (columns.start, columns.stop):
            adam.apply(rows, gradient.add_(pull), decay + beta)
        else:
            within.add_(pull).add_(own, alpha=beta)
            adam.apply(rows, gradient, decay)

    def nbytes(self) -> int:
        """Memory of one agent's duals and pulls."""
        return (self.dual.nbytes + self.pull.nbytes) // self._parameters.shape[0]

    def state(self) -> dict[str, Any]:
        """Views of all that changes."""
        return {"dual": self.dual, "pull": self.pull}


def _rows_of(values: Tensor, positions: NDArray[np.int64]) -> Tensor:
    """``values[positions]``, a view where the positions follow each other."""
    first, count = int(positions[0]), len(positions)
    if (np.diff(positions) == 1).all():
        return values[first : first + count]
    return values[torch.from_numpy(positions).to(values.device)]
