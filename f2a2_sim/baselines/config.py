"""Settings that all centrally trained baselines share: how much is played, kept and learnt from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from f2a2_sim.learners.rate_decay import RateDecay


class CentralConfig(BaseModel):
    """Schedule, replay and discount; the defaults are MAAC's, which the paper takes for its baselines."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rollouts: int = Field(12, ge=1, description="Episodes played side by side, as one batch.")
    episode_steps: int | None = Field(
        None, ge=1, description="Steps of an episode; null: the world's own (CTC 100, Rover Tower 25)."
    )
    observation_limit: float | None = Field(
        None, gt=0, description="Size to which every number observed is clipped (null: as it is)."
    )
    discount: float = Field(0.99, ge=0, le=1, description="Weight of the next step's value in the target.")
    batch_size: int = Field(
        1024, ge=2, description="Transitions drawn for one update, and stored before the first."
    )
    replay_transitions: int = Field(1_000_000, ge=1, description="Joint transitions kept.")
    steps_per_round: int = Field(
        100, ge=1, description="Transitions, of all rollouts together, between two rounds of updates."
    )
    updates_per_round: int = Field(4, ge=1, description="Updates of a round.")
    learning_rate_decay: RateDecay | None = Field(
        None, description="How all step sizes fall: {factor: 0.1, updates: 10000} (null: they do not)."
    )


class PerceptronConfig(CentralConfig):
    """Learners whose policies and critics are perceptrons; the defaults are the paper's (Appendix G, MPE)."""

    hidden_size: int = Field(128, ge=1, description="Units in each of the two hidden layers.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size of the policies.")
    critic_learning_rate: float = Field(1e-3, gt=0, description="Adam's step size of the critics.")
    tau: float = Field(0.005, gt=0, le=1, description="Share of the new networks mixed into their targets.")
    logit_decay: float = Field(1e-3, ge=0, description="Weight of a policy's squared logits in its loss.")
    policy_clip: float = Field(0.5, gt=0, description="Largest norm of a policy's gradient.")
    critic_clip: float = Field(10.0, gt=0, description="Largest norm of a critic's gradient.")
