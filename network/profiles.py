"""Links of real networks by name (profiles.yaml), and the link specs that users derive from them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from network.errors import LinkError
from network.spec import LinkSpec

_CATALOGUE = Path(__file__).with_name("profiles.yaml")


class LinkProfile(BaseModel):
    """A named link with the sources of its figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name by which a scenario uses the profile.")
    description: str = Field(description="What network it stands for.")
    link: LinkSpec = Field(description="The link's figures.")
    sources: dict[str, str] = Field(description="Where each figure comes from, by key of the link.")


@cache
def link_profiles() -> dict[str, LinkProfile]:
    """All shipped profiles by name."""
    entries = yaml.safe_load(_CATALOGUE.read_text(encoding="utf-8"))
    return {name: LinkProfile(name=name, **entry) for name, entry in entries.items()}


def resolve_link(
    choice: str | Mapping[str, Any], custom: Mapping[str, Mapping[str, Any]] | None = None
) -> LinkSpec:
    """The link that a user means.

    ``choice`` is the name of a profile, or keys of a link; beside a key ``profile`` they replace its keys.
    ``custom`` holds the user's own links by name, which may start from a profile too. Raises LinkError
    for an unknown name, and pydantic's ValidationError for wrong keys.
    """
    return LinkSpec.model_validate(_keys_of(choice, dict(custom or {}), ()))


def _keys_of(
    choice: str | Mapping[str, Any], custom: dict[str, Mapping[str, Any]], path: tuple[str, ...]
) -> Any:
    keys = {"profile": choice} if isinstance(choice, str) else dict(choice)
    name = keys.pop("profile", None)
    if name is None:
        return keys
    if name in path:
        raise LinkError(
            "profile", name, "links that do not start from each other", f"break the circle {path}"
        )
    if name in custom:
        return {**_keys_of(custom[name], custom, (*path, name)), **keys}
    shipped = link_profiles()
    if name in shipped:
        return {**shipped[name].link.model_dump(exclude_unset=True), **keys}
    known = [*custom, *shipped]
    near = get_close_matches(str(name), known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "choose one of them, or define it under custom_links"
    raise LinkError("profile", name, f"one of {', '.join(known)}", remedy)
