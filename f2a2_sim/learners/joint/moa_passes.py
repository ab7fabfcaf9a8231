"""Forward and backward passes of MOA for a block of observers (see `f2a2_sim.learners.joint.moa`).

Axes: b observers of the block, o others whom each of them models, m joint steps; a batch of pairs is o * m
long, by other and then by step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from f2a2_sim.learners.joint.moa_gru import StackedGru
from f2a2_sim.learners.joint.moa_shape import MoaArrays, MoaShape
from f2a2_sim.learners.joint.moa_store import RecentPairs
from f2a2_sim.learners.stacked import MlpArrays, MlpShape, StackedMlp, carve


@dataclass(frozen=True)
class Outcome:
    """What `MoaPasses.gradient` found, before anything is learnt from it."""

    losses: Tensor  # cross-entropy of natural and impromptu prediction [b, 2], float64
    accuracies: Tensor  # natural, impromptu, combined, of the fresh pairs [b, 3]; NaN where there are none
    character_gradient: Tensor  # [b, o, recurrent]


class MoaPasses:
    """Buffers for blocks of ``block`` observers; the next pass overwrites what the last has left."""

    def __init__(self, shape: MoaShape, block: int, like: Tensor) -> None:
        self._shape = shape
        self._block = block
        self._like = like
        self.parameters_gradient = like.new_zeros(block, shape.size)
        """What `gradient` and `character_gradient` have found ``[b, shape.size]``."""
        self._out = shape.arrays(self.parameters_gradient)
        self._recurrent: dict[tuple[int, int, bool], StackedGru] = {}
        self._perceptrons: dict[tuple[MlpShape, int], _Perceptron] = {}

    def gradient(
        self,
        arrays: MoaArrays,
        characters: Tensor,
        pairs: RecentPairs,
        others: Tensor,
        impromptu_steps: int,
    ) -> Outcome:
        """All gradients but the character network's, at ``characters`` ``[b, o, recurrent]``.

        ``others`` int64 ``[b, o]`` are those whom the pairs are of.
        """
        size, width = self._shape.observation_size, self._shape.config.recurrent_size
        b, history, o, natural_steps, _ = pairs.histories.shape
        common = min(natural_steps, impromptu_steps)

        histories = pairs.histories.flatten(2, 3)
        lengths = pairs.lengths.expand(-1, o, -1).flatten(1, 2)
        mental = self._gru(history, o * natural_steps, keeps=True)
        state = mental.forward(arrays.mental, histories, lengths)

        natural = self._natural(pairs.steps[:, :, :natural_steps, :size], characters, state, others)
        natural_logits = natural.forward(arrays.natural)
        impromptu = self._impromptu(pairs.steps[:, :, :impromptu_steps, :size], others)
        impromptu_logits = impromptu.forward(arrays.impromptu)

        both = [
            logits.view(b, o, -1, self._shape.n_actions)[:, :, :common]
            for logits in (natural_logits, impromptu_logits)
        ]
        predictions = torch.stack([*both, 0.5 * (both[0] + both[1])]).argmax(dim=-1)
        right = predictions == pairs.actions[:, :, :common]
        fresh = (pairs.held & pairs.fresh)[:, :, :common]
        accuracies = (right & fresh).sum(dim=(2, 3)) / fresh.sum(dim=(1, 2)).double()

        natural_loss, g_natural = _cross_entropy(natural_logits, pairs, natural_steps)
        impromptu_loss, g_impromptu = _cross_entropy(impromptu_logits, pairs, impromptu_steps)
        impromptu.backward(arrays.impromptu, g_impromptu, self._out.impromptu)
        natural.backward(arrays.natural, g_natural, self._out.natural)
        recurrent = arrays.natural.first[:, size : size + 2 * width]
        g_recurrent = torch.bmm(natural.first_gradient, recurrent.mT)
        mental.backward(arrays.mental, histories, g_recurrent[..., width:], self._out.mental, lengths)
        g_characters = g_recurrent[..., :width].view(b, o, natural_steps, width).sum(dim=2)
        return Outcome(torch.stack([natural_loss, impromptu_loss], dim=1), accuracies.T, g_characters)

    def character_gradient(
        self, arrays: MoaArrays, trajectories: Tensor, others: Tensor, drawn: Tensor, gradient: Tensor
    ) -> None:
        """The character network's gradient, from that of the characters ``[b, o, recurrent]``.

        ``drawn`` int64 ``[b, c]`` out of ``trajectories`` ``[steps, n, all, width]`` stand for all.
        """
        b, o, width = gradient.shape
        share = (gradient / drawn.shape[1]).unsqueeze(2)
        columns = slice(0, self._shape.recurrent.size)
        total = self.parameters_gradient[:, columns]
        part = torch.zeros_like(total)  # its padding is never written
        for number, some in enumerate(torch.split(drawn, self._shape.steps_at_once, dim=1)):
            inputs = _read(trajectories, others, some)
            network = self._gru(inputs.shape[1], inputs.shape[2], keeps=True)
            network.forward(arrays.character, inputs)
            upstream = share.expand(b, o, some.shape[1], width).flatten(1, 2)
            into = total if number == 0 else part
            network.backward(arrays.character, inputs, upstream, self._shape.recurrent.arrays(into))
            if number > 0:
                total.add_(part)

    def read_characters(self, arrays: MoaArrays, trajectories: Tensor, others: Tensor, out: Tensor) -> None:
        """Write the mean of the last states over all trajectories to ``out`` ``[b, o, recurrent]``."""
        count = trajectories.shape[2]
        out.zero_()
        every = torch.arange(count, device=out.device).expand(self._block, -1)
        for some in torch.split(every, self._shape.steps_at_once, dim=1):
            inputs = _read(trajectories, others, some)
            network = self._gru(inputs.shape[1], inputs.shape[2], keeps=False)
            states = network.forward(arrays.character, inputs)
            out.add_(states.view(*out.shape[:2], -1, out.shape[2]).sum(dim=2))
        out.div_(count)

    def predict(
        self,
        arrays: MoaArrays,
        characters: Tensor,
        given: tuple[Tensor, Tensor, Tensor],
        places: tuple[Tensor, Tensor],
        out: Tensor,
    ) -> None:
        """Write the combined logits to ``out`` ``[r, n, batch, actions]`` at ``places`` (rows, agents).

        ``given`` are observations, histories and lengths, as in `OthersModel.logits`.
        """
        observations, histories, lengths = given
        others = places[1]
        b, o = others.shape
        batch, history = histories.shape[2:4]
        at_once = self._shape.steps_at_once
        for first in range(0, batch, at_once):
            part = slice(first, min(first + at_once, batch))
            m = part.stop - part.start
            seen = observations[:, :, part][places].to(out.dtype)
            past = histories[:, :, part][places].to(out.dtype)
            past = past.permute(0, 3, 1, 2, 4).reshape(b, history, o * m, -1)
            network = self._gru(history, o * m, keeps=False)
            state = network.forward(arrays.mental, past, lengths[:, :, part][places].flatten(1, 2))
            natural = self._natural(seen, characters, state, others).forward(arrays.natural)
            impromptu = self._impromptu(seen, others).forward(arrays.impromptu)
            out[:, :, part][places] = natural.add_(impromptu).mul_(0.5).view(b, o, m, -1)

    def _natural(self, seen: Tensor, characters: Tensor, state: Tensor, others: Tensor) -> _Perceptron:
        """The natural prediction network, its inputs filled, for observations ``[b, o, m, size]``."""
        b, o, m, size = seen.shape
        width = characters.shape[2]
        network = self._perceptron(self._shape.natural, o * m)
        inputs = network.inputs.view(b, o, m, -1)
        inputs[..., :size] = seen
        inputs[..., size : size + width] = characters.unsqueeze(2)
        inputs[..., size + width : size + 2 * width] = state.view(b, o, m, width)
        self._tell(inputs, others)
        return network

    def _impromptu(self, seen: Tensor, others: Tensor) -> _Perceptron:
        """The impromptu one."""
        b, o, m, size = seen.shape
        network = self._perceptron(self._shape.impromptu, o * m)
        inputs = network.inputs.view(b, o, m, -1)
        inputs[..., :size] = seen
        self._tell(inputs, others)
        return network

    def _tell(self, inputs: Tensor, others: Tensor) -> None:
        """Write who is predicted into the last columns but one."""
        if self._shape.config.identity:
            n = self._shape.n_agents
            numbers = torch.nn.functional.one_hot(others, n).to(inputs.dtype)
            inputs[..., -1 - n : -1] = numbers.unsqueeze(2)

    def _gru(self, steps: int, sequences: int, keeps: bool) -> StackedGru:
        key = (steps, sequences, keeps)
        if key not in self._recurrent:
            with torch.inference_mode(False):
                self._recurrent[key] = StackedGru(
                    self._shape.recurrent, self._block, steps, sequences, self._like, keeps
                )
        return self._recurrent[key]

    def _perceptron(self, shape: MlpShape, batch: int) -> _Perceptron:
        key = (shape, batch)
        if key not in self._perceptrons:
            with torch.inference_mode(False):
                self._perceptrons[key] = _Perceptron(shape, self._block, batch, self._like)
        return self._perceptrons[key]


class _Perceptron:
    """A prediction network with its inputs ``[b, batch, inputs + 1]``, ones in the last column."""

    def __init__(self, shape: MlpShape, block: int, batch: int, like: Tensor) -> None:
        inputs = (block, batch, shape.inputs + 1)
        memory = carve([inputs, *StackedMlp.memory_shapes(shape, block, batch)], like)
        self.inputs = memory[0]
        self.inputs[..., -1] = 1.0
        self._network = StackedMlp(shape.hidden, memory[1:])

    @property
    def first_gradient(self) -> Tensor:
        """That of the first layer's products ``[b, batch, hidden]``."""
        return self._network.first_gradient

    def forward(self, arrays: MlpArrays) -> Tensor:
        """Logits ``[b, batch, actions]``."""
        return self._network.forward(arrays, self.inputs)[0]

    def backward(self, arrays: MlpArrays, logit_gradient: Tensor, out: MlpArrays) -> None:
        """Write the parameters' gradient to ``out``."""
        self._network.backward(arrays, self.inputs, logit_gradient.unsqueeze(0), out)


