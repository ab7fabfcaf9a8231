"""What a scenario's `learner` section may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from f2a2_sim.learners.joint.moa_config import MoaConfig
from f2a2_sim.learners.rate_decay import RateDecay

_COOPERATIVE_MPE: dict[str, Any] = {
    "learning_rate": 1e-3,
    "discount": 0.99,
    "batch_size": 1024,
    "temperature": 0.01,
    "replay_transitions": 1_000_000,
    "replay_dtype": "float32",
    "update_every_steps": 2,
    "normalise_rewards": True,
    "block_agents": 1,
}
_WITH_PERCEPTRONS = {**_COOPERATIVE_MPE, "block_agents": 2}  # less to compute, so calls count for more
DEFAULTS: dict[str, dict[str, Any]] = {
    "f2a2_coma": {**_WITH_PERCEPTRONS, "replay_transitions": 4096},  # it learns from the newest batch alone
    "f2a2_ddpg": _WITH_PERCEPTRONS,
    "f2a2_sac": _COOPERATIVE_MPE,
    "f2a2_td3": _WITH_PERCEPTRONS,
}
"""Learners with joint critics; their defaults are others than those of the fields: Cooperative MPE's."""


class LearnerConfig(BaseModel):
    """Settings of one learner; the defaults are the paper's (Appendix G) where it gives a value.

    They are those of MAgent, and for learners with joint critics those of Cooperative MPE (`DEFAULTS`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(
        "f2a2_isac",
        description="The learner: f2a2_coma, f2a2_ddpg, f2a2_isac, f2a2_sac, f2a2_td3, or your own as "
        "package.module:callable.",
    )
    args: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict, description="Settings of a learner of your own; the package's take none."
    )
    hidden_size: int = Field(
        128, ge=1, le=4096, description="Units in every hidden layer of actor and critics."
    )
    hidden_layers: int = Field(
        2, ge=1, le=8, description="Hidden layers of actor and critics (leaky ReLU 0.01)."
    )
    start_from: str | None = Field(
        None,
        description="Folder of a run with networks of equal shape: every agent starts from the mean of that "
        "run's agents (newest checkpoint) instead of random weights; with joint critics its like's.",
    )
    learning_rate: float = Field(1e-4, gt=0, description="Adam's step size, the same for actor and critics.")
    actor_learning_rate: float | None = Field(
        None,
        gt=0,
        description="Adam's step size for actors alone (null = learning_rate, as in the paper): with a "
        "smaller one they wait for critics to know something.",
    )
    learning_rate_decay: RateDecay | None = Field(
        None,
        description="How both step sizes fall (null = they do not, as in the paper): {factor: 0.1, updates: "
        "10000} = to a tenth over an agent's first 10,000 updates, and no further.",
    )
    discount: float = Field(0.95, ge=0, le=1, description="Weight of the next step's value in the target.")
    tau: float = Field(
        0.005,
        gt=0,
        le=1,
        description="Share of the new critics mixed into the target critics at each update.",
    )
    batch_size: int = Field(128, ge=1, description="Transitions that an agent draws for one update.")
    temperature: float = Field(
        0.08, ge=0, description="Weight of the policy's entropy in the return (alpha)."
    )
    replay_transitions: int = Field(
        500_000,
        ge=1,
        description="Transitions kept by the whole army, an equal share by each agent; with joint critics by "
        "each agent.",
    )
    replay_dtype: Literal["float16", "float32"] = Field(
        "float16", description="Number format of stored observations; float16 halves the memory."
    )
    moa: MoaConfig | None = Field(
        None,
        description=(
            "How learners with joint critics know what the others would do: off (null) = by their true "
            "policies; on, or a section of settings = by models of them, learnt from what they did."
        ),
    )
    information: Literal["accessible", "network"] = Field(
        "accessible",
        description=(
            "How learners with joint critics come to know what the others saw and did: accessible = at no "
            "cost (the paper); network = by messages, late or never, the last known step standing in."
        ),
    )
    update_every_steps: int = Field(4, ge=1, description="World steps between two updates of an agent.")
    warmup_transitions: int = Field(
        0, ge=0, description="Transitions that an agent gathers before its first update (at least one batch)."
    )
    joint: bool = Field(
        True,
        description="Joint actor-critic objective; false (the ablation): each network its own term.",
    )
    alpha1: float = Field(
        0.05,
        ge=0,
        description="Weight of the value in the objective; biases TD errors by alpha1/(2 alpha2).",
    )
    alpha2: float = Field(1.0, ge=0, description="Weight of the squared TD error in the joint objective.")
    truncation: float = Field(
        1.0,
        gt=0,
        description="Largest importance weight between the present and the behaviour policy (epsilon).",
    )
    exact_expectation: bool = Field(
        True,
        description="Take expectations over the own action exactly, not with one sampled action.",
    )
    td_clip: float | None = Field(
        None,
        gt=0,
        description="Largest TD error that the actor's squared term counts (null = any, as in the paper).",
    )
    normalise_td: bool = Field(
        False,
        description="Divide the actor's squared TD error by its running mean (the paper does not).",
    )
    l2: float = Field(0.0, ge=0, description="Weight of the regulariser R(w) = |w|^2 / 2 on every parameter.")
    critic_l2: float | None = Field(
        None,
        ge=0,
        description="Weight of that regulariser on the critics' parameters, instead of l2 (null = l2). "
        "Against alpha2 = 1 MAAC's own would be 1e-3.",
    )
    grad_clip: float | None = Field(
        None,
        gt=0,
        description="Largest norm of an agent's gradient, actor and critics apart (null = no limit).",
    )
    normalise_rewards: bool = Field(
        False,
        description="Standardise rewards by mean and deviation of all that the agent's replay holds, as MAAC "
        "does (learners with joint critics; true by default for them).",
    )
    heads: int = Field(4, ge=1, description="Heads of the attention critic.")
    attention_decay: float = Field(
        1e-3,
        ge=0,
        description="Weight of the squared attention logits in the loss of an attention critic.",
    )
    gumbel_temperature: float = Field(
        1.0,
        gt=0,
        description="Temperature of the Gumbel-softmax sample through which the actor learns (f2a2_ddpg, "
        "f2a2_td3).",
    )
    policy_delay: list[PositiveInt] = Field(
        [1, 2, 3],
        min_length=1,
        description="Updates of the critics for one of the actor (f2a2_td3): a list, of which agent i has "
        "number i modulo its length. The paper gives every agent another, and prints none.",
    )
    smoothing_noise: list[NonNegativeFloat] = Field(
        [0.1, 0.2, 0.3],
        min_length=1,
        description="Standard deviation of the noise on the logits of the target's actions (f2a2_td3): a "
        "list as policy_delay.",
    )
    smoothing_clip: list[NonNegativeFloat] = Field(
        [0.5], min_length=1, description="Largest such noise (f2a2_td3): a list as policy_delay."
    )
    td_lambda: float = Field(
        0.8, ge=0, le=1, description="Lambda of the TD(lambda) returns (f2a2_coma); 0 is one step."
    )
    entropy_bonus: float = Field(
        0.0,
        ge=0,
        description="Weight of the policy's entropy in the actor's objective alone (f2a2_coma, f2a2_ddpg, "
        "f2a2_td3; the paper has none).",
    )
    logit_decay: float = Field(
        0.0,
        ge=0,
        description="Weight of the policy's mean squared logit in the actor's loss, as MAAC has it (learners "
        "with joint critics; the paper has none). Against alpha1 = 1 MAAC's own would be 1e-3.",
    )
    critic: Literal["perceptron", "attention"] = Field(
        "perceptron",
        description="The critics of f2a2_coma, f2a2_ddpg and f2a2_td3: perceptron = one on all that is seen "
        "and done, attention = MAAC's, which f2a2_sac always has.",
    )
    advantage: Literal["critic", "return"] = Field(
        "critic",
        description="What the actor compares with the counterfactual baseline (f2a2_coma): critic = the "
        "critic's value of each own action (the paper), return = the TD(lambda) return of the one taken.",
    )
    standardise_advantage: bool = Field(
        False,
        description="Subtract the batch's mean from the actor's advantages and divide by their deviation "
        "(f2a2_coma; the paper does not).",
    )
    td_baseline: bool = Field(
        False,
        description="Subtract the batch's mean from the actor's squared TD errors (f2a2_coma): the same "
        "expected gradient without its drift (the paper does not).",
    )
    block_agents: int = Field(
        8,
        ge=1,
        le=1024,
        description="Agents computed together; only speed depends on it (they must fit the cache). On a GPU "
        "learners with joint critics compute all agents together.",
    )

    @field_validator("moa", mode="before")
    @classmethod
    def _on_or_off(cls, given: Any) -> Any:
        """YAML reads a bare on and off as true and false."""
        if given in (False, "off"):
            return None
        return MoaConfig() if given in (True, "on") else given

    @model_validator(mode="before")
    @classmethod
    def _take_the_defaults_of_the_learner(cls, given: Any) -> Any:
        name = given.get("name") if isinstance(given, dict) else None
        return {**DEFAULTS[name], **given} if isinstance(name, str) and name in DEFAULTS else given
