"""Typed, frozen settings: what a device is, how its speed jitters, and when it is switched on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

DeviceKind = Literal[
    "cpu_board", "embedded_gpu", "phone", "mini_pc", "microserver", "desktop_gpu", "datacentre_gpu"
]
OnDrop = Literal["pause", "crash"]
Interval = tuple[float, float]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DeviceProfile(_Spec):
    """One kind of machine. All figures are those of the unit that computes in float32 (CPU or GPU)."""

    name: str = Field(min_length=1, description="Name by which a fleet refers to this device.")
    description: str = Field(default="", description="What the device is, in one sentence.")
    kind: DeviceKind = Field(description="Class of machine.")
    peak_flops: float = Field(gt=0, description="Peak float32 operations per second (an FMA counts as two).")
    efficiency: float = Field(
        gt=0, le=1, description="Share of the peak that small dense layers reach, once a kernel runs."
    )
    memory_bandwidth_bytes_per_s: float = Field(gt=0, description="Bytes per second to and from main memory.")
    memory_bytes: float = Field(gt=0, description="Memory that the learner may fill, in bytes.")
    launch_overhead_s: float = Field(ge=0, description="Fixed cost of starting one kernel, in seconds.")
    idle_power_w: float = Field(ge=0, description="Power drawn while on and idle, in watts.")
    active_power_w: float = Field(ge=0, description="Power drawn while computing, in watts.")
    battery_j: float | None = Field(
        default=None, gt=0, description="Energy of a full battery in joules; null for mains power."
    )
    sources: dict[str, str] = Field(
        default_factory=dict, description="Where each figure comes from: field name to citation."
    )

    @model_validator(mode="after")
    def _computing_draws_no_less_than_idling(self) -> Self:
        if self.active_power_w < self.idle_power_w:
            raise ValueError(
                f"active_power_w ({self.active_power_w:g}) must be at least "
                f"idle_power_w ({self.idle_power_w:g}); swap them if they were mixed up"
            )
        return self


class CustomProfile(_Spec):
    """A device of the user's own: a catalogue profile with some figures changed, or all figures given."""

    based_on: str | None = Field(
        default=None, description="Catalogue profile that supplies every figure not given here."
    )
    description: str | None = Field(default=None, description="What the device is, in one sentence.")
    kind: DeviceKind | None = Field(default=None, description="Class of machine.")
    peak_flops: float | None = Field(default=None, gt=0, description="Peak float32 operations per second.")
    efficiency: float | None = Field(default=None, gt=0, le=1, description="Share of the peak reached.")
    memory_bandwidth_bytes_per_s: float | None = Field(
        default=None, gt=0, description="Bytes per second to and from main memory."
    )
    memory_bytes: float | None = Field(default=None, gt=0, description="Memory in bytes.")
    launch_overhead_s: float | None = Field(
        default=None, ge=0, description="Fixed cost of starting one kernel, in seconds."
    )
    idle_power_w: float | None = Field(default=None, ge=0, description="Watts while on and idle.")
    active_power_w: float | None = Field(default=None, ge=0, description="Watts while computing.")
    battery_j: float | None = Field(
        default=None, gt=0, description="Energy of a full battery in joules; null for mains or the base's."
    )
    sources: dict[str, str] = Field(
        default_factory=dict, description="Where each figure comes from: field name to citation."
    )


class NoJitter(_Spec):
    """Every piece of work takes exactly its modelled time."""

    kind: Literal["none"] = Field(default="none", description="No jitter.")


class LognormalJitter(_Spec):
    """Multiplier exp(sigma Z - sigma^2 / 2), Z standard normal: mean one, long right tail."""

    kind: Literal["lognormal"] = Field(description="Lognormal multiplier of mean one.")
    sigma: float = Field(gt=0, description="Standard deviation of the multiplier's logarithm.")


class UniformJitter(_Spec):
    """Multiplier uniform on [low, high), centred on one so that mean durations stay as modelled."""

    kind: Literal["uniform"] = Field(description="Uniform multiplier of mean one.")
    low: float = Field(ge=0, lt=1, description="Smallest multiplier.")
    high: float = Field(gt=1, description="Largest multiplier; low + high = 2.")

    @model_validator(mode="after")
    def _mean_is_one(self) -> Self:
        if abs(self.low + self.high - 2.0) > 1e-9:
            raise ValueError(
                f"low ({self.low:g}) and high ({self.high:g}) must average one, so that jitter does not "
                f"change mean durations; with low: {self.low:g} use high: {2.0 - self.low:g}"
            )
        return self


JitterSpec = Annotated[NoJitter | LognormalJitter | UniformJitter, Field(discriminator="kind")]


class _Availability(_Spec):
    on_drop: OnDrop = Field(
        default="pause",
        description="What switching off does: pause keeps state and unfinished work, crash loses them.",
    )


class AlwaysOn(_Availability):
    """The device is on from the start, and stays on (until its battery is empty, if it has one)."""

    kind: Literal["always"] = Field(default="always", description="Never off.")


class ScheduledAvailability(_Availability):
    """The device is on in given intervals [start_s, end_s) of virtual time, once or periodically."""

    kind: Literal["schedule"] = Field(description="On at given times.")
    on: tuple[Interval, ...] = Field(
        min_length=1, description="Intervals [start_s, end_s) in which the device is on, in order."
    )
    repeat_every_s: float | None = Field(
        default=None, gt=0, description="Period after which the schedule repeats; null for once."
    )

    @model_validator(mode="after")
    def _intervals_in_order(self) -> Self:
        check_intervals(self.on, self.repeat_every_s, "on")
        return self


class ChurnAvailability(_Availability):
    """The device alternates between on and off for exponentially distributed times."""

    kind: Literal["churn"] = Field(description="Random on and off times.")
    mean_on_s: float = Field(gt=0, description="Mean duration of an on time, in seconds.")
    mean_off_s: float = Field(gt=0, description="Mean duration of an off time, in seconds.")
    start_on: bool = Field(default=True, description="Whether the device is on at time zero.")


class TraceAvailability(_Availability):
    """The device follows a recorded trace; agent i follows the trace's device i modulo their number."""

    kind: Literal["trace"] = Field(description="On at recorded times.")
    path: str = Field(
        min_length=1, description="CSV file with columns device, start_s, end_s: one on interval per row."
    )
    repeat_every_s: float | None = Field(
        default=None, gt=0, description="Period after which the trace repeats; null for once."
    )


AvailabilitySpec = Annotated[
    AlwaysOn | ScheduledAvailability | ChurnAvailability | TraceAvailability, Field(discriminator="kind")
]


def check_intervals(intervals: tuple[Interval, ...], repeat_every_s: float | None, key: str) -> None:
    """Raise ValueError unless the intervals are non-empty, in order, disjoint and within the period."""
    previous_end = 0.0
    for index, (start_s, end_s) in enumerate(intervals):
        where = f"{key}[{index}] = [{start_s:g}, {end_s:g}]"
        if start_s < 0:
            raise ValueError(f"{where} starts before time zero; use start_s >= 0")
        if end_s <= start_s:
            raise ValueError(f"{where} must end after it starts; write it as [start_s, end_s]")
        if start_s < previous_end:
            raise ValueError(
                f"{where} starts before the interval in front of it ends ({previous_end:g}); "
                "sort the intervals and merge those that overlap"
            )
        previous_end = end_s
    if repeat_every_s is not None and previous_end > repeat_every_s:
        raise ValueError(
            f"{key} reaches {previous_end:g} s, beyond repeat_every_s ({repeat_every_s:g}); "
            "shorten the intervals or lengthen the period"
        )
