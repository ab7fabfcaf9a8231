"""Tables of what is shipped (devices, links, scenarios) for the command line."""

from __future__ import annotations

from rich import box
from rich.table import Table

from devices.catalog import device_profile, load_catalog
from f2a2_sim.errors import UsageError
from f2a2_sim.scenario.load import shipped_scenarios
from f2a2_sim.scenario.yaml_source import parse_yaml
from network.profiles import link_profiles, resolve_link

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_GIB = 1024.0**3


def device_table() -> Table:
    """Every device of the catalogue, a line each; sources are shown for one device."""
    table = _list("Devices", "f2a2-sim profiles devices NAME: every figure with its source")
    table.add_column("kind", no_wrap=True)
    table.add_column("FLOP/s", justify="right", no_wrap=True)
    table.add_column("used", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("power", justify="right", no_wrap=True)
    for name, profile in load_catalog().items():
        table.add_row(
            name,
            profile.kind,
            short(profile.peak_flops).strip(),
            f"{profile.efficiency:.0%}",
            f"{profile.memory_bytes / _GIB:.0f} GiB",
            f"{profile.idle_power_w:g}-{profile.active_power_w:g} W",
        )
    return table


def device_details(name: str) -> Table:
    """Every figure of one device, with its source; UsageError for an unknown name."""
    try:
        profile = device_profile(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return _details(
        name,
        profile.description,
        profile.model_dump(exclude={"name", "description", "sources"}),
        profile.sources,
    )


def link_table() -> Table:
    """Every link of the catalogue, a line each."""
    table = _list("Links", "f2a2-sim profiles links NAME: every figure with its source")
    table.add_column("sends", justify="right", no_wrap=True)
    table.add_column("latency", no_wrap=True)
    table.add_column("loss", no_wrap=True)
    table.add_column("what it is")
    for name, profile in link_profiles().items():
        link = profile.link
        rate = "unlimited" if link.bandwidth_bps is None else f"{short(link.bandwidth_bps)}bit/s"
        table.add_row(name, rate, link.latency.kind, link.loss.kind, profile.description)
    return table


def link_details(name: str) -> Table:
    """Every figure of one link, with its source; UsageError for an unknown name."""
    try:
        resolve_link(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    profile = link_profiles()[name]
    return _details(name, profile.description, profile.link.model_dump(), profile.sources)


def scenario_table() -> Table:
    """The shipped scenarios, each with the first line of its comment."""
    table = _list("Scenarios", "f2a2-sim run NAME")
    table.add_column("world")
    table.add_column("what it shows")
    for name, path in shipped_scenarios().items():
        text = path.read_text(encoding="utf-8")
        world = parse_yaml(text, name).data["world"]
        agents = f"{world['agents']} agents" if "agents" in world else ""
        table.add_row(
            name, f"{world.get('env', 'battle')} {agents}".strip(), text.partition("\n")[0].lstrip("# ")
        )
    return table


def _list(title: str, hint: str) -> Table:
    table = Table(
        title=title, caption=hint, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("name", no_wrap=True)
    return table


def short(value: float) -> str:
    """A large number with a unit prefix: 76800000000.0 -> ``76.8 G``."""
    for size, prefix in _LARGE:
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "


def _details(name: str, description: str, figures: dict[str, object], sources: dict[str, str]) -> Table:
    table = Table(title=f"{name}: {description}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("key", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("source")
    for key, value in figures.items():
        table.add_row(key, _shown(value), sources.get(key, ""))
    return table


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value)
