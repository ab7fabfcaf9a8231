"""Joint critics that are perceptrons: every agent's own, on everybody's observations and actions.

What a critic of agent i reads is

    x = [number of i, one-hot (n) | o^1 .. o^n, each its own size | a^1 .. a^n, one-hot | 1]

with observations standardised by the batch, as MAAC's critic reads them. The number is there because the
critic is the consensus variable: the parameters of all devices are averaged, though every agent has a reward
of its own, and an average can tell whose return it is asked for by the number alone. COMA's critic (Foerster
et al., AAAI 2018) puts out the values of all own actions, Q^i(o, (., a^-i)), and the block of the own action
is left empty.

On a GPU all agents of a block are one batched product each, on a CPU each has its own
(`f2a2_sim.learners.joint.lone_mlp`). The first layer is most of an update, and its inputs often
differ in the actions alone, as (o, a) and (o, a~) do: what observations add to it is computed once for all
such *variants*, and so is its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from f2a2_sim.learners.joint.lone_mlp import LoneMlps, passes_of
from f2a2_sim.learners.products import LEAK, linear, multiply_transposed, write_transposed
from f2a2_sim.learners.stacked import Buffers, MlpArrays, MlpShape, StackedMlp
from f2a2_sim.learners.standardise import centred_and_scale


@dataclass(frozen=True)
class JointInputs:
    """What ``b`` critics read of ``batch`` transitions in ``m`` variants, variant after variant."""

    common: Tensor  # number and observations [b, batch, common]
    variants: Tensor  # actions, and a 1 behind them [b, m * batch, n * actions + 1]
    joined: Tensor | None = None  # of a single variant: both in one piece [b, batch, inputs + 1]

    def variant(self, which: int) -> JointInputs:
        """One of the variants, a view."""
        if self.joined is not None:
            return self
        batch = self.common.shape[1]
        return JointInputs(self.common, self.variants[:, which * batch : (which + 1) * batch])

    def whole(self) -> Tensor:
        """The same as one array ``[b, m * batch, inputs + 1]``."""
        m = self.variants.shape[1] // self.common.shape[1]
        return torch.cat([self.common.repeat(1, m, 1), self.variants], dim=-1)


class JointInputLayout:
    """Where things stand in x, for a world with observations of ``sizes`` and ``n_actions`` actions each."""

    def __init__(self, sizes: Sequence[int], n_actions: int) -> None:
        self.n_agents = len(sizes)
        self.n_actions = n_actions
        self.common = self.n_agents + sum(sizes)
        self.width = self.common + self.n_agents * n_actions
        """Numbers in x, the 1 not counted."""
        self._groups: list[tuple[slice, slice, int]] = []  # agents, their columns, size of each
        agent, column = 0, self.n_agents
        for size, members in groupby(sizes):
            count = len(list(members))
            self._groups.append(
                (slice(agent, agent + count), slice(column, column + count * size), size),
            )
            agent, column = agent + count, column + count * size

    def write_common(self, common: Tensor, own: Tensor, observations: Tensor) -> None:
        """Numbers and standardised observations into ``common`` ``[b, batch, common]``; see `inputs`."""
        number = common[..., : self.n_agents]
        number.zero_().scatter_(-1, own.view(-1, 1, 1).expand(-1, common.shape[1], 1), 1.0)
        centred, scale = centred_and_scale(observations.transpose(1, 2).flatten(2))
        shape = (self.n_agents, -1)
        centred, scale = torch.unflatten(centred, -1, shape), torch.unflatten(scale, -1, shape)
        for agents, columns, size in self._groups:
            place = torch.unflatten(common[..., columns], -1, (-1, size))
            torch.mul(centred[..., agents, :size], scale[..., agents, :size], out=place)

    def write_actions(
        self, variants: Tensor, own: Tensor, actions: Sequence[Tensor], own_asked: bool
    ) -> None:
        """One-hot actions and a 1 into ``variants`` ``[b, m * batch, n * actions + 1]``; see `inputs`."""
        joined = actions[0] if len(actions) == 1 else torch.cat(list(actions), dim=2)
        first = self.n_actions * torch.arange(self.n_agents, device=joined.device)
        variants.zero_().scatter_(-1, joined.transpose(1, 2) + first, 1.0)
        if own_asked:
            block = self._own_block(own).unsqueeze(1).expand(-1, joined.shape[2], -1)
            variants.scatter_(-1, block, 0.0)
        variants[..., -1] = 1.0

    def own_action_columns(self, own: Tensor) -> Tensor:
        """Columns of x that hold the own action: int64 ``[b, actions]``."""
        return self.common + self._own_block(own)

    def _own_block(self, own: Tensor) -> Tensor:
        every = torch.arange(self.n_actions, device=own.device)
        return own.unsqueeze(-1) * self.n_actions + every


class JointMlpCritic:
    """Passes of a block of critics; inputs and activations lie in buffers that the next ones overwrite.

    ``shape`` has `JointInputLayout.width` inputs, 1 output (``[Q]``) or one for every own action, and as many
    branches as there are twins. Threads need one each.
    """

    def __init__(self, layout: JointInputLayout, shape: MlpShape) -> None:
        assert shape.inputs == layout.width, "a critic reads what its layout says"
        self.layout = layout
        self.shape = shape
        self._passes: dict[tuple[int, int, torch.dtype], StackedMlp | LoneMlps] = {}
        self._buffer = Buffers()

    def inputs(
        self, own: Tensor, observations: Tensor, actions: Sequence[Tensor], own_asked: bool = False
    ) -> JointInputs:
        """Inputs of the critics of agents ``own`` ``[b]`` for variants that differ in their actions.

        ``observations`` is ``[b, n, batch, largest size]``, what lies behind an agent's own size is not read;
        each of ``actions`` int64 ``[b, n, batch]``. ``own_asked``: the block of the own action stays empty.
        """
        b, n, batch, _ = observations.shape
        cut, width = self.layout.common, n * self.layout.n_actions + 1
        joined = None
        if len(actions) == 1:
            joined = self._buffer("joined", (b, batch, cut + width), observations)
            common, variants = joined[..., :cut], joined[..., cut:]
        else:
            common = self._buffer("common", (b, batch, cut), observations)
            variants = self._buffer("variants", (b, len(actions) * batch, width), observations)
        self.layout.write_common(common, own, observations)
        self.layout.write_actions(variants, own, actions, own_asked)
        return JointInputs(common, variants, joined)

    def forward(self, parameters: MlpArrays, inputs: JointInputs) -> Tensor:
        """Values ``[twins, b, m * batch, outputs]``."""
        network, cut, joined = self._network(inputs), self.layout.common, inputs.joined
        if joined is not None:
            return network.forward(parameters, joined)
        common, variants = inputs.common, inputs.variants
        if isinstance(network, LoneMlps):
            first = []
            by_agent = zip(common.unbind(0), variants.unbind(0), parameters.alone, strict=True)
            for seen, done, arrays in by_agent:
                wide = linear(done, arrays.first[cut:])
                torch.unflatten(wide, 0, (-1, len(seen))).add_(linear(seen, arrays.first[:cut]))
                first.append(torch.nn.functional.leaky_relu_(wide, LEAK))
            return network.forward_from_first(parameters, first)
        above, below = parameters.first[:, :cut], parameters.first[:, cut:]
        wide = self._by_variant(network.first, inputs)
        torch.add((variants @ below).view_as(wide), (common @ above).unsqueeze(1), out=wide)
        return network.forward_from_first(parameters)

    def backward(
        self, parameters: MlpArrays, inputs: JointInputs, q_gradient: Tensor, out: MlpArrays
    ) -> None:
        """Write the parameters' gradient to ``out``, for dL/dQ ``[twins, b, m * batch, outputs]``.

        The last `forward` of that size must have been that of ``inputs``.
        """
        network, cut, joined = self._network(inputs), self.layout.common, inputs.joined
        if joined is not None:
            network.backward(parameters, joined, q_gradient, out)
            return
        common, variants = inputs.common, inputs.variants
        if isinstance(network, LoneMlps):
            first = network.backward_to_first(parameters, q_gradient, out)
            each = zip(common.unbind(0), variants.unbind(0), first, out.alone, strict=True)
            for seen, done, gradient, into in each:
                write_transposed(done, gradient, into.first[cut:])
                if len(seen) != len(done):
                    gradient = torch.unflatten(gradient, 0, (-1, len(seen))).sum(dim=0)
                write_transposed(seen, gradient, into.first[:cut])
            return
        network.backward_to_first(parameters, q_gradient, out)
        gradient = network.first_gradient
        multiply_transposed(variants, gradient, out.first[:, cut:])
        if common.shape[1] != variants.shape[1]:
            gradient = self._by_variant(gradient, inputs).sum(dim=1)
        multiply_transposed(common, gradient, out.first[:, :cut])

    def own_action_gradient(
        self, parameters: MlpArrays, inputs: JointInputs, own: Tensor, q_gradient: Tensor
    ) -> Tensor:
        """dL/da^i ``[b, m * batch, actions]``, for dL/dQ as in `backward`; of parameters no gradient."""
        network = self._network(inputs)
        columns = self.layout.own_action_columns(own)
        each = torch.arange(columns.shape[0], device=own.device).unsqueeze(-1)
        weights = parameters.first[each, columns].mT
        if isinstance(network, LoneMlps):
            first = network.backward_to_first(parameters, q_gradient, None)
            return torch.stack([linear(g, weight) for g, weight in zip(first, weights, strict=True)])
        network.backward_to_first(parameters, q_gradient, None)
        return torch.bmm(network.first_gradient, weights)

    def activations(self, batch: int, variants: int) -> int:
        """Numbers that one agent's passes hold at once, inputs included."""
        layout, rows = self.layout, batch * variants
        inputs = 2 * batch * layout.common + rows * (layout.width - layout.common + 1)
        shapes = StackedMlp.memory_shapes(self.shape, 1, rows)
        buffers = sum(torch.Size(shape).numel() for shape in shapes)
        return inputs + buffers

    @staticmethod
    def _by_variant(array: Tensor, inputs: JointInputs) -> Tensor:
        """``[b, m * batch, .]`` -> ``[b, m, batch, .]``."""
        return torch.unflatten(array, 1, (-1, inputs.common.shape[1]))

    def _network(self, inputs: JointInputs) -> StackedMlp | LoneMlps:
        b, rows, _ = inputs.variants.shape
        key = (b, rows, inputs.variants.dtype)
        if key not in self._passes:
            self._passes[key] = passes_of(self.shape, b, rows, inputs.variants)
        return self._passes[key]
