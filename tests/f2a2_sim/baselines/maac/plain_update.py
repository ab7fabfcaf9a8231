"""A stressful update done plainly: agent by agent and head by head, with autograd, torch's Adam and clipping.

It is written down in the layout of the recordings of the original, with what those in the repository lack:
episodes that end, gradients large enough to be clipped, Adam's state in the midst of a training, three groups
of agents.
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, leaky_relu, linear, one_hot
from torch.nn.utils import clip_grad_norm_

SIZES, ACTIONS, HIDDEN, HEADS, BATCH, STEPS = (6, 9, 9, 5), 5, 16, 4, 32, 7
N, WIDTH = len(SIZES), HIDDEN // HEADS
GAMMA, TAU, RATE, REWARD_SCALE, DECAY = 0.99, 0.001, 0.001, 100.0, 0.001
Named = dict[str, Tensor]


def critic_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, out: int, inputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, inputs)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    for i, size in enumerate(SIZES):
        layer(f"critic_encoders.{i}.enc_fc1", HIDDEN, size + ACTIONS)
        layer(f"state_encoders.{i}.s_enc_fc1", HIDDEN, size)
        layer(f"critics.{i}.critic_fc1", HIDDEN, 2 * HIDDEN)
        layer(f"critics.{i}.critic_fc2", ACTIONS, HIDDEN)
    for h in range(HEADS):
        layer(f"key_extractors.{h}", WIDTH, HIDDEN, bias=False)
        layer(f"selector_extractors.{h}", WIDTH, HIDDEN, bias=False)
        layer(f"value_extractors.{h}.0", WIDTH, HIDDEN)
    return shapes


def policy_shapes(size: int) -> dict[str, tuple[int, ...]]:
    weights = {"fc1": (HIDDEN, size), "fc2": (HIDDEN, HIDDEN), "fc3": (ACTIONS, HIDDEN)}
    return {
        f"{name}.{part}": shape if part == "weight" else shape[:1]
        for name, shape in weights.items()
        for part in ("weight", "bias")
    }


def normed(x: Tensor) -> Tensor:
    return batch_norm(x, None, None, training=True, eps=1e-5)


def affine(p: Named, name: str, x: Tensor) -> Tensor:
    return linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def policy_logits(p: Named, inputs: Tensor) -> Tensor:
    x = leaky_relu(affine(p, "fc1", inputs), 0.01)
    return affine(p, "fc3", leaky_relu(affine(p, "fc2", x), 0.01))


def action_values(p: Named, obs: list[Tensor], acts: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Q_i ``[batch, actions]`` and unscaled logits ``[heads, batch, n - 1]`` of every agent."""
    joined = [normed(torch.cat([o, a], dim=1)) for o, a in zip(obs, acts, strict=True)]
    e = [leaky_relu(affine(p, f"critic_encoders.{i}.enc_fc1", x), 0.01) for i, x in enumerate(joined)]
    values, all_logits = [], []
    for i in range(N):
        s = leaky_relu(affine(p, f"state_encoders.{i}.s_enc_fc1", normed(obs[i])), 0.01)
        others, logits = [], []
        for h in range(HEADS):
            selector = affine(p, f"selector_extractors.{h}", s)
            rest = [e[j] for j in range(N) if j != i]
            keys = torch.stack([affine(p, f"key_extractors.{h}", x) for x in rest], dim=1)
            valued = torch.stack([leaky_relu(affine(p, f"value_extractors.{h}.0", x), 0.01) for x in rest], 1)
            logits.append((keys * selector[:, None]).sum(dim=2))
            weights = torch.softmax(logits[-1] / sqrt(WIDTH), dim=1)
            others.append((weights[:, :, None] * valued).sum(dim=1))
        x = leaky_relu(affine(p, f"critics.{i}.critic_fc1", torch.cat([s, *others], dim=1)), 0.01)
        values.append(affine(p, f"critics.{i}.critic_fc2", x))
        all_logits.append(torch.stack(logits))
    return values, all_logits


