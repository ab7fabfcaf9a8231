"""Every figure of a recorded update beside the learner's."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from f2a2_sim.baselines.maac import learner as learner_module
from f2a2_sim.baselines.maac.critic import CriticLoss
from f2a2_sim.baselines.maac.learner import Maac, Seen
from f2a2_sim.baselines.maac.policies import PolicyLoss, Valued
from f2a2_sim.learners.attention import AttentionCritic
from f2a2_sim.learners.standardise import RunningMoments, Standardised
from tests.f2a2_sim.baselines.maac.recording import Recording, named_critic, named_policy, read

Array = NDArray[np.generic]
TOLERANCES = {  # relative to the largest recorded magnitude
    torch.float64: {"value": 1e-9, "gradient": 1e-9, "parameter": 1e-9},
    torch.float32: {"value": 1e-5, "gradient": 5e-5, "parameter": 2e-5},
}


@dataclass
class Comparison:
    """Errors by name, each with the tolerance of its kind; what was not recorded is not compared."""

    recording: Recording
    dtype: torch.dtype
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)

    def expect(self, key: str, actual: Array | Tensor, kind: str = "value") -> None:
        """Compare with ``key``: in float64 with the float64 update's, where it is recorded."""
        exact = f"f64/{key}"
        if self.dtype == torch.float64 and exact not in self.recording:
            return
        if self.dtype == torch.float32 and key not in self.recording:
            return
        expected = np.asarray(self.recording[exact if self.dtype == torch.float64 else key], np.float64)
        given = np.asarray(actual, np.float64)
        assert given.shape == expected.shape, f"{key}: {given.shape}, recorded {expected.shape}"
        # A first step of Adam is about the sign of the gradient: what is tiny is compared absolutely.
        absolute = self.dtype == torch.float32 and kind == "parameter"
        scale = 1.0 if absolute else max(float(np.abs(expected).max()), 1e-30)
        error = float(np.abs(given - expected).max()) / scale
        self.errors[key] = (error if np.isfinite(error) else np.inf, TOLERANCES[self.dtype][kind])

    def failures(self) -> dict[str, tuple[float, float]]:
        return {key: pair for key, pair in self.errors.items() if pair[0] > pair[1]}

    def worst(self) -> tuple[float, str]:
        return max((error, key) for key, (error, _) in self.errors.items())


def compare(recording: Recording, dtype: torch.dtype) -> Comparison:
    """Do the recorded update and compare everything on the way."""
    checks = Comparison(recording, dtype)
    learner = recording.learner(dtype, recording.config())
    batch = recording.joint_batch(learner)
    compare_acting(checks, learner)
    compare_critic_moments(checks, learner)

    seen = learner.look(batch.observations)
    target = learner.regression_target(batch, recording.choose("critic/next_act"))
    for i in range(recording.n):
        checks.expect(f"critic/target_q/{i}", target[i].unsqueeze(-1))
    compare_targets(checks, learner)
    loss = learner.critic_loss(seen, batch.actions, target)
    compare_critic_loss(checks, learner, seen, loss)
    compare_critic_gradients(checks, learner)
    learner.critic.step()
    compare_named(checks, "after_critic_step/critic/", named_critic(learner.shape, learner.critic.parameters))
    if not recording.has_optimiser:
        compare_policy_step_of_recorded_values(checks, learner, seen)
        return checks
    valued = learner.value_policies(seen, recording.choose("policy/act"))
    losses = [PolicyLoss.of(learner.config, of_group) for of_group in valued]
    compare_policy_losses(checks, learner, losses)
    compare_policy_gradients(checks, learner, seen, losses)
    for policy in learner.policies:
        policy.step()
    learner.follow_targets()
    compare_after(checks, learner)
    return checks


def compare_acting(checks: Comparison, learner: Maac) -> None:
    recorded = checks.recording
    observations = [
        np.stack([recorded[f"batch/obs/{i}"] for i in range(g.first, g.stop)], axis=1)
        for g in learner.shape.groups
    ]
    probabilities = learner.acting_probabilities(observations)
    for i in range(recorded.n):
        # Recorded in float32 only.
        error = np.abs(probabilities[i].numpy() - recorded[f"rollout/probs/{i}"]).max()
        checks.errors[f"rollout/probs/{i}"] = (float(error), 1e-6)


def compare_targets(checks: Comparison, learner: Maac) -> None:
    """What stands inside the regression target."""
    recorded = checks.recording
    seen = learner.look(recorded.joint_batch(learner).next_observations)
    logits = [p.target_logits(seen.policy_inputs(g)) for g, p in enumerate(learner.policies)]
    log = torch.cat(logits).log_softmax(dim=-1)
    actions = torch.from_numpy(recorded.stacked("critic/next_act")).unsqueeze(-1)
    learner.enter_actions(seen, actions.squeeze(-1))
    q = learner.critic.target_values(seen.inputs)
    for i in range(recorded.n):
        checks.expect(f"critic/next_log_pi/{i}", log[i].gather(-1, actions[i]))
        checks.expect(f"critic/next_q/{i}", q[i].gather(-1, actions[i]))


