"""Recordings tell updates that deviate from the original: parity is a test that can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from f2a2_sim.baselines.maac import critic as critic_module
from f2a2_sim.baselines.maac import learner as learner_module
from f2a2_sim.baselines.maac import policies as policies_module
from f2a2_sim.baselines.maac.config import MaacConfig
from f2a2_sim.baselines.maac.critic import MaacCritic
from f2a2_sim.baselines.maac.learner import Maac
from f2a2_sim.learners import products, stacked
from f2a2_sim.learners import standardise as standardise_module
from f2a2_sim.learners.attention import Attended, AttentionCritic
from f2a2_sim.learners.attention_shape import AttentionShape
from f2a2_sim.learners.standardise import Standardised
from tests.f2a2_sim.baselines.maac.comparison import compare
from tests.f2a2_sim.baselines.maac.plain_update import write_recordings
from tests.f2a2_sim.baselines.maac.recording import Recording, recording_of, recordings

PATHS = recordings()


def discounts_entropy(patch: pytest.MonkeyPatch) -> None:
    def target(config: MaacConfig, r: Tensor, ended: Tensor, q: Tensor, log: Tensor) -> Tensor:
        return r + config.discount * ((1 - ended) * q - log / config.reward_scale)

    patch.setattr(learner_module, "regression_target", target)


def masks_entropy(patch: pytest.MonkeyPatch) -> None:
    def target(config: MaacConfig, r: Tensor, ended: Tensor, q: Tensor, log: Tensor) -> Tensor:
        return r + (1 - ended) * (config.discount * q - log / config.reward_scale)

    patch.setattr(learner_module, "regression_target", target)


def omits_clip(patch: pytest.MonkeyPatch) -> None:
    for module in (critic_module, policies_module):
        patch.setattr(module, "clip_norms", lambda gradients, limit: gradients.norm(dim=1))


def asks_online_policy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policies_module.PolicyGroup, "target_passes", policies_module.PolicyGroup.passes)


def asks_target_critic(patch: pytest.MonkeyPatch) -> None:
    """In the policy step; of a first update it is the critic before its step as well."""
    values = Maac.value_policies

    def with_target(self: Maac, *args: object) -> object:
        patch.setattr(MaacCritic, "action_values", MaacCritic.target_values)
        return values(self, *args)  # type: ignore[arg-type]

    patch.setattr(Maac, "value_policies", with_target)


def divides_variance_by_one_less(patch: pytest.MonkeyPatch) -> None:
    def unbiased(values: Tensor) -> Standardised:
        seen = standardise_module.standardise(values)
        batch = values.shape[-2]
        wrong = seen.variance * (batch / (batch - 1))
        return Standardised(standardise_module._scaled(values, seen.mean, wrong), seen.mean, seen.variance)

    patch.setattr(learner_module, "standardise", unbiased)


def changes_epsilon(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(standardise_module, "_EPSILON", 1e-3)


def changes_slope(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(products, "LEAK", 0.02)


def changes_slope_of_policies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stacked, "LEAK", 0.02)


def attends_to_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AttentionCritic, "_fill_self", lambda self, logits, value: None)

    def no_logits(self: AttentionCritic, done: Attended, question: int) -> Tensor:
        shape, batch = self.shape, done.q.shape[1]
        return torch.zeros(shape.heads, batch, shape.n_agents - 1)

    patch.setattr(AttentionCritic, "attention_logits", no_logits)


def regularises_scaled_logits(patch: pytest.MonkeyPatch) -> None:
    squared = AttentionCritic.squared_logits
    patch.setattr(AttentionCritic, "squared_logits", lambda *args: squared(*args) / 32)
    changes_decay(patch, 1 / 32)


def regularises_over_all(patch: pytest.MonkeyPatch) -> None:
    squared = AttentionCritic.squared_logits
    patch.setattr(AttentionCritic, "squared_logits", lambda *args: squared(*args) * 7 / 8)
    changes_decay(patch, 7 / 8)


def changes_decay(patch: pytest.MonkeyPatch, factor: float) -> None:
    backward = AttentionCritic.backward

    def weaker(
        self: AttentionCritic, p: object, x: object, d: object, q: object, decay: float, o: object
    ) -> None:
        backward(self, p, x, d, q, decay * factor, o)  # type: ignore[arg-type]

    patch.setattr(AttentionCritic, "backward", weaker)


def leaves_encoders_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AttentionShape, "common_columns", AttentionShape.attention_columns)


def scales_state_encoders(patch: pytest.MonkeyPatch) -> None:
    ends = property(lambda shape: slice(0, shape.segments[4 + 2 * len(shape.groups)].offset))
    patch.setattr(AttentionShape, "common_columns", ends)


def decays_no_weights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recording, "config", with_settings(critic_weight_decay=0.0))


def decays_decoupled(patch: pytest.MonkeyPatch) -> None:
    step = MaacCritic.step

    def decoupled(self: MaacCritic) -> None:
        self.parameters.mul_(1 - self.config.critic_learning_rate * 1e-3)
        step(self)

    patch.setattr(Recording, "config", with_settings(critic_weight_decay=0.0))
    patch.setattr(MaacCritic, "step", decoupled)


def regularises_no_policy_logits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recording, "config", with_settings(logit_decay=0.0))


def with_settings(**changes: float) -> Callable[[Recording], MaacConfig]:
    original = Recording.config
    return lambda self: original(self, **changes)


NEW, LATER, STRESS = "fresh", "later", "stress"
VARIANTS: dict[Callable[[pytest.MonkeyPatch], None], set[str]] = {
    discounts_entropy: {NEW, LATER},
    masks_entropy: {STRESS},
    omits_clip: {STRESS},
    asks_online_policy: {LATER, STRESS},
    asks_target_critic: {NEW, STRESS},
    divides_variance_by_one_less: {NEW, LATER, STRESS},
    changes_epsilon: {NEW, LATER, STRESS},
    changes_slope: {NEW, LATER, STRESS},
    changes_slope_of_policies: {NEW, LATER, STRESS},
    attends_to_itself: {NEW, LATER, STRESS},
    regularises_scaled_logits: {NEW, LATER, STRESS},
    regularises_over_all: {NEW, LATER, STRESS},
    leaves_encoders_alone: {NEW, LATER, STRESS},
    scales_state_encoders: {NEW, LATER, STRESS},
    decays_no_weights: {NEW, STRESS},
    decays_decoupled: {NEW, STRESS},
    regularises_no_policy_logits: {NEW, LATER, STRESS},
}

NEEDS_OPTIMISER = {asks_target_critic, decays_no_weights, decays_decoupled}
"""What shows only in the critic's step, for which Adam's state must be known."""


def kind_of(path: Path) -> str:
    """What a recording can show."""
    if "stress" in path.stem:
        return STRESS
    return NEW if recording_of(path).fresh else LATER


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "variant", [v for v, kinds in VARIANTS.items() if STRESS in kinds], ids=lambda v: v.__name__
)
def test_wrong_variants_fail_under_stress(
    plain: Path, variant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: where rewards are large, some deviations are small beside them."""
    variant(monkeypatch)
    assert compare(recording_of(plain), torch.float64).failures()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_wrong_variants_are_rejected(
    path: Path, variant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the tolerances of float32, so all the more at those of float64; but see above for stress."""
    kind = kind_of(path)
    out_of_reach = variant in NEEDS_OPTIMISER and not recording_of(path).has_optimiser
    if kind not in VARIANTS[variant] or out_of_reach:
        pytest.skip(f"{path.stem} cannot tell this variant from the original")
    variant(monkeypatch)
    assert compare(recording_of(path), torch.float64 if kind == STRESS else torch.float32).failures()
