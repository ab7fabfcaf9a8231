"""Keys of one world and some agents, the processes that use them, and the ends of links."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from network.keys import WORLD, Identity, Members, agent_name, load_identity, make_keys
from network.spec import TopologySpec
from tests.network.carrier_ends import Make, RealEnds, securities_of
from tests.network.processes import Deployment


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Members, dict[str, Identity]]:
    names = [WORLD, *(agent_name(number) for number in range(4))]
    path = make_keys(tmp_path_factory.mktemp("deployment") / "keys", names)
    return Members.load(path), {name: load_identity(path.parent / f"{name}.key") for name in names}


@pytest.fixture
def secure(keys: tuple[Members, dict[str, Identity]]) -> Iterator[Deployment]:
    deployment = Deployment(*keys, curve=True)
    yield deployment
    deployment.close()


@pytest.fixture(params=["curve", "insecure"])
def deployment(
    request: pytest.FixtureRequest, keys: tuple[Members, dict[str, Identity]]
) -> Iterator[Deployment]:
    """With keys, and without."""
    made = Deployment(*keys, curve=request.param == "curve")
    yield made
    made.close()


@pytest.fixture
def real() -> Iterator[Make]:
    """Makes ends over sockets, whose links stand."""
    with ExitStack() as stack:

        def make(n_agents: int, topology: TopologySpec, kind: str = "insecure", **more: Any) -> RealEnds:
            ends = RealEnds(stack, securities_of(kind, n_agents), topology, **more)
            ends.connect()
            return ends

        yield make