def compare_critic_loss(checks: Comparison, learner: Maac, seen: Seen, loss: CriticLoss) -> None:
    config, critic = learner.config, AttentionCritic(learner.shape)
    done = critic.forward(learner.shape.arrays(learner.critic.parameters), seen.inputs)
    logits_each = loss.target.shape[1] * (checks.recording.n - 1)
    mse, reg = loss.squared_error(), config.attention_decay * critic.squared_logits(done) / logits_each
    checks.expect("critic/mse", mse)
    checks.expect("critic/attend_reg", reg)
    checks.expect("critic/loss", (mse + reg).sum())
    for i in range(checks.recording.n):
        checks.expect(f"critic/all_q/{i}", loss.q[i])
        checks.expect(f"critic/q/{i}", loss.q[i].gather(-1, loss.actions[i].unsqueeze(-1)))
        checks.expect(f"critic/scaled_attend_logits/{i}", critic.attention_logits(done, i))


def compare_critic_gradients(checks: Comparison, learner: Maac) -> None:
    critic = learner.critic

    def stage(name: str) -> None:
        named = named_critic(learner.shape, critic.gradient)
        compare_named(checks, f"critic/grad_{name}/", named, "gradient")
        order = [str(key) for key in checks.recording["critic/param_names"]]
        norms = np.array([np.linalg.norm(read(named[key])) for key in order])
        checks.expect(f"critic/grad_l2_all/{name}", norms, "gradient")

    stage("raw")
    critic.scale_common()
    stage("scaled")
    norm = critic.clip()
    checks.expect("critic/grad_norm_before_clip", norm[0], "gradient")
    checks.expect("critic/clip_at", np.float64(learner.config.critic_clip_per_agent * checks.recording.n))
    stage("clipped")


def compare_policy_losses(checks: Comparison, learner: Maac, losses: list[PolicyLoss]) -> None:
    """All that the policies' losses show, with the updated critic's values."""
    config = learner.config
    loss_pg = torch.cat([loss.policy_gradient() for loss in losses])
    squares = torch.cat([loss.logits.square().mean(dim=(1, 2)) for loss in losses])
    checks.expect("policy/loss_pg", loss_pg)
    checks.expect("policy/logit_sq_mean", squares)
    checks.expect("policy/loss_total", loss_pg + config.logit_decay * squares)
    checks.expect("policy/entropy", torch.cat([loss.entropy() for loss in losses]))
    log = torch.cat([loss.log for loss in losses])
    actions = torch.cat([loss.actions for loss in losses])
    for i in range(checks.recording.n):
        checks.expect(f"policy/probs/{i}", log[i].exp())
        checks.expect(f"policy/log_pi/{i}", log[i].gather(-1, actions[i]))
    if checks.recording.has_optimiser:
        compare_policy_values(checks, learner, actions)


def compare_policy_values(checks: Comparison, learner: Maac, actions: Tensor) -> None:
    """The updated critic's values of everybody's sampled actions."""
    seen = learner.look(checks.recording.joint_batch(learner).observations)
    learner.enter_actions(seen, actions.squeeze(-1))
    q = learner.critic.action_values(seen.inputs)
    for i in range(checks.recording.n):
        checks.expect(f"policy/all_q/{i}", q[i])
        checks.expect(f"policy/q/{i}", q[i].gather(-1, actions[i]))


def compare_policy_gradients(checks: Comparison, learner: Maac, seen: Seen, losses: list[PolicyLoss]) -> None:
    for g, (policy, loss) in enumerate(zip(learner.policies, losses, strict=True)):
        policy.backward(seen.policy_inputs(g), loss.logit_gradient(learner.config))
    compare_policy_stage(checks, learner, "raw")
    norms = torch.cat([policy.clip() for policy in learner.policies])
    checks.expect("policy/grad_norm_before_clip", norms, "gradient")
    checks.expect("policy/clip_at", np.float64(learner.config.policy_clip))
    compare_policy_stage(checks, learner, "clipped")


def compare_policy_stage(checks: Comparison, learner: Maac, name: str) -> None:
    order = [str(key) for key in checks.recording["policy/param_names"]]
    all_norms = []
    for policy in learner.policies:
        for row, i in enumerate(range(policy.group.first, policy.group.stop)):
            named = named_policy(policy.shape, policy.gradient[row : row + 1])
            compare_named(checks, f"policy/grad_{name}/{i}/", named, "gradient")
            all_norms.append([np.linalg.norm(read(named[key])) for key in order])
    checks.expect(f"policy/grad_l2_all/{name}", np.array(all_norms), "gradient")


