"""When agents exchange their shared parameters, and what they do with the copies that arrive."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class IntervalSpec(BaseModel):
    """Own updates between two consensus rounds of an agent, drawn anew from N(mean, std), at least 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean_updates: float = Field(
        1.0, ge=1.0, description="Mean number of the agent's own updates between rounds."
    )
    std_updates: float = Field(
        0.0, ge=0.0, description="Standard deviation of that number; 0 = a fixed interval."
    )


class ConsensusConfig(BaseModel):
    """The `consensus` section: scheme, shared parameters, interval, and rules for old or missing copies."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scheme: Literal["paper", "gossip", "push_sum", "none"] = Field(
        "paper",
        description=(
            "Rule that combines the copies: paper = primal-dual with local means, gossip = "
            "Metropolis-Hastings "
            "weights without a dual, push_sum = ratio consensus, none = every agent learns alone."
        ),
    )
    shared: Literal["all", "critic", "actor", "attention"] = Field(
        "all",
        description=(
            "Parameters that are exchanged and held together: all = whatever the learner shares (f2a2_isac: "
            "actor and critics; learners with joint critics: the critics), one of its networks, or the "
            "critics' attention block (f2a2_sac; f2a2_coma with critic: attention)."
        ),
    )
    beta: float = Field(
        0.01,
        ge=0.0,
        description=(
            "Penalty of the paper's primal-dual scheme: pulls an agent's copy to its view of the consensus "
            "value, "
            "and is the step of the dual; other schemes ignore it."
        ),
    )
    dual_decay: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description=(
            "Share of the dual that is kept at each round of scheme paper: 1 = the paper's 5.4d; below 1 it "
            "forgets what late, lost and missing copies have put into it."
        ),
    )
    penalty_step: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description=(
            "How the penalty acts in scheme paper: null = within the gradient that Adam scales (5.4a as it "
            "stands); a number = apart from Adam, that share of the way to w - lambda/beta at each update."
        ),
    )
    interval: IntervalSpec = Field(
        default_factory=IntervalSpec,
        description="How many own updates pass between two rounds of an agent.",
    )
    max_age_s: float | None = Field(
        None,
        gt=0.0,
        description="Copies sent longer ago than this are left out of the mean; null = no limit.",
    )
    wait: Literal["none", "neighbours"] = Field(
        "none",
        description=(
            "Whether an agent that has sent its copy goes on at once, or waits for a new copy from every "
            "neighbour."
        ),
    )
    wait_timeout_s: float | None = Field(
        None,
        gt=0.0,
        description="Longest wait for neighbours' copies; needed with wait: neighbours, null otherwise.",
    )
    common_init: bool = Field(
        True,
        description="Whether all agents start from the same parameters instead of their own random ones.",
    )

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        if self.wait == "neighbours" and self.wait_timeout_s is None:
            raise ValueError(
                "wait: neighbours with wait_timeout_s: null would wait for ever for a copy that was lost; "
                "give wait_timeout_s"
            )
        if self.wait == "none" and self.wait_timeout_s is not None:
            raise ValueError(
                f"wait_timeout_s: {self.wait_timeout_s:g} has no meaning with wait: none; "
                "set wait: neighbours or wait_timeout_s: null"
            )
        if self.penalty_step is not None and (self.scheme != "paper" or self.beta == 0.0):
            raise ValueError(
                f"penalty_step: {self.penalty_step:g} is for scheme: paper with beta above 0, but scheme is "
                f"{self.scheme} and beta {self.beta:g}; set penalty_step: null"
            )
        if self.scheme == "none" and self.wait == "neighbours":
            raise ValueError(
                "scheme: none sends nothing, so wait: neighbours has nothing to wait for; set wait: none"
            )
        if self.scheme == "push_sum" and self.max_age_s is not None:
            raise ValueError(
                "scheme: push_sum keeps its sum only if no copy is left out, but max_age_s is "
                f"{self.max_age_s:g}; "
                "set max_age_s: null"
            )
        return self
