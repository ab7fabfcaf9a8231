"""The catalogue of links: every figure has a source, and every profile carries messages."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from network.errors import LinkError
from network.profiles import link_profiles, resolve_link
from network.spec import LognormalLatency
from tests.network.helpers import complete, drain, send

NAMES = list(link_profiles())


def test_the_networks_that_are_promised_are_there() -> None:
    promised = "loopback ethernet_1g ethernet_100m wifi_5 wifi_6 lte 5g "
    promised += "lora_sf7 lora_sf12 satellite_leo satellite_geo"
    assert set(promised.split()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source(name: str) -> None:
    profile = link_profiles()[name]
    assert set(profile.sources) == set(profile.link.model_fields_set)
    assert all(len(source) > 20 for source in profile.sources.values())
    assert profile.description


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_carries_a_short_message(name: str) -> None:
    c = complete(12, link_profiles()[name].link)
    send(c, 0.0, range(12), size_bytes=20)
    assert len(drain(c)) > 60


def test_faster_networks_are_faster() -> None:
    order = ["loopback", "ethernet_1g", "ethernet_100m", "wifi_6", "5g", "lte", "satellite_geo", "lora_sf7"]
    means = []
    for name in order:
        c = complete(12, resolve_link({"profile": name, "arq": None}))
        sends = send(c, 0.0, range(12), size_bytes=2000)
        means.append(sends.arrival_s.mean())
    assert means == sorted(means)


def test_keys_beside_a_profile_replace_its_own() -> None:
    link = resolve_link(
        {"profile": "wifi_5", "bandwidth_bps": 1e6, "loss": {"kind": "bernoulli", "probability": 0.1}}
    )
    assert link.bandwidth_bps == 1e6 and link.ordered
    assert isinstance(link.latency, LognormalLatency) and link.latency.median_s == 0.003


def test_own_links_may_start_from_profiles_and_from_each_other() -> None:
    custom: dict[str, dict[str, Any]] = {
        "slow": {"profile": "lte", "bandwidth_bps": 1000},
        "slower": {"profile": "slow", "ordered": False},
        "a": {"profile": "b"},
        "b": {"profile": "a"},
    }
    link = resolve_link("slower", custom)
    assert (link.bandwidth_bps, link.ordered, link.mtu_bytes) == (1000, False, 1500)
    with pytest.raises(LinkError, match="break the circle"):
        resolve_link("a", custom)


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(LinkError, match=r"profile = 'wifi5': expected one of .*did you mean 'wifi_5'"):
        resolve_link("wifi5")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"loss_per": "packet"}, "loss_per = 'packet': expected a packet size; set mtu_bytes"),
        ({"queue_packets": 3}, "queue_packets = 3: expected a finite bandwidth"),
        (
            {"latency": {"kind": "uniform", "low_s": 2, "high_s": 1}},
            "latency.high_s = 1.0: expected at least low_s",
        ),
        ({"latency": {"kind": "constant", "value_s": -1}}, "greater than or equal to 0"),
        ({"loss": {"kind": "bernoulli", "probability": 1.2}}, "less than or equal to 1"),
        (
            {"loss": {"kind": "gilbert_elliott", "p_good_to_bad": 0, "p_bad_to_good": 0}},
            "a chain that can change",
        ),
        ({"bandwith_bps": 5}, "bandwith_bps"),
    ],
)
def test_contradictory_links_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        resolve_link(keys)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "at least one delay"), ("0.1\nfast\n", ":2: fast"), ("0.1,-2", ":1: -2"), ("nan", "a finite time")],
)
def test_bad_trace_files_say_where(tmp_path: Any, text: str, words: str) -> None:
    path = tmp_path / "delays.txt"
    path.write_text(text)
    with pytest.raises(LinkError) as error:
        complete(3, resolve_link({"latency": {"kind": "trace", "path": str(path)}}))
    assert words in str(error.value)


def test_overrides_leave_the_transmitter_alone() -> None:
    plain, queued = (
        resolve_link({"bandwidth_bps": 1e6}),
        resolve_link({"bandwidth_bps": 1e6, "queue_packets": 2}),
    )
    with pytest.raises(
        LinkError, match=r"link_overrides\[0, 1\].queue_packets = 2: expected the sender's own"
    ):
        complete(3, plain, link_overrides={(0, 1): queued})
    with pytest.raises(LinkError, match=r"agent numbers from 0 to 2"):
        complete(3, plain, link_overrides={(0, 3): plain})
    with pytest.raises(LinkError, match="one link spec for each of 3 agents"):
        complete(3, [plain])