def write_recordings(folder: Path) -> Path:
    """Write ``maac_parity_plain_stress.npz`` and what belongs to it."""
    rng = np.random.default_rng(8)
    start = _start(rng)
    done = dict(start)
    with torch.enable_grad():
        done |= _update(start, torch.float32)
        done |= {f"f64/{key}": value for key, value in _update(start, torch.float64).items()}
    path = folder / "maac_parity_plain_stress.npz"
    extra = {key: value for key, value in done.items() if key.startswith("adam0/")}
    np.savez(path, **{key: value for key, value in done.items() if key not in extra})
    np.savez(folder / f"{path.stem}_extra.npz", **extra)
    return path


def _start(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """State, batch and actions before the update, in float32."""
    start: dict[str, np.ndarray] = {
        "meta/nagents": np.int64(N),
        "meta/obs_dims": np.array(SIZES),
        "meta/act_dims": np.full(N, ACTIONS),
        "meta/gamma": np.float64(GAMMA),
        "meta/tau": np.float64(TAU),
        "meta/pi_lr": np.float64(RATE),
        "meta/q_lr": np.float64(RATE),
        "meta/reward_scale": np.float64(REWARD_SCALE),
        "meta/heads": np.int64(HEADS),
        "meta/hidden": np.int64(HIDDEN),
        "meta/batch": np.int64(BATCH),
        "meta/critic_weight_decay": np.float64(DECAY),
    }

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def network(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
        for key, shape in shapes.items():
            start[f"p0/{name}/{key}"] = normal(*shape, scale=0.4)
            start[f"p0/target_{name}/{key}"] = normal(*shape, scale=0.4)
            start[f"adam0/{name}/exp_avg/{key}"] = normal(*shape, scale=0.1)
            start[f"adam0/{name}/exp_avg_sq/{key}"] = normal(*shape, scale=0.1) ** 2
            start[f"adam0/{name}/step/{key}"] = np.float32(STEPS)

    network("critic", critic_shapes())
    for i, size in enumerate(SIZES):
        network(f"policy/{i}", policy_shapes(size))
        start[f"p0/policy/{i}/in_fn.running_mean"] = normal(size)
        start[f"p0/policy/{i}/in_fn.running_var"] = 0.1 + normal(size) ** 2
        start[f"p0/policy/{i}/in_fn.num_batches_tracked"] = np.int64(STEPS)
        norms = {f"state_encoders.{i}.s_enc_bn": size, f"critic_encoders.{i}.enc_bn": size + ACTIONS}
        for name, width in norms.items():
            for net in ("critic", "target_critic"):
                start[f"p0/{net}/{name}.running_mean"] = normal(width)
                start[f"p0/{net}/{name}.running_var"] = 0.1 + normal(width) ** 2
        start[f"batch/obs/{i}"], start[f"batch/next_obs/{i}"] = normal(BATCH, size), normal(BATCH, size)
        start[f"batch/act/{i}"] = np.eye(ACTIONS, dtype=np.float32)[rng.integers(0, ACTIONS, BATCH)]
        start[f"batch/rew_raw/{i}"] = 3 + normal(BATCH)
        start[f"batch/rew/{i}"] = 200 * (start[f"batch/rew_raw/{i}"] - 3)
        start[f"batch/done/{i}"] = (rng.random(BATCH) < 0.3).astype(np.float32)
        start[f"critic/next_act/{i}"] = rng.integers(0, ACTIONS, BATCH)
        start[f"policy/act/{i}"] = rng.integers(0, ACTIONS, BATCH)
    start["batch/buffer_rew_mean"] = np.full(N, 3, np.float32)
    start["batch/buffer_rew_std"] = np.full(N, 1, np.float32)
    start["critic/param_names"] = np.array(list(critic_shapes()))
    start["policy/param_names"] = np.array(list(policy_shapes(1)))
    return start


class _Recorder:
    """Reads the start in one precision, and keeps what the update shows."""

    def __init__(self, start: dict[str, np.ndarray], dtype: torch.dtype) -> None:
        self.start, self.dtype = start, dtype
        self.kept: dict[str, np.ndarray] = {}

    def keep(self, key: str, value: Tensor | list[Tensor]) -> None:
        tensor = torch.stack(value) if isinstance(value, list) else value
        self.kept[key] = tensor.detach().clone().numpy()

    def copy(self, key: str) -> Tensor:
        return torch.from_numpy(self.start[key].copy()).to(self.dtype)

    def floats(self, prefix: str) -> list[Tensor]:
        return [torch.from_numpy(self.start[f"{prefix}/{i}"]).to(self.dtype) for i in range(N)]

    def acts(self, prefix: str) -> list[Tensor]:
        return [torch.from_numpy(self.start[f"{prefix}/{i}"])[:, None] for i in range(N)]

    def network(self, name: str) -> Named:
        prefix = f"p0/{name}/"
        keys = [k for k in self.start if k.startswith(prefix) and "running_" not in k and "num_" not in k]
        return {key.removeprefix(prefix): self.copy(key).requires_grad_() for key in keys}

    def adam(self, name: str, p: Named, decay: float) -> torch.optim.Adam:
        adam = torch.optim.Adam(p.values(), lr=RATE, weight_decay=decay)
        for key, leaf in p.items():
            moments = ("exp_avg", "exp_avg_sq")
            state = {m: self.copy(f"adam0/{name}/{m}/{key}") for m in moments}
            adam.state[leaf] = state | {"step": torch.tensor(float(STEPS))}
        return adam

    def gradients(self, prefix: str, p: Named) -> Tensor:
        """Keep them; their norms in order."""
        for key, leaf in p.items():
            self.keep(f"{prefix}/{key}", leaf.grad)
        return torch.stack([leaf.grad.norm() for leaf in p.values()])

    def parameters(self, prefix: str, p: Named) -> None:
        for key, leaf in p.items():
            self.keep(f"{prefix}/{key}", leaf)


def _update(start: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, np.ndarray]:
    r = _Recorder(start, dtype)
    critic, target_critic = r.network("critic"), r.network("target_critic")
    policies = [r.network(f"policy/{i}") for i in range(N)]
    target_policies = [r.network(f"target_policy/{i}") for i in range(N)]
    obs, later = r.floats("batch/obs"), r.floats("batch/next_obs")

    def hot(acts: list[Tensor]) -> list[Tensor]:
        return [one_hot(a.squeeze(1), ACTIONS).to(dtype) for a in acts]

    for i, (p, o) in enumerate(zip(policies, obs, strict=True)):
        moments = [r.copy(f"p0/policy/{i}/in_fn.running_{m}") for m in ("mean", "var")]
        r.keep(f"rollout/probs/{i}", policy_logits(p, batch_norm(o, *moments, eps=1e-5)).softmax(dim=1))
        batch_norm(o, *moments, training=True, momentum=0.1)
        r.keep(f"p1/policy/{i}/in_fn.running_mean", moments[0])
        r.keep(f"p1/policy/{i}/in_fn.running_var", moments[1])

    # Critic
    next_acts = r.acts("critic/next_act")
    next_q, _ = action_values(target_critic, later, hot(next_acts))
    q, logits = action_values(critic, obs, r.floats("batch/act"))
    mse, reg = [], []
    for i in range(N):
        log_pi = policy_logits(target_policies[i], normed(later[i])).log_softmax(dim=1)
        log_pi, chosen = log_pi.gather(1, next_acts[i]), next_q[i].gather(1, next_acts[i])
        keep = 1 - r.floats("batch/done")[i][:, None]
        y = (r.floats("batch/rew")[i][:, None] + GAMMA * keep * chosen - log_pi / REWARD_SCALE).detach()
        taken = (q[i] * r.floats("batch/act")[i]).sum(dim=1, keepdim=True)
        mse.append((taken - y).square().mean())
        reg.append(1e-3 * sum(head.square().mean() for head in logits[i]))
        for key, value in (("next_log_pi", log_pi), ("next_q", chosen), ("target_q", y), ("q", taken)):
            r.keep(f"critic/{key}/{i}", value)
        r.keep(f"critic/all_q/{i}", q[i])
        r.keep(f"critic/scaled_attend_logits/{i}", logits[i] / sqrt(WIDTH))
    loss = sum(mse) + sum(reg)
    r.keep("critic/mse", mse)
    r.keep("critic/attend_reg", reg)
    r.keep("critic/loss", loss)
    adam = r.adam("critic", critic, DECAY)
    loss.backward()
    r.keep("critic/grad_l2_all/raw", r.gradients("critic/grad_raw", critic))
    for key, leaf in critic.items():
        if not key.startswith(("state_encoders", "critics")):
            leaf.grad /= N
    r.keep("critic/grad_l2_all/scaled", r.gradients("critic/grad_scaled", critic))
    r.keep("critic/grad_norm_before_clip", clip_grad_norm_(critic.values(), 10.0 * N))
    r.keep("critic/clip_at", torch.tensor(10.0 * N, dtype=torch.float64))
    r.keep("critic/grad_l2_all/clipped", r.gradients("critic/grad_clipped", critic))
    adam.step()
    r.parameters("after_critic_step/critic", critic)

    # Policies
    acts = r.acts("policy/act")
    q, _ = action_values(critic, obs, hot(acts))
    figures: dict[str, list[Tensor]] = {
        key: [] for key in ("loss_pg", "logit_sq_mean", "loss_total", "entropy", "grad_norm_before_clip")
    }
    norms: dict[str, list[Tensor]] = {"raw": [], "clipped": []}
    for i, p in enumerate(policies):
        z = policy_logits(p, normed(obs[i]))
        pi, log = z.softmax(dim=1), z.log_softmax(dim=1)
        log_pi, chosen = log.gather(1, acts[i]), q[i].gather(1, acts[i])
        advantage = chosen - (pi * q[i]).sum(dim=1, keepdim=True)
        pg = (log_pi * (log_pi / REWARD_SCALE - advantage).detach()).mean()
        total = pg + 1e-3 * z.square().mean()
        policy_adam = r.adam(f"policy/{i}", p, 0.0)
        total.backward()
        norms["raw"].append(r.gradients(f"policy/grad_raw/{i}", p))
        norm = clip_grad_norm_(p.values(), 0.5)
        norms["clipped"].append(r.gradients(f"policy/grad_clipped/{i}", p))
        policy_adam.step()
        entropy = -(pi * log).sum(dim=1).mean()
        values = (pg, z.square().mean(), total, entropy, norm)
        for figure, value in zip(figures.values(), values, strict=True):
            figure.append(value)
        for key, value in (("probs", pi), ("log_pi", log_pi), ("q", chosen), ("all_q", q[i])):
            r.keep(f"policy/{key}/{i}", value)
    for key, figure in figures.items():
        r.keep(f"policy/{key}", figure)
    for key, rows in norms.items():
        r.keep(f"policy/grad_l2_all/{key}", rows)
    r.keep("policy/clip_at", torch.tensor(0.5, dtype=torch.float64))

    # Targets
    pairs = [("critic", critic, target_critic)]
    pairs += [(f"policy/{i}", policies[i], target_policies[i]) for i in range(N)]
    for name, online, target in pairs:
        r.parameters(f"p1/{name}", online)
        for key, leaf in target.items():
            r.keep(f"p1/target_{name}/{key}", (1 - TAU) * leaf + TAU * online[key])
    return r.kept
