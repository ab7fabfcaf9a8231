"""summary.json has the keys it promises, valid JSON also where there is no number, and comes back equal."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from f2a2_sim.results.summary import Baseline, Summary, versions
from f2a2_sim.results.tables import DEVICES, EPISODES, METRICS

_KEYS = {
    *("scenario", "seed", "versions", "status", "clock", "agents", "env_steps", "episodes", "updates"),
    *("virtual_time_s", "wall_time_s", "wall_breakdown_s", "return_mean_per_agent", "hits", "kills"),
    *("deaths", "win", "baseline", "messages", "bytes_sent", "staleness_s", "disagreement"),
    *("missed_deadlines", "device_utilisation", "energy_j", "peak_memory_bytes"),
}


def test_keys_and_numbers_agree_with_the_tables(make_run: Any) -> None:
    folder = make_run()
    data = json.loads(folder.summary_file.read_text())
    assert set(data) == _KEYS
    metrics, episodes = folder.read_table(METRICS), folder.read_table(EPISODES)
    assert data["env_steps"] == metrics["env_steps"][-1] == 2400
    assert data["return_mean_per_agent"] == episodes["return_mean_per_agent"].tolist()
    assert data["kills"] == episodes["kills"].tolist()
    messages = data["messages"]
    fates = ("delivered", "lost", "queue_dropped", "absent_dropped", "expired", "in_flight")
    assert messages["sent"] == metrics["sent"][-1]
    assert messages["sent"] + messages["duplicated"] == sum(messages[fate] for fate in fates)
    assert set(data["wall_breakdown_s"]) == {"world", "learning", "network", "consensus", "other"}
    assert data["disagreement"]["first"] == metrics["disagreement"][0]
    assert data["disagreement"]["last"] == metrics["disagreement"][-1]
    devices = folder.read_table(DEVICES)
    nano = devices["utilisation"][devices["profile"] == "jetson_nano"]
    assert data["device_utilisation"]["jetson_nano"] == pytest.approx(nano.mean())
    assert {"python", "numpy", "torch", "magent2"} <= set(data["versions"]) <= set(versions())


def test_it_comes_back_equal(make_run: Any) -> None:
    summary = make_run().read_summary()
    assert Summary.from_json(summary.to_json()) == summary


def test_what_is_no_number_is_null(make_run: Any) -> None:
    folder = make_run(battle=False, baseline=False)
    text = folder.summary_file.read_text()
    assert "NaN" not in text and "Infinity" not in text
    data = json.loads(text)
    assert data["kills"] == [None] * 12
    assert data["baseline"] is None
    assert Baseline(episodes=1, return_mean_per_agent=np.float64(np.nan), hits=float("inf")).hits is None


def test_an_unknown_key_is_refused(make_run: Any) -> None:
    data = json.loads(make_run().summary_file.read_text())
    data["extra"] = 1
    with pytest.raises(ValueError, match="extra"):
        Summary.from_json(json.dumps(data))
