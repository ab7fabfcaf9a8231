"""Settings: what is refused, and whether the message helps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from devices import spec
from devices.spec import (
    AlwaysOn,
    AvailabilitySpec,
    ChurnAvailability,
    DeviceProfile,
    JitterSpec,
    LognormalJitter,
    NoJitter,
    ScheduledAvailability,
    TraceAvailability,
    UniformJitter,
)

availability: TypeAdapter[AvailabilitySpec] = TypeAdapter(AvailabilitySpec)
jitter: TypeAdapter[JitterSpec] = TypeAdapter(JitterSpec)


def test_every_field_is_described() -> None:
    models = [
        model
        for _, model in inspect.getmembers(spec, inspect.isclass)
        if issubclass(model, BaseModel) and model.__module__ == spec.__name__
    ]
    assert len(models) >= 9
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description and field.description.endswith("."), f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"kind": "always"}, AlwaysOn),
        ({"kind": "schedule", "on": [[0, 10]]}, ScheduledAvailability),
        ({"kind": "churn", "mean_on_s": 5, "mean_off_s": 1, "start_on": False}, ChurnAvailability),
        ({"kind": "trace", "path": "phones.csv", "on_drop": "crash"}, TraceAvailability),
    ],
)
def test_availability_is_chosen_by_kind(data: dict[str, Any], kind: type[BaseModel]) -> None:
    parsed = availability.validate_python(data)
    assert type(parsed) is kind
    assert parsed.on_drop == data.get("on_drop", "pause")
    assert availability.validate_python(parsed.model_dump(mode="json")) == parsed


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"kind": "none"}, NoJitter),
        ({"kind": "lognormal", "sigma": 0.1}, LognormalJitter),
        ({"kind": "uniform", "low": 0.75, "high": 1.25}, UniformJitter),
    ],
)
def test_jitter_is_chosen_by_kind(data: dict[str, Any], kind: type[BaseModel]) -> None:
    assert type(jitter.validate_python(data)) is kind


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "churn", "mean_on_s": 0, "mean_off_s": 1}, "greater than 0"),
        ({"kind": "churn", "mean_on_s": float("nan"), "mean_off_s": 1}, "finite number"),
        ({"kind": "always", "on": [[0, 1]]}, "Extra inputs"),
        ({"kind": "always", "on_drop": "sleep"}, "'pause' or 'crash'"),
        ({"kind": "sometimes"}, "does not match any of the expected tags"),
        ({"kind": "schedule", "on": []}, "at least 1 item"),
        ({"kind": "schedule", "on": [[5, 5]]}, r"on\[0\] = \[5, 5\] must end after it starts"),
        ({"kind": "schedule", "on": [[-1, 5]]}, "starts before time zero"),
        ({"kind": "schedule", "on": [[0, 5], [4, 6]]}, r"on\[1\] = \[4, 6\] starts before .* ends \(5\)"),
        ({"kind": "schedule", "on": [[3, 4], [1, 2]]}, "sort the intervals"),
        ({"kind": "schedule", "on": [[0, 11]], "repeat_every_s": 10}, r"beyond repeat_every_s \(10\)"),
    ],
)
def test_wrong_availability_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        availability.validate_python(data)


def test_jitter_must_not_change_the_mean() -> None:
    with pytest.raises(ValidationError, match=r"with low: 0\.8 use high: 1\.2"):
        UniformJitter(kind="uniform", low=0.8, high=1.5)


def test_computing_must_not_draw_less_than_idling(profile: Callable[..., DeviceProfile]) -> None:
    with pytest.raises(ValidationError, match=r"active_power_w \(5\) must be at least idle_power_w \(6\)"):
        profile(idle_power_w=6)


@pytest.mark.parametrize("key", ["peak_flops", "memory_bytes", "battery_j", "efficiency"])
def test_figures_must_be_positive(key: str, profile: Callable[..., DeviceProfile]) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        profile(**{key: 0})


def test_specs_are_frozen_and_hashable() -> None:
    schedule = ScheduledAvailability(kind="schedule", on=((0.0, 1.0),))
    assert hash(schedule) == hash(ScheduledAvailability(kind="schedule", on=((0.0, 1.0),)))
    with pytest.raises(ValidationError, match="frozen"):
        schedule.on_drop = "crash"  # type: ignore[misc]
