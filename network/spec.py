"""What a user may write about links, graphs and partitions: frozen, typed, with units in the names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from network.errors import LinkError, TopologyError

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- latency


class ConstantLatency(_Spec):
    """Every message takes the same time."""

    kind: Literal["constant"] = "constant"
    value_s: Seconds = Field(description="One-way propagation delay of every message.")


class UniformLatency(_Spec):
    """Delay uniform on an interval."""

    kind: Literal["uniform"] = "uniform"
    low_s: Seconds = Field(description="Shortest one-way delay.")
    high_s: Seconds = Field(description="Longest one-way delay.")

    @model_validator(mode="after")
    def _ordered(self) -> UniformLatency:
        if self.high_s < self.low_s:
            raise LinkError(
                "latency.high_s",
                self.high_s,
                f"at least low_s = {self.low_s}",
                "swap the two or raise high_s",
            )
        return self


class NormalLatency(_Spec):
    """Normal delay, conditioned on not being negative."""

    kind: Literal["normal"] = "normal"
    mean_s: Seconds = Field(description="Mean of the normal distribution before it is cut at 0.")
    std_s: Seconds = Field(description="Standard deviation of the normal distribution before it is cut at 0.")


class LognormalLatency(_Spec):
    """``offset_s + median_s * exp(sigma * z)``, z standard normal."""

    kind: Literal["lognormal"] = "lognormal"
    median_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = Field(
        description="Median of the random part of the delay."
    )
    sigma: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        description="Standard deviation of the natural logarithm of the random part."
    )
    offset_s: Seconds = Field(default=0.0, description="Fixed part of the delay, added to the random one.")


class ParetoLatency(_Spec):
    """``offset_s`` plus a Pareto delay: P(delay > x) = (minimum_s / x) ** shape."""

    kind: Literal["pareto"] = "pareto"
    minimum_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = Field(
        description="Smallest value of the random part."
    )
    shape: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = Field(
        description="Tail exponent; the mean is finite above 1, the variance above 2."
    )
    offset_s: Seconds = Field(default=0.0, description="Fixed part of the delay, added to the random one.")


class TraceLatency(_Spec):
    """Delays recorded in a file: seconds, separated by new lines, commas or blanks."""

    kind: Literal["trace"] = "trace"
    path: str = Field(
        description="Text or CSV file of one-way delays in seconds; lines that start with # are skipped."
    )
    order: Literal["in_order", "random"] = Field(
        default="random",
        description="in_order: the k-th message of each link takes the k-th delay, in a circle; random: any.",
    )


LatencySpec = Annotated[
    ConstantLatency | UniformLatency | NormalLatency | LognormalLatency | ParetoLatency | TraceLatency,
    Field(discriminator="kind"),
]


# ---------------------------------------------------------------- loss


class NoLoss(_Spec):
    """Nothing is lost on the way."""

    kind: Literal["none"] = "none"


class BernoulliLoss(_Spec):
    """Each message or packet is lost independently."""

    kind: Literal["bernoulli"] = "bernoulli"
    probability: Probability = Field(description="Probability that one message or packet is lost.")


class GilbertElliottLoss(_Spec):
    """Bursts: a two-state Markov chain per link, one step per message or packet.

    Gilbert (1960), "Capacity of a burst-noise channel"; Elliott (1963), "Estimates of error rates for
    codes on burst-noise channels" (both Bell System Technical Journal). The stationary probability of
    the bad state is p_good_to_bad / (p_good_to_bad + p_bad_to_good), its mean sojourn 1 / p_bad_to_good.
    """

    kind: Literal["gilbert_elliott"] = "gilbert_elliott"
    p_good_to_bad: Probability = Field(
        description="Probability of turning bad after a step in the good state."
    )
    p_bad_to_good: Probability = Field(
        description="Probability of turning good after a step in the bad state."
    )
    loss_good: Probability = Field(default=0.0, description="Loss probability of a step in the good state.")
    loss_bad: Probability = Field(default=1.0, description="Loss probability of a step in the bad state.")

    @model_validator(mode="after")
    def _moves(self) -> GilbertElliottLoss:
        if self.p_good_to_bad + self.p_bad_to_good == 0.0:
            raise LinkError(
                "loss.p_good_to_bad + loss.p_bad_to_good",
                0.0,
                "a chain that can change its state",
                "give at least one of the two a positive value, or use kind: bernoulli",
            )
        return self

    @property
    def stationary_bad(self) -> float:
        """Long-run share of steps in the bad state."""
        return self.p_good_to_bad / (self.p_good_to_bad + self.p_bad_to_good)


LossSpec = Annotated[NoLoss | BernoulliLoss | GilbertElliottLoss, Field(discriminator="kind")]


# ---------------------------------------------------------------- link


class ArqSpec(_Spec):
    """Retransmission of what was lost, which turns loss into delay."""

    max_retries: Annotated[int, Field(ge=0, le=1000)] = Field(
        description="Further attempts before the message is given up as lost."
    )
    timeout_s: Seconds = Field(
        description="Wait between the end of an attempt and the start of the next one."
    )


class LinkSpec(_Spec):
    """One directed link, or all outgoing links of one device."""

    latency: LatencySpec = Field(
        default=ConstantLatency(value_s=0.0),
        description="One-way propagation delay, after the last bit has left.",
    )
    bandwidth_bps: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Bits per second of the transmitter; null = infinite, no serialisation delay.",
    )
    uplink: Literal["shared", "per_link"] = Field(
        default="shared",
        description="shared: one transmitter per device sends message after message; per_link: one per link.",
    )
    queue_packets: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Most packets that wait for the transmitter (drop-tail; the message in transmission is "
        "not counted; a message, one packet without mtu_bytes, is taken whole or not); null: no limit.",
    )
    queue_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Most bytes that wait for the transmitter (the message in transmission is not counted); "
        "null = no limit.",
    )
    mtu_bytes: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="Largest packet; a longer message travels as several; null = a message is one packet.",
    )
    loss: LossSpec = Field(default=NoLoss(), description="How messages or packets are lost on the way.")
    loss_per: Literal["message", "packet"] = Field(
        default="message",
        description="What the loss probabilities are about; a message is lost when any of its packets is.",
    )
    duplication_probability: Probability = Field(
        default=0.0, description="Probability that a second copy of an arriving message arrives too."
    )
    ordered: bool = Field(
        default=False, description="true: a message never arrives before an earlier one of the same link."
    )
    arq: ArqSpec | None = Field(
        default=None, description="Retransmission of lost messages or packets; null = none."
    )

    @model_validator(mode="after")
    def _consistent(self) -> LinkSpec:
        if self.loss_per == "packet" and self.mtu_bytes is None:
            raise LinkError(
                "loss_per",
                "packet",
                "a packet size",
                "set mtu_bytes (1500 for Ethernet), or loss_per: message",
            )
        for key in ("queue_packets", "queue_bytes"):
            if getattr(self, key) is not None and self.bandwidth_bps is None:
                raise LinkError(
                    key,
                    getattr(self, key),
                    "a finite bandwidth, because an infinite one never queues",
                    f"set bandwidth_bps, or {key}: null",
                )
        return self


# ---------------------------------------------------------------- topology


class EmptyTopology(_Spec):
    """No links at all: every agent learns alone."""

    kind: Literal["empty"] = "empty"


class CompleteTopology(_Spec):
    """Everyone is linked with everyone."""

    kind: Literal["complete"] = "complete"


class RingTopology(_Spec):
    """Each agent is linked with the one before and the one after."""

    kind: Literal["ring"] = "ring"


class RingPlusRandomTopology(_Spec):
    """A ring and a random share of all other edges (Table 4 of the paper).

    The paper calls share 0 "no edge at all"; here share 0 is the plain ring, and `kind: empty` has no edge.
    """

    kind: Literal["ring_plus_random"] = "ring_plus_random"
    share: float = Field(description="Share of the possible edges beside the ring that exist, 0 to 1.")
    redraw: Literal["never", "every_round"] = Field(
        default="every_round", description="Whether the random edges are drawn anew at each consensus round."
    )

    @model_validator(mode="after")
    def _share(self) -> RingPlusRandomTopology:
        if not 0.0 <= self.share <= 1.0:
            raise TopologyError(
                "topology.share", self.share, "a share between 0 and 1", "write 30 per cent as 0.3"
            )
        return self


class KRegularTopology(_Spec):
    """A random connected graph in which everyone has the same number of neighbours."""

    kind: Literal["k_regular"] = "k_regular"
    degree: Annotated[int, Field(ge=1)] = Field(description="Neighbours of each agent.")


class SmallWorldTopology(_Spec):
    """Watts and Strogatz: a ring lattice with some edges rewired at random, connected."""

    kind: Literal["small_world"] = "small_world"
    degree: Annotated[int, Field(ge=2)] = Field(description="Neighbours of each agent in the lattice; even.")
    rewiring_probability: Probability = Field(
        description="Probability that an edge of the lattice is rewired."
    )


class GeometricTopology(_Spec):
    """Agents at random places of the unit square; those within the radius are linked."""

    kind: Literal["geometric"] = "geometric"
    radius: Annotated[float, Field(gt=0.0, le=1.5)] = Field(description="Reach, in sides of the unit square.")
    latency_per_distance_s: Seconds = Field(
        default=0.0, description="Extra delay of a link for each unit of distance between its ends."
    )
    must_connect: bool = Field(
        default=True, description="Whether a graph that falls into pieces is an error."
    )


class EdgeListTopology(_Spec):
    """Edges given one by one, here or in a file."""

    kind: Literal["edge_list"] = "edge_list"
    edges: tuple[tuple[int, int], ...] | None = Field(
        default=None, description="Pairs [sender, receiver] of agent numbers from 0."
    )
    path: str | None = Field(
        default=None,
        description="File with two agent numbers per line (blanks or a comma between; # starts a comment).",
    )
    directed: bool = Field(default=False, description="false: each pair is a link in both directions.")

    @model_validator(mode="after")
    def _one_source(self) -> EdgeListTopology:
        if (self.edges is None) == (self.path is None):
            raise TopologyError(
                "topology.edges",
                "both or neither of edges and path given",
                "exactly one of the two",
                "list the pairs under edges, or name a file with path",
            )
        return self


TopologySpec = Annotated[
    EmptyTopology
    | CompleteTopology
    | RingTopology
    | RingPlusRandomTopology
    | KRegularTopology
    | SmallWorldTopology
    | GeometricTopology
    | EdgeListTopology,
    Field(discriminator="kind"),
]


# ---------------------------------------------------------------- partitions


class PartitionSpec(_Spec):
    """A time in which groups of agents cannot reach each other.

    A message is lost if the cut is active at the instant at which it would arrive. Agents in no group
    form one further group together.
    """

    start_s: Seconds = Field(description="Instant at which the cut begins.")
    end_s: Seconds = Field(description="Instant at which it has healed.")
    groups: tuple[tuple[int, ...], ...] | None = Field(
        default=None, description="Agent numbers of each group that stays together."
    )
    fraction: Probability | None = Field(
        default=None, description="Share of the agents, chosen at random, that is cut off from the rest."
    )

    @model_validator(mode="after")
    def _consistent(self) -> PartitionSpec:
        if self.end_s <= self.start_s:
            raise TopologyError(
                "partitions.end_s", self.end_s, f"a time after start_s = {self.start_s}", "give a later end_s"
            )
        if (self.groups is None) == (self.fraction is None):
            raise TopologyError(
                "partitions.groups",
                "both or neither of groups and fraction given",
                "exactly one of the two",
                "list the groups, or give the fraction to cut off",
            )
        named = [agent for group in self.groups or () for agent in group]
        if len(named) != len(set(named)):
            twice = next(agent for agent in named if named.count(agent) > 1)
            raise TopologyError(
                "partitions.groups",
                twice,
                "each agent in one group at most",
                "remove it from all groups but one",
            )
        return self
