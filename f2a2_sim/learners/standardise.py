"""Batch normalisation without scale and shift, on inputs: no gradient passes through it.

The inputs of MAAC's networks are standardised by the batch itself while they learn, and by running moments
when a policy acts (Ioffe and Szegedy, ICML 2015; torch's BatchNorm1d with ``affine=False``).  As every
network standardises the same observations to the same numbers, it is done once for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_EPSILON = 1e-5
_MOMENTUM = 0.1


@dataclass(frozen=True)
class Standardised:
    """A batch ``[..., batch, size]``, and its moments ``[..., size]`` before; the variance is biased."""

    values: Tensor
    mean: Tensor
    variance: Tensor


def standardise(values: Tensor) -> Standardised:
    """(x - mean) / sqrt(variance + 1e-5) by the moments of a batch ``[..., batch, size]``.

    In two passes: torch's own `var_mean` takes ten times as long over an axis that is not the last.
    """
    mean = values.mean(dim=-2, keepdim=True)
    centred = values - mean
    variance = centred.square().mean(dim=-2, keepdim=True)
    centred.mul_(_scale(variance))
    return Standardised(centred, mean.squeeze(-2), variance.squeeze(-2))


def standardise_choices(actions: Tensor, n_actions: int, like: Tensor) -> Tensor:
    """`standardise` of one-hot vectors, each looked up among as many as there are actions.

    ``actions`` is int64 ``[n, batch]``; the result ``[n, batch, n_actions]``, of the type of ``like``.
    """
    n, batch = actions.shape
    place = actions + n_actions * torch.arange(n, device=actions.device).unsqueeze(1)
    share = place.flatten().bincount(minlength=n * n_actions).view(n, 1, n_actions).to(like) / batch
    one_hot = torch.eye(n_actions, dtype=share.dtype, device=share.device)
    table = (one_hot - share) * _scale(share * (1.0 - share))
    return table.flatten(0, 1).index_select(0, place.flatten()).view(n, batch, n_actions)


def centred_and_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors of the same ``[..., batch, size]`` and ``[..., 1, size]``, to be multiplied elsewhere."""
    centred = values - values.mean(dim=-2, keepdim=True)
    return centred, _scale(centred.square().mean(dim=-2, keepdim=True))


class RunningMoments:
    """Means and unbiased variances ``[n, size]`` of what was seen lately, by which to act."""

    def __init__(self, n: int, size: int, like: Tensor) -> None:
        self.mean = like.new_zeros(n, size)
        self.variance = like.new_ones(n, size)

    @classmethod
    def of(cls, mean: Tensor, variance: Tensor) -> RunningMoments:
        """Moments that are kept elsewhere ``[n, size]``."""
        moments = cls(0, 0, mean)
        moments.mean, moments.variance = mean, variance
        return moments

    def part(self, which: slice | Tensor) -> RunningMoments:
        """The moments of some of the n: views of them for a slice, copies for numbers."""
        return RunningMoments.of(self.mean[which], self.variance[which])

    def follow(self, seen: Standardised) -> None:
        """Move by a tenth towards the moments of a batch ``[n, batch, size]``."""
        batch = seen.values.shape[-2]
        self.mean.lerp_(seen.mean, _MOMENTUM)
        self.variance.lerp_(seen.variance * (batch / (batch - 1)), _MOMENTUM)

    def folded(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``[n, size, .]`` and biases ``[n, .]`` of first layers that standardise as well.

        To raw values they do what ``first`` ``[n, size + 1, .]``, its last row the bias, does to those that
        are standardised.
        """
        weights = first[:, :-1] * _scale(self.variance).unsqueeze(-1)
        return weights, first[:, -1] - (self.mean.unsqueeze(-2) @ weights).squeeze(-2)

    def standardise(self, values: Tensor) -> Tensor:
        """``values`` ``[n, batch, size]`` by the running moments."""
        return _scaled(values, self.mean, self.variance)


def _scale(variance: Tensor) -> Tensor:
    return torch.rsqrt(variance + _EPSILON)


def _scaled(values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (values - mean.unsqueeze(-2)).mul_(_scale(variance).unsqueeze(-2))
