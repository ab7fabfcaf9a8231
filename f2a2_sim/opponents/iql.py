"""A frozen policy from independent Q-learning: an MLP of action values, played softly, read from safetensors.

File format ``f2a2-sim opponent`` 1: float32 or float16 tensors ``layers.{k}.weight`` ``[out, in]`` and
``layers.{k}.bias`` ``[out]`` for k = 0, 1, ..., leaky ReLU between layers; metadata ``format``, ``version``,
``epsilon``, ``temperature``, ``negative_slope``, and whatever its maker wants to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from f2a2_sim.errors import UsageError

FORMAT = "f2a2-sim opponent"
VERSION = "1"

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class SoftPolicy:
    """How action values become an action.

    With probability ``epsilon`` any action, otherwise one drawn from softmax(values / temperature); at
    temperature 0 the best one (the first of equals).
    """

    epsilon: float
    temperature: float

    def choose(self, values: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """Actions int64 ``[m]`` from values float32 ``[m, n_actions]`` and uniforms float64 ``[m, 2]``."""
        n_actions = values.shape[1]
        if self.temperature > 0.0:
            scaled = (values - values.max(axis=1, keepdims=True)) / self.temperature
            mass = np.exp(scaled, dtype=np.float64).cumsum(axis=1)
            picked = (mass <= uniforms[:, 1:] * mass[:, -1:]).sum(axis=1)
        else:
            picked = values.argmax(axis=1)
        # The share of the first uniform below epsilon is itself uniform: it picks the random action.
        exploring = uniforms[:, 0] < self.epsilon
        wild = uniforms[exploring, 0] / max(self.epsilon, np.finfo(np.float64).tiny) * n_actions
        picked[exploring] = np.minimum(wild.astype(np.int64), n_actions - 1)
        return np.asarray(picked, dtype=np.int64)


class IqlOpponent:
    """Plays a soft policy over the values of an MLP."""

    needs_observations = True

    def __init__(self, layers: Sequence[Layer], policy: SoftPolicy, negative_slope: float = 0.01) -> None:
        self._layers = list(layers)
        self._slope = np.float32(negative_slope)
        self.policy = policy

    def values(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Action values, float32 ``[m, n_actions]``, of observations float32 ``[m, size]``."""
        signal = observations
        for index, (weight, bias) in enumerate(self._layers):
            if index:
                signal = np.where(signal > 0, signal, signal * self._slope)
            signal = signal @ weight.T + bias
        return signal

    def act(self, observations: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        return self.policy.choose(self.values(observations), uniforms)


def save_opponent(
    path: Path, layers: Sequence[Layer], policy: SoftPolicy, negative_slope: float, about: Mapping[str, str]
) -> None:
    """Write a policy file (whole or not at all); ``about`` becomes further metadata."""
    tensors: dict[str, NDArray[np.float32]] = {}
    for index, (weight, bias) in enumerate(layers):
        tensors[f"layers.{index}.weight"] = np.ascontiguousarray(weight)
        tensors[f"layers.{index}.bias"] = np.ascontiguousarray(bias)
    metadata = {
        **about,
        "format": FORMAT,
        "version": VERSION,
        "epsilon": repr(policy.epsilon),
        "temperature": repr(policy.temperature),
        "negative_slope": repr(negative_slope),
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save(tensors, metadata=metadata))
    partial.replace(path)


def load_opponent(path: Path, observation_size: int, n_actions: int) -> IqlOpponent:
    """Read a policy file; UsageError if it is missing, damaged, foreign, or made for another world."""
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise _wrong(path, f"its metadata is not that of '{FORMAT}' version {VERSION}")
    try:
        epsilon, temperature, slope = (
            float(metadata[key]) for key in ("epsilon", "temperature", "negative_slope")
        )
    except (KeyError, ValueError) as error:
        raise _wrong(
            path, f"metadata epsilon, temperature or negative_slope is no number ({error})"
        ) from error
    if not (0.0 <= epsilon <= 1.0 and 0.0 <= temperature < np.inf and np.isfinite(slope)):
        raise _wrong(path, f"epsilon {epsilon} is not within 0..1, or temperature {temperature} below 0")
    layers = _layers(path, tensors)
    sizes = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
    if (sizes[0], sizes[-1]) != (observation_size, n_actions):
        here = f"this world has {observation_size} and {n_actions}"
        raise _wrong(path, f"its network maps {sizes[0]} inputs to {sizes[-1]} actions, {here}")
    return IqlOpponent(layers, SoftPolicy(epsilon, temperature), slope)


def _read(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: np.asarray(file.get_tensor(name), dtype=np.float32) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise _wrong(path, f"it cannot be read as safetensors ({error})") from error
    return tensors, metadata


def _layers(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> list[Layer]:
    layers: list[Layer] = []
    count = len(tensors) // 2
    names = {f"layers.{index}.{part}" for index in range(count) for part in ("weight", "bias")}
    if not count or set(tensors) != names:
        raise _wrong(
            path, f"its tensors are {sorted(tensors)}, not layers.0.weight, layers.0.bias, and so on"
        )
    for index in range(count):
        weight, bias = tensors[f"layers.{index}.weight"], tensors[f"layers.{index}.bias"]
        fits = weight.ndim == 2 and bias.shape == (weight.shape[0],)
        if not fits or (layers and weight.shape[1] != layers[-1][0].shape[0]):
            raise _wrong(
                path, f"layer {index} has weight {weight.shape} and bias {bias.shape}, which do not fit"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise _wrong(path, f"layer {index} holds numbers that are not finite")
        layers.append((weight, bias))
    return layers


def _wrong(path: Path, why: str) -> UsageError:
    return UsageError(
        f"world.opponent = {str(path)!r}: {why}; expected a policy file of 'f2a2-sim train-opponent'. "
        "Write one with that command, or use 'iql' or 'random'."
    )
