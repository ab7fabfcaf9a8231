"""How the step size of an agent's optimiser falls while it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:  # schemas, and with them the command line, do without torch
    from torch import Tensor


class RateDecay(BaseModel):
    """From the whole of it to ``factor``, geometrically, over an agent's first ``updates``; no further.

    The paper's step sizes are constant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    factor: float = Field(0.1, gt=0, le=1, description="Share of the step sizes that is left in the end.")
    updates: int = Field(ge=1, description="An agent's own updates until then.")

    def share(self, update: Tensor) -> Tensor:
        """What is left of the step size in an agent's updates of these numbers, counted from 1."""
        done = (update - 1.0).div_(self.updates).clamp_max_(1.0)
        return self.factor**done
