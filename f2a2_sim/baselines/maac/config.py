"""MAAC's settings; the defaults are the original's."""

from __future__ import annotations

from pydantic import Field

from f2a2_sim.baselines.config import CentralConfig


class MaacConfig(CentralConfig):
    """Settings of the learner, beside those of the schedule."""

    hidden_size: int = Field(128, ge=1, description="Units in every hidden layer, and of all heads together.")
    heads: int = Field(4, ge=1, description="Heads of the critic's attention.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size of the policies.")
    critic_learning_rate: float = Field(1e-3, gt=0, description="Adam's step size of the critic.")
    critic_weight_decay: float = Field(
        1e-3, ge=0, description="Weight of the parameters added to the critic's clipped gradient."
    )
    tau: float = Field(0.001, gt=0, le=1, description="Share of the new networks mixed into their targets.")
    reward_scale: float = Field(
        100.0, gt=0, description="What the log-policy is divided by: the inverse of the temperature."
    )
    attention_decay: float = Field(
        1e-3, ge=0, description="Weight of the squared attention logits in the critic's loss."
    )
    logit_decay: float = Field(1e-3, ge=0, description="Weight of the policy's squared logits in its loss.")
    critic_clip_per_agent: float = Field(
        10.0, gt=0, description="Largest norm of the critic's gradient, per agent."
    )
    policy_clip: float = Field(0.5, gt=0, description="Largest norm of a policy's gradient.")
