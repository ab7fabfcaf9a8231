"""The keys that a scenario may have: a walk over the schema, and the nearest right key to a wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from f2a2_sim.scenario.yaml_source import KeyPath, dotted

_CLOSE_ENOUGH = 0.6


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of the schema, dotted; list items appear as ``0`` and free names as ``NAME``."""
    for name, info in model.model_fields.items():
        key = f"{prefix}{name}"
        yield key
        for step, child in _children(info.annotation):
            yield from known_keys(child, f"{key}.{step}" if step else f"{key}.")


def names_at(model: type[BaseModel], path: KeyPath, section: Any = None) -> list[str]:
    """Names of the keys that may stand under ``path``; empty where free names or values stand.

    Where the schema has several kinds of section there, ``section`` (its data) tells by its ``kind`` which.
    """
    kind = section.get("kind") if isinstance(section, dict) else None
    models = [
        model
        for model in _models_at(model, path)
        if kind is None or kind in _kinds(model) or not _kinds(model)
    ]
    return sorted({name for candidate in models for name in candidate.model_fields})


def kinds_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The words that ``kind`` may be in the section at ``path``."""
    return [kind for candidate in _models_at(model, path) for kind in _kinds(candidate)]


def kinds_with(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The kinds of the section around ``path`` that do have a key of its last name."""
    candidates = [c for c in _models_at(model, path[:-1]) if str(path[-1]) in c.model_fields]
    return [kind for candidate in candidates for kind in _kinds(candidate)]


def _models_at(model: type[BaseModel], path: KeyPath) -> list[type[BaseModel]]:
    here: list[tuple[str, type[BaseModel]]] = [("", model)]
    for part in path:
        below: list[tuple[str, type[BaseModel]]] = []
        for step, candidate in here:
            if step:
                below.append(("", candidate))
            elif str(part) in candidate.model_fields:
                below.extend(_children(candidate.model_fields[str(part)].annotation))
        here = below
    return [candidate for step, candidate in here if not step]


def default_at(model: type[BaseModel], path: KeyPath) -> Any:
    """The default of the section or list at ``path`` as plain data; None where it has none."""
    models: list[type[BaseModel]] = [model]
    for position, part in enumerate(path):
        info = models[0].model_fields.get(str(part)) if len(models) == 1 else None
        if info is None:
            return None
        if not info.is_required():
            value = to_jsonable_python(info.get_default(call_default_factory=True))
            return _value_at(value, path[position + 1 :])
        models = [child for step, child in _children(info.annotation) if not step]
    return None


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        if not isinstance(data, dict):
            return None
        data = data.get(str(part))
    return data


def nearest_key(model: type[BaseModel], path: KeyPath, section: Any = None) -> str | None:
    """The right key that a wrong one most likely stands for: beside it, or elsewhere by that name."""
    *parent, last = path
    wrong = str(last)
    beside = get_close_matches(wrong, names_at(model, tuple(parent), section), n=1, cutoff=_CLOSE_ENOUGH)
    if beside and beside[0] != wrong:
        return dotted((*parent, beside[0]))
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(list(known_keys(model)))}
    other = get_close_matches(wrong, list(elsewhere), n=1, cutoff=0.8)
    return elsewhere[other[0]] if other else None


def _kinds(model: type[BaseModel]) -> tuple[str, ...]:
    """The values of the model's ``kind``, if it is one of several kinds that stand at one place."""
    info = model.model_fields.get("kind")
    return get_args(info.annotation) if info is not None else ()


def _children(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Models in an annotation, each with the step to it: "" direct, "0." in a list, "NAME." by name."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
    elif origin in (Union, UnionType, Annotated):
        for part in get_args(annotation):
            yield from _children(part)
    elif origin in (tuple, list):
        for _, child in _children(get_args(annotation)[0]):
            yield "0.", child
    elif origin is dict:
        for _, child in _children(get_args(annotation)[1]):
            yield "NAME.", child
