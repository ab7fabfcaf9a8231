"""What the world and the agents say to each other: the fields of each kind of message, checked on arrival.

===========  ==========  ================================================================================
hello        to world    an agent is there, and where its peers reach it; repeated until it is welcomed
ready        to world    its links to its neighbours stand
act          to world    tensor ``action``: the action for a step, ``[]`` or ``[rollouts]``
report       to world    what it has done since it started; tensors ``sketch`` of its shared parameters,
                         ``dual`` (a sketch too) and ``spans`` for the timeline, if that of it is kept
final        to world    the run is over for it; tensors ``parameters``, and those of `ZmqCarrier.link_table`
ping         to world    what time is it
welcome      to agent    the scenario, and the time of the run; tensor ``start``, the parameters that it
                         begins with, where those are of another run
refuse       to agent    it cannot take part, and why
roster       to agent    where everybody is, and who is there
observe      to agent    tensors ``observations`` ``[agents, rollouts, widest]``, and after the first step
                         ``reward`` and ``played``, of its own; with joint critics and accessible information
                         everybody's; with information by the network ``acting``, who acts on it
pong         to agent    the time of the run
stop         to agent    the run is over
taken        to agent    its final parameters have come
===========  ==========  ================================================================================

Between agents: ``copy`` (`network.zmq_carrier`) of parameters, or of a step where those come by message, and
``policy`` where learners know each other's policies.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from network.wire import Message

WORLD = -1
"""The world's number as a sender."""


class Fields(BaseModel):
    """The fields of one kind of message: closed, and strict about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Kind = TypeVar("Kind", bound=Fields)


class Hello(Fields):
    endpoint: str = Field(max_length=256)
    software: str = Field(max_length=64)
    updates: int = Field(ge=0)
    """Updates that it has made before: above 0 it has come back from a checkpoint."""


class Ready(Fields):
    pass


class Act(Fields):
    step: int = Field(ge=0)


class Report(Fields):
    """Totals since the agent's first start, except ``statistics``, ``ages_s`` and ``update_s``, which are
    since the last report."""

    step: int = Field(ge=0)
    updates: int = Field(ge=0)
    rounds: int = Field(ge=0)
    statistics: dict[str, float]
    statistics_count: int = Field(ge=0)
    dual_norm: float
    counts: dict[str, int]
    ages_s: list[float] = Field(max_length=4096)
    update_s: list[float] = Field(max_length=4096)
    busy_act_s: float = Field(ge=0.0)
    busy_learn_s: float = Field(ge=0.0)
    busy_mix_s: float = Field(ge=0.0)
    peak_memory_bytes: int = Field(ge=0)


class Final(Fields):
    pass


class Ping(Fields):
    asked_s: float


class Welcome(Fields):
    scenario: str = Field(max_length=60_000)
    """YAML of the resolved scenario."""
    run_id: str = Field(max_length=64)
    """Fingerprint of scenario and start: a checkpoint of another run is not gone on with."""
    run_s: float
    observation_sizes: list[int]
    action_counts: list[int]
    """Of every agent."""
    rollouts: int = Field(ge=1)


class Refuse(Fields):
    why: str = Field(max_length=2_000)


class Roster(Fields):
    endpoints: dict[str, str]
    """By the agent's number."""
    absent: list[int]


class Observe(Fields):
    step: int = Field(ge=0)
    """Steps that the world has taken in the whole run."""
    episode: int = Field(ge=0)
    episode_step: int = Field(ge=0)
    done: bool
    alive: bool
    terminated: bool
    acted: bool
    """Whether the agent's own action was taken in the step before."""
    last: bool
    """Whether the run ends with this: nothing is learnt from it any more, as in a simulation."""
    report: bool
    """Whether a report is wanted."""


class Pong(Fields):
    asked_s: float
    run_s: float


class Stop(Fields):
    why: str = Field(max_length=2_000)


class Taken(Fields):
    pass


def read(kind: type[Kind], message: Message) -> Kind | None:
    """The fields of a message, or None if they are not of that kind."""
    try:
        return kind.model_validate(dict(message.fields))
    except ValidationError:
        return None