def compare_policy_step_of_recorded_values(checks: Comparison, learner: Maac, seen: Seen) -> None:
    """Where Adam's state is not recorded the updated critic is not known, but its values are."""
    recorded = checks.recording
    exact = "f64/" if checks.dtype == torch.float64 else ""
    losses = []
    for g, policy in enumerate(learner.policies):
        agents = range(policy.group.first, policy.group.stop)
        z = policy.logits(seen.policy_inputs(g))
        policy.follow(seen.observations[g])
        q = torch.from_numpy(np.stack([recorded[f"{exact}policy/all_q/{i}"] for i in agents]))
        actions = torch.from_numpy(np.stack([recorded[f"policy/act/{i}"] for i in agents]))
        losses.append(PolicyLoss.of(learner.config, Valued(z, actions.unsqueeze(-1), q)))
    compare_policy_losses(checks, learner, losses)
    compare_policy_gradients(checks, learner, seen, losses)
    compare_moments(checks, learner)


def compare_after(checks: Comparison, learner: Maac) -> None:
    critic = learner.critic
    for name, rows in (("critic", critic.parameters), ("target_critic", critic.targets)):
        compare_named(checks, f"p1/{name}/", named_critic(learner.shape, rows))
    for policy in learner.policies:
        for row, i in enumerate(range(policy.group.first, policy.group.stop)):
            for name, rows in (("policy", policy.parameters), ("target_policy", policy.targets)):
                compare_named(checks, f"p1/{name}/{i}/", named_policy(policy.shape, rows[row : row + 1]))
    compare_moments(checks, learner)


def compare_moments(checks: Comparison, learner: Maac) -> None:
    for policy in learner.policies:
        for row, i in enumerate(range(policy.group.first, policy.group.stop)):
            checks.expect(f"p1/policy/{i}/in_fn.running_mean", policy.moments.mean[row])
            checks.expect(f"p1/policy/{i}/in_fn.running_var", policy.moments.variance[row])


def compare_critic_moments(checks: Comparison, learner: Maac) -> None:
    """The original's critics keep running moments too, which nothing reads: here they show what the batches
    were standardised by.  The online critic sees two batches in an update, its target one."""
    recorded, batch = checks.recording, checks.recording.joint_batch(learner)
    now, later = learner.look(batch.observations), learner.look(batch.next_observations)
    taken, sampled, after = (
        learner_module.standardise(one_hot(actions, learner.shape.n_actions).to(learner.critic.parameters))
        for actions in (
            batch.actions,
            torch.from_numpy(recorded.stacked("policy/act")),
            torch.from_numpy(recorded.stacked("critic/next_act")),
        )
    )
    for g, group in enumerate(learner.shape.groups):
        o, o_next = now.observations[g], later.observations[g]
        for at, i in enumerate(range(group.first, group.stop)):
            state, action = f"state_encoders.{i}.s_enc_bn", f"critic_encoders.{i}.enc_bn"
            for key, batches in (
                (f"critic/{state}", [one_agent(o, at)] * 2),
                (f"critic/{action}", [one_agent(o, at, (a, i)) for a in (taken, sampled)]),
                (f"target_critic/{state}", [one_agent(o_next, at)]),
                (f"target_critic/{action}", [one_agent(o_next, at, (after, i))]),
            ):
                moments = RunningMoments(1, batches[0].mean.shape[-1], learner.critic.parameters[:0])
                moments.mean[:] = torch.from_numpy(recorded[f"p0/{key}.running_mean"])
                moments.variance[:] = torch.from_numpy(recorded[f"p0/{key}.running_var"])
                for seen in batches:
                    moments.follow(seen)
                checks.expect(f"p1/{key}.running_mean", moments.mean[0])
                checks.expect(f"p1/{key}.running_var", moments.variance[0])


def one_agent(seen: Standardised, at: int, did: tuple[Standardised, int] | None = None) -> Standardised:
    """One agent of a batch, with what it did behind what it saw."""
    parts = [(seen, at)] if did is None else [(seen, at), did]
    values = torch.cat([x.values[k] for x, k in parts], dim=-1)
    moments = [torch.cat([getattr(x, m)[k] for x, k in parts], dim=-1) for m in ("mean", "variance")]
    return Standardised(values, *moments)


def compare_named(
    checks: Comparison, prefix: str, named: dict[str, list[Tensor]], kind: str = "parameter"
) -> None:
    if kind == "parameter" and not prefix.startswith("p0") and not checks.recording.has_optimiser:
        return
    for name, views in named.items():
        checks.expect(prefix + name, read(views), kind)
