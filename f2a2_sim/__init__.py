"""f2a2-sim: a discrete-event simulator for decentralised multi-agent reinforcement learning on edge devices.

>>> import f2a2_sim
>>> scenario = f2a2_sim.load_scenario("quickstart", ["seed=2"])
>>> result = f2a2_sim.run(scenario)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from f2a2_sim.api import RunResult, resume, run
    from f2a2_sim.scenario.load import load_scenario
    from f2a2_sim.scenario.schema import Scenario

__version__ = "0.1.0"
__all__ = ["RunResult", "Scenario", "__version__", "load_scenario", "resume", "run"]

_HOMES = {
    "RunResult": "f2a2_sim.api",
    "Scenario": "f2a2_sim.scenario.schema",
    "load_scenario": "f2a2_sim.scenario.load",
    "resume": "f2a2_sim.api",
    "run": "f2a2_sim.api",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use (PEP 562), so that `import f2a2_sim` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'f2a2_sim' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
