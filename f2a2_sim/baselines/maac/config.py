"""MAAC's settings; the defaults are the original's."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MaacConfig(BaseModel):
    """Settings of the learner and of its schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int = Field(128, ge=1, description="Units in every hidden layer, and of all heads together.")
    heads: int = Field(4, ge=1, description="Heads of the critic's attention.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size of the policies.")
    critic_learning_rate: float = Field(1e-3, gt=0, description="Adam's step size of the critic.")
    critic_weight_decay: float = Field(
        1e-3, ge=0, description="Weight of the parameters added to the critic's clipped gradient."
    )
    discount: float = Field(0.99, ge=0, le=1, description="Weight of the next step's value in the target.")
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
    batch_size: int = Field(
        1024, ge=2, description="Transitions drawn for one update, and stored before the first."
    )
    replay_transitions: int = Field(1_000_000, ge=1, description="Joint transitions kept.")
    steps_per_round: int = Field(
        100, ge=1, description="Transitions, of all rollouts together, between two rounds of updates."
    )
    updates_per_round: int = Field(4, ge=1, description="Updates of a round.")
