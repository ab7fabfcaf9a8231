"""What a scenario may say of how agents model each other."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class MoaConfig(BaseModel):
    """Settings of an agent's models of the others; the defaults are the paper's (Appendix G).

    Two keys depart from it, in cost only: with ``character_trajectories_per_update`` equal to
    ``trajectories`` and ``character_refresh_updates`` 1, every step of learning sees all trajectories, and
    the characters are always those of the present parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trajectories: int = Field(
        1000,
        ge=1,
        description="Random trajectories gathered before training, from which characters are read.",
    )
    trajectory_steps: int = Field(25, ge=1, description="Steps of each of them.")
    history_steps: int = Field(
        5, ge=1, le=100, description="Last steps of the present episode that a mental state is read from."
    )
    recurrent_size: int = Field(
        64, ge=1, le=1024, description="Units of each layer of the character and the mental network (GRU)."
    )
    recurrent_layers: int = Field(2, ge=1, le=8, description="Layers of these two networks.")
    hidden_size: int = Field(
        128, ge=1, le=4096, description="Units in every hidden layer of the two prediction networks."
    )
    hidden_layers: int = Field(
        2, ge=1, le=8, description="Hidden layers of the two prediction networks (leaky ReLU 0.01)."
    )
    identity: bool = Field(
        True,
        description="Tell both prediction networks which agent they predict; false (the paper): they know it "
        "from the observation, and the natural one from character and mental state.",
    )
    impromptu_pairs: int = Field(
        1200,
        ge=1,
        description="Newest pairs (observation, action), over all others together, that an update of the "
        "impromptu prediction learns from; rounded up to whole steps of all others.",
    )
    natural_pairs: int = Field(
        1600, ge=1, description="The same for the natural prediction, with characters and mental states."
    )
    learning_rate: float | None = Field(
        None, gt=0, description="Adam's step size (null = the learner's, as in the paper)."
    )
    character_trajectories_per_update: int = Field(
        16,
        ge=1,
        description="Trajectories, drawn anew for each update, through which the character network learns "
        "(the paper: all of them, at some 60 times the cost).",
    )
    character_refresh_updates: int = Field(
        50,
        ge=1,
        description="Updates after which the characters are read anew from all trajectories (the paper: 1).",
    )
    block_agents: int = Field(
        1,
        ge=1,
        le=1024,
        description="Agents whose models learn together; only speed depends on it.",
    )

    @model_validator(mode="after")
    def _draw_no_more_than_there_are(self) -> MoaConfig:
        if self.character_trajectories_per_update > self.trajectories:
            raise ValueError(
                f"character_trajectories_per_update ({self.character_trajectories_per_update}) must not "
                f"exceed trajectories ({self.trajectories}); lower it, or gather more trajectories"
            )
        return self
