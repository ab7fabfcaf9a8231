"""A made-up run folder: small, and shaped like a real one (fates add up, time goes forward)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.recorder import Recorder
from f2a2_sim.results.report import write_report
from f2a2_sim.results.summary import Baseline, build_summary
from f2a2_sim.results.tables import DEVICES, LINKS

PROFILES = ("raspberry_pi_5", "jetson_nano", "jetson_orin_nano", "rtx_3060")
MakeRun = Callable[..., RunFolder]


def ring_plus_random(n: int, extra: float, rng: np.random.Generator) -> list[tuple[int, int]]:
    pairs = {(i, (i + 1) % n) for i in range(n)}
    while len(pairs) < n * (1 + extra):
        a, b = (int(x) for x in rng.integers(n, size=2))
        if a != b and (b, a) not in pairs:
            pairs.add((a, b))
    return sorted(pairs | {(b, a) for a, b in pairs})


def write_synthetic_run(
    path: Path,
    *,
    agents: int = 12,
    episodes: int = 12,
    battle: bool = True,
    complete: bool = False,
    status: Literal["finished", "interrupted", "running"] = "finished",
    baseline: bool = True,
    seed: int = 0,
    gain: float = 1.0,
    scenario: str = "synthetic",
) -> RunFolder:
    """Write a whole run folder of invented numbers; ``gain`` scales how much is learned."""
    rng = np.random.default_rng(seed)
    folder = RunFolder.create(scenario, out=path)
    recorder = Recorder(timeline_agents=8, timeline_events=4000)
    steps, period_s, rows_per_episode = 200, 0.011, 10
    pairs = (
        [(i, j) for i in range(agents) for j in range(agents) if i != j]
        if complete
        else ring_plus_random(agents, 0.2, rng)
    )
    links = np.array(pairs)
    loss = np.clip(rng.beta(1.2, 12, size=len(links)), 0, 1)
    totals = {
        name: np.zeros(len(links), dtype=np.int64)
        for name in ("sent", "delivered", "lost", "queue_dropped", "absent_dropped", "expired", "duplicated")
    }
    fates = list(totals)
    updates = missed = in_flight = 0
    now, wall = 0.0, 0.0
    nothing = float("nan")
    values: dict[str, Any] = {}
    for episode in range(episodes):
        progress = gain * (1 - np.exp(-3 * episode / episodes))
        final = -1.6 + 1.1 * progress + rng.normal(0, 0.06)
        hits = max(
            0.0,
            30
            - 26 * min(1, episode / episodes * 4)
            + 180 * gain * max(0, episode / episodes - 0.35)
            + rng.normal(0, 4),
        )
        kills = float(round(hits / 11))
        deaths = float(round(6 + rng.normal(0, 1.5) + 0.02 * hits))
        for part in range(1, rows_per_episode + 1):
            now += steps / rows_per_episode * period_s * (1 + rng.normal(0, 0.02))
            wall += 0.31 + rng.normal(0, 0.01)
            updates += agents * 5 if episode else 0
            if episode:
                sent = rng.poisson(5, size=len(links))
                lost = rng.binomial(sent, loss)
                queued = rng.binomial(sent - lost, 0.01)
                absent = rng.binomial(sent - lost - queued, 0.03)
                totals["sent"] += sent
                totals["lost"] += lost
                totals["queue_dropped"] += queued
                totals["absent_dropped"] += absent
                old = rng.binomial(sent - lost - queued - absent, 0.01)
                totals["expired"] += old
                extra = rng.binomial(sent, 0.002)
                totals["duplicated"] += extra
                totals["delivered"] += sent - lost - queued - absent - old + extra
                recorder.ages(rng.lognormal(-4.5, 0.6, size=200))
            in_flight = int(rng.integers(0, 4)) if episode else 0
            counted = {name: int(totals[name].sum()) for name in fates}
            counted["delivered"] -= in_flight
            end = part == rows_per_episode
            share = part / rows_per_episode
            values = dict(
                virtual_time_s=now,
                env_steps=(episode * rows_per_episode + part) * steps // rows_per_episode,
                episode=episode,
                episode_step=part * steps // rows_per_episode,
                episode_end=end,
                updates=updates,
                return_mean_per_agent=final * share,
                hits=float(round(hits * share)) if battle else nothing,
                kills=float(round(kills * share)) if battle else nothing,
                deaths=float(round(deaths * share)) if battle else nothing,
                alive=agents - int(deaths * share),
                win=(float(rng.random() < 0.3 + 0.5 * progress) if end and battle else nothing),
                online=agents - int(rng.integers(0, 2)),
                entropy=3.04 - 0.9 * progress + rng.normal(0, 0.02) if episode else nothing,
                q_mean=-0.5 + 0.6 * progress + rng.normal(0, 0.01) if episode else nothing,
                td_abs=0.02 + 0.1 * np.exp(-episode) + rng.normal(0, 0.001) if episode else nothing,
                critic_loss=0.01 + 0.02 * np.exp(-episode) if episode else nothing,
                moa_accuracy=nothing,
                dual_norm=0.1 * progress,
                dual_mean_norm=0.02 * progress,
                disagreement=(2.0 * np.exp(-episode / 3) + 0.35 + rng.normal(0, 0.02)) if episode else 0.0,
                **counted,
                in_flight=in_flight,
                bytes_sent=counted["sent"] * 150_000,
                missed_deadlines=missed,
                utilisation=0.42 + rng.normal(0, 0.01),
                energy_j=5.2 * agents * now,
                wall_time_s=wall,
                wall_world_s=0.31 * wall,
                wall_learning_s=0.52 * wall,
                wall_network_s=0.05 * wall,
                wall_consensus_s=0.08 * wall,
                wall_other_s=0.04 * wall,
            )
            recorder.row(**values)
        recorder.episode(
            episode=episode,
            virtual_time_s=now,
            env_steps=values["env_steps"],
            updates=updates,
            return_mean_per_agent=values["return_mean_per_agent"],
            return_std=0.2,
            return_min=final - 0.5,
            return_max=final + 0.7,
            hits=values["hits"],
            kills=values["kills"],
            deaths=values["deaths"],
            win=values["win"],
            steps=steps,
            disagreement=values["disagreement"],
        )
    record_timeline(recorder, agents, period_s, rng)
    names = np.array([PROFILES[i * len(PROFILES) // agents] for i in range(agents)])
    speed = np.array([1.0, 0.8, 0.4, 0.1])[[PROFILES.index(name) for name in names]]
    devices: dict[str, Any] = {
        "agent": np.arange(agents),
        "name": [f"red_{i}" for i in range(agents)],
        "profile": names,
        "link": np.where(np.arange(agents) % 3 == 0, "lte", "wifi_5"),
        "busy_act_s": 0.2 * now * speed,
        "busy_learn_s": 0.5 * now * speed,
        "off_s": np.where(np.arange(agents) % 5 == 0, 0.15 * now, 0.0),
        "utilisation": 0.7 * speed * (1 + rng.normal(0, 0.03, size=agents)),
        "energy_j": now * (3 + 5 * speed) * (1 + rng.normal(0, 0.02, size=agents)),
        "battery_empty": np.zeros(agents, dtype=bool),
        "updates": np.full(agents, updates // agents),
        "consensus_rounds": np.full(agents, updates // agents),
        "actions": np.full(agents, episodes * steps),
        "missed_deadlines": np.zeros(agents, dtype=np.int64),
        "return_mean": rng.normal(-1, 0.2, size=agents),
    }
    assert set(devices) == set(DEVICES.names)
    folder.write_scenario(
        yaml.safe_dump(resolved_scenario(scenario, agents, episodes, seed, battle), sort_keys=False)
    )
    recorder.write(folder)
    folder.write_table(DEVICES, devices)
    folder.write_table(
        LINKS,
        {
            "sender": links[:, 0],
            "receiver": links[:, 1],
            **totals,
            "latency_mean_s": rng.lognormal(-4.5, 0.3, size=len(links)),
            "currently_connected": np.ones(len(links), dtype=bool),
        },
    )
    folder.write_summary(
        build_summary(
            scenario=scenario,
            seed=seed,
            agents=agents,
            status=status,
            totals=values,
            metrics=recorder.metrics(),
            episodes=recorder.episodes(),
            devices=devices,
            staleness_s=recorder.staleness_s(),
            baseline=Baseline(
                episodes=3,
                return_mean_per_agent=-1.42,
                hits=38.0 if battle else None,
                kills=0.33 if battle else None,
                deaths=5.7 if battle else None,
            )
            if baseline
            else None,
            peak_memory_bytes=3_200_000_000,
        )
    )
    folder.log_file.write_text("started\n")
    return folder


def record_timeline(recorder: Recorder, agents: int, period_s: float, rng: np.random.Generator) -> None:
    """Eight devices that act each step, learn each fourth, and broadcast after learning."""
    shown = min(8, agents)
    free = np.zeros(shown)
    for step in range(60):
        begin = step * period_s
        for agent in range(shown):
            if agent == 3 and 20 <= step < 28:
                if step == 20:
                    recorder.event(agent, "off", begin, begin + 8 * period_s)
                continue
            start = max(begin, float(free[agent]))
            end = start + 0.0012 * (1 + agent % 3) * (1 + rng.normal(0, 0.1))
            recorder.event(agent, "act", start, end)
            free[agent] = end
            if step % 4 == 3 and step > 12:
                done = end + 0.004 * (1 + agent % 3)
                recorder.event(agent, "learn", end, done)
                free[agent] = done
                for hop, peer in enumerate(((agent - 1) % agents, (agent + 1) % agents)):
                    sent = done + 0.0015 * (hop + 1)
                    recorder.event(agent, "send", sent - 0.0015, sent, peer, 150_000)
                    if rng.random() > 0.1:
                        arrival = sent + float(rng.exponential(0.004))
                        recorder.event(peer, "receive", arrival, arrival, agent)
            recorder.event(agent, "wait", float(free[agent]), max(begin + period_s, float(free[agent])))


def resolved_scenario(name: str, agents: int, episodes: int, seed: int, battle: bool) -> dict[str, Any]:
    return {
        "name": name,
        "seed": seed,
        "duration": {"episodes": episodes, "env_steps": None, "virtual_time_s": None, "wall_time_s": 840.0},
        "world": {
            "env": "battle" if battle else "pettingzoo.mpe:simple",
            "agents": agents,
            "opponent": "random",
        },
        "learner": {"name": "f2a2_isac", "hidden_size": 128, "learning_rate": 1e-4, "discount": 0.95},
        "consensus": {"scheme": "paper", "beta": 0.01, "interval": {"mean_updates": 1, "std_updates": 0}},
        "devices": {"fleet": [{"profile": p, "share": 0.25, "link": "wifi_5"} for p in PROFILES]},
        "network": {"topology": {"kind": "ring_plus_random", "share": 0.2}, "link": {"profile": "wifi_5"}},
        "record": {"every_steps": 20, "timeline_agents": 8},
    }


@pytest.fixture(scope="session")
def reported_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with its report, for tests that only read."""
    folder = write_synthetic_run(tmp_path_factory.mktemp("reported") / "run")
    write_report(folder.path)
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run(name, **settings)`` writes a made-up run folder and returns it."""

    def make(name: str = "run", **settings: Any) -> RunFolder:
        return write_synthetic_run(tmp_path / name, **settings)

    return make