def _cross_entropy(logits: Tensor, pairs: RecentPairs, steps: int) -> tuple[Tensor, Tensor]:
    """Mean over the pairs held of -log p(a) ``[b]``, and its gradient in ``logits`` ``[b, o * steps, a]``."""
    actions = pairs.actions[:, :, :steps].flatten(1, 2).unsqueeze(2)
    held = pairs.held[:, :, :steps].flatten(1, 2).unsqueeze(2)
    weights = held.to(logits.dtype) / held.sum(dim=1, keepdim=True).clamp_min(1)
    log_p = torch.log_softmax(logits, dim=-1)
    loss = -(log_p.gather(2, actions) * weights).sum(dim=(1, 2), dtype=torch.float64)
    gradient = log_p.exp_().scatter_add_(2, actions, torch.full_like(weights, -1.0))
    return loss, gradient.mul_(weights)


def _read(trajectories: Tensor, others: Tensor, some: Tensor) -> Tensor:
    """``[b, steps, o * c, width]`` of ``others`` ``[b, o]`` in the trajectories ``some`` ``[b, c]``."""
    time = torch.arange(trajectories.shape[0], device=some.device).view(1, -1, 1, 1)
    return trajectories[time, others[:, None, :, None], some[:, None, None, :]].flatten(2, 3)
