"""The catalogue of real devices, and how a name in a scenario becomes a profile."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from types import MappingProxyType

import yaml
from pydantic import ValidationError

from devices.spec import CustomProfile, DeviceProfile

CATALOG_FILE = "catalog.yaml"


class UnknownDeviceError(ValueError):
    """A device name that is in neither the catalogue nor the custom profiles."""


class CustomProfileError(ValueError):
    """A custom profile that lacks figures, or whose figures contradict each other."""


@functools.cache
def load_catalog() -> Mapping[str, DeviceProfile]:
    """All profiles shipped with this package, by name, in the order of the file."""
    text = resources.files("devices").joinpath(CATALOG_FILE).read_text(encoding="utf-8")
    return MappingProxyType(
        {
            name: DeviceProfile.model_validate({"name": name, **figures})
            for name, figures in yaml.safe_load(text).items()
        }
    )


def device_profile(name: str, custom: Mapping[str, CustomProfile] | None = None) -> DeviceProfile:
    """The profile of that name: the user's own if there is one, else the catalogue's."""
    custom = custom or {}
    if name in custom:
        return _custom_profile(name, custom[name])
    return _catalogued(name, [*custom, *load_catalog()])


def _custom_profile(name: str, custom: CustomProfile) -> DeviceProfile:
    given = custom.model_dump(exclude_none=True, exclude={"based_on", "sources"})
    base: dict[str, object] = {}
    inherited_sources: dict[str, str] = {}
    if custom.based_on is not None:
        profile = _catalogued(custom.based_on, load_catalog(), f"custom profile '{name}', based_on: ")
        base = profile.model_dump(exclude={"name", "sources"})
        inherited_sources = {key: text for key, text in profile.sources.items() if key not in given}
    required = [key for key, field in DeviceProfile.model_fields.items() if field.is_required()]
    missing = [key for key in required if key != "name" and key not in base and key not in given]
    if missing:
        raise CustomProfileError(
            f"custom profile '{name}' lacks {', '.join(missing)}; give them, or set based_on to a "
            "catalogue profile that supplies them"
        )
    sources = {**inherited_sources, **custom.sources}
    try:
        return DeviceProfile.model_validate({**base, **given, "name": name, "sources": sources})
    except ValidationError as error:
        reasons = "; ".join(str(problem["msg"]) for problem in error.errors())
        raise CustomProfileError(f"custom profile '{name}': {reasons}") from error


def _catalogued(name: str, known: Iterable[str], where: str = "") -> DeviceProfile:
    catalog = load_catalog()
    if name in catalog:
        return catalog[name]
    names = list(known)
    spelt = name.lower().replace("-", "_").replace(" ", "_")
    begun = [known_name for known_name in names if spelt and known_name.startswith(spelt)]
    nearest = begun or difflib.get_close_matches(spelt, names, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    raise UnknownDeviceError(
        f"{where}unknown device '{name}'; {hint}Known devices: {', '.join(names)}; "
        "describe any other under custom_profiles"
    )
