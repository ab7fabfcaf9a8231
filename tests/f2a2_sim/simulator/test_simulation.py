"""What happens in virtual time, against times and counts worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from devices.unit import ACT
from f2a2_sim.consensus.schemes import PushSum
from tests.f2a2_sim.simulator.conftest import CHURNING, Simulate, finish, scenario_of, simulation_of

ALONE = {"consensus": {"scheme": "none"}}
COMING_AND_GOING = {"kind": "churn", "mean_on_s": 1.0, "mean_off_s": 0.15}
NEVER_LEARN = {"learner": {"update_every_steps": 10**6}, **ALONE}


def board(**changes: Any) -> dict[str, Any]:
    return {"devices": {"custom_profiles": {"board": changes}}}


def test_in_lockstep_a_step_takes_observation_action_and_the_way_back(simulate: Simulate) -> None:
    simulation = simulate(NEVER_LEARN, {"duration": {"episodes": 1}})
    act_s = float(simulation.parts.compute.modelled_s(simulation.parts.population.fleets[0].act_work)[0])
    assert simulation.now_s == pytest.approx(30 * (0.001 + act_s + 0.001) + 0.001, rel=1e-12)
    assert simulation.metrics()["missed_deadlines"] == 0


def test_acting_waits_for_an_update_under_way_and_goes_before_one_that_has_not_begun(
    simulate: Simulate,
) -> None:
    """The whole episode's clock, from a recurrence of its own: every device is alike, so one tells all."""
    simulation = simulate(ALONE, {"duration": {"episodes": 1}})
    fleet, compute = simulation.parts.population.fleets[0], simulation.parts.compute
    act_s, update_s = (float(compute.modelled_s(w)[0]) for w in (fleet.act_work, fleet.update_work))
    observed_s, free_s = 0.001, 0.0
    for step in range(30):
        acted_s = max(observed_s, free_s) + act_s
        learns = step > 0 and step % 2 == 0 and step >= 8  # every 2nd step, from 8 transitions on
        free_s = acted_s + (update_s if learns else 0.0)
        observed_s = acted_s + 0.002
    assert simulation.now_s == pytest.approx(observed_s, rel=1e-12)
    assert simulation.training.updates.tolist() == [11] * 12


def test_in_realtime_a_slow_device_misses_every_deadline_and_the_default_action_is_played(
    simulate: Simulate,
) -> None:
    slow = board(peak_flops=1e3)
    simulation = simulate(slow, NEVER_LEARN, {"world": {"mode": "realtime", "period_s": 0.05}})
    metrics = simulation.recorder.metrics()
    alive_steps = 2 * 30 * 12 - int(np.nansum(metrics["deaths"][metrics["episode_end"]]))
    assert simulation.metrics()["missed_deadlines"] >= 0.9 * alive_steps
    assert simulation.episodes.play.actions_taken.sum() == 0
    assert simulation.now_s == pytest.approx(2 * (30 * 0.05 + 0.001), rel=1e-9)
    assert metrics["return_mean_per_agent"][-1] == pytest.approx(-0.005 * 30, abs=0.2)


def test_in_realtime_a_fast_device_misses_none(simulate: Simulate) -> None:
    simulation = simulate(NEVER_LEARN, {"world": {"mode": "realtime", "period_s": 0.05}})
    assert simulation.metrics()["missed_deadlines"] == 0


@pytest.mark.parametrize("scheme", ["paper", "gossip", "none"])
def test_messages_are_conserved_whatever_happens(simulate: Simulate, scheme: str) -> None:
    simulation = simulate(CHURNING, {"consensus": {"scheme": scheme}})
    row = simulation.metrics()
    ended = sum(
        row[fate] for fate in ("delivered", "lost", "queue_dropped", "absent_dropped", "expired", "in_flight")
    )
    assert row["sent"] + row["duplicated"] == ended
    if scheme == "none":
        assert row["sent"] == 0
    else:
        assert min(row["sent"], row["delivered"], row["lost"], row["absent_dropped"]) > 0


def test_consensus_keeps_agents_together_and_its_absence_does_not(simulate: Simulate) -> None:
    """Same learning, gossip against none: disagreement tells them apart."""
    fast = {"network": {"link": {"latency": {"kind": "constant", "value_s": 1e-4}, "bandwidth_bps": None}}}
    often = {"consensus": {"interval": {"mean_updates": 1, "std_updates": 0}}, "duration": {"episodes": 3}}
    gossip = simulate(fast, often, {"consensus": {"scheme": "gossip"}}).metrics()["disagreement"]
    alone = simulate(fast, often, {"consensus": {"scheme": "none"}}).metrics()["disagreement"]
    assert gossip < 0.5 * alone


def test_waiting_for_neighbours_is_the_papers_synchronous_algorithm(simulate: Simulate) -> None:
    """Complete graph, no loss, everybody waits: the duals of all agents sum to zero, bit noise aside."""
    simulation = simulate(
        {
            "consensus": {
                "wait": "neighbours",
                "wait_timeout_s": 100.0,
                "interval": {"mean_updates": 1, "std_updates": 0},
            },
            "network": {
                "topology": {"kind": "complete"},
                "link": {"latency": {"kind": "constant", "value_s": 1e-4}, "bandwidth_bps": None},
            },
        }
    )
    learner: Any = simulation.parts.population.fleets[0].learner
    simulation.parts.population.settle()
    dual = learner.dual.numpy()
    rounds = simulation.exchange.round
    assert rounds.min() == rounds.max() > 15
    assert np.abs(dual).max() > 1e-6
    assert np.abs(dual.sum(0)).max() < 1e-3 * np.abs(dual).max()
    metrics = simulation.recorder.metrics()
    assert (metrics["dual_mean_norm"] <= 1e-3 * metrics["dual_norm"]).all()


def test_what_losses_leave_in_all_duals_is_on_record(simulate: Simulate) -> None:
    """One copy of two is lost: duals have much in common, and the newest row of metrics says how much."""
    simulation = simulate({"network": {"link": {"loss": {"kind": "bernoulli", "probability": 0.5}}}})
    learner: Any = simulation.parts.population.fleets[0].learner
    dual = learner.dual.numpy().astype(np.float64)
    last = {name: column[-1] for name, column in simulation.recorder.metrics().items()}
    np.testing.assert_allclose(last["dual_norm"], np.linalg.norm(dual, axis=1).mean(), rtol=1e-6)
    np.testing.assert_allclose(last["dual_mean_norm"], np.linalg.norm(dual.mean(0)), rtol=1e-6)
    assert 0.02 * last["dual_norm"] < last["dual_mean_norm"] < last["dual_norm"]


def test_a_wait_ends_at_its_timeout_when_a_copy_is_lost(simulate: Simulate) -> None:
    lossy = {"network": {"link": {"loss": {"kind": "bernoulli", "probability": 1.0}}}}
    waiting = {"consensus": {"wait": "neighbours", "wait_timeout_s": 0.02}}
    simulation = simulate(lossy, waiting, {"record": {"timeline_agents": 12}})
    timeline = simulation.recorder.timeline()
    waits = (timeline["end_s"] - timeline["start_s"])[timeline["kind"] == "wait"]
    assert len(waits) > 10
    np.testing.assert_allclose(waits, 0.02, rtol=1e-9)


def test_devices_that_were_off_join_the_round_of_the_others(simulate: Simulate) -> None:
    """After many drop-outs all are in one round, as many rounds as the fastest device's updates make."""
    fast = {"network": {"link": {"latency": {"kind": "constant", "value_s": 1e-4}, "bandwidth_bps": None}}}
    phones = {"profile": "board", "share": 0.5, "availability": COMING_AND_GOING}
    simulation = simulate(
        fast,
        {
            "duration": {"episodes": 6},
            "world": {"mode": "realtime", "period_s": 0.02},
            "consensus": {
                "wait": "neighbours",
                "wait_timeout_s": 0.015,
                "interval": {"mean_updates": 4, "std_updates": 0},
            },
            "network": {"topology": {"kind": "complete"}},
            "devices": {"fleet": [{"profile": "board", "share": 0.5}, phones]},
        },
    )
    updates, rounds = simulation.training.updates, simulation.exchange.round
    assert updates.max() - updates.min() > 8  # two rounds' worth and more were missed
    on = simulation.presence.powered
    assert on.sum() > 6
    assert rounds[on].min() == rounds[on].max()
    assert updates.max() // 4 <= rounds.max() <= 1.25 * updates.max() / 4


def test_a_pause_keeps_what_was_learned_and_a_crash_loses_it(simulate: Simulate) -> None:
    """One drop-out of every device near the end; the replay tells what is left."""
    held = {}
    for on_drop in ("pause", "crash"):
        schedule = {"kind": "schedule", "on": [[0.0, 0.6], [0.65, 1000.0]], "on_drop": on_drop}
        simulation = simulate(
            ALONE,
            {"world": {"mode": "realtime", "period_s": 0.02}, "devices": {"availability": schedule}},
        )
        held[on_drop] = simulation.parts.population.fleets[0].learner.replay.count.sum()  # type: ignore[attr-defined]
        assert simulation.off_s() == pytest.approx(np.full(12, 0.05))
    assert 0 < held["crash"] < 0.7 * held["pause"]


def test_a_crashed_agent_starts_from_the_copy_it_last_published(simulate: Simulate) -> None:
    schedule = {"kind": "schedule", "on": [[0.0, 0.9]], "on_drop": "crash"}
    simulation = simulate(
        {"consensus": {"scheme": "gossip"}},
        {"world": {"mode": "realtime", "period_s": 0.02}, "devices": {"availability": schedule}},
    )
    fleet = simulation.parts.population.fleets[0]
    assert fleet.consensus is not None
    published = fleet.consensus._published
    assert (published >= 0).all()
    rows = fleet.consensus.pool.row_of(published)
    np.testing.assert_array_equal(
        fleet.learner.shared_parameters().numpy(), fleet.consensus.pool.rows[rows].numpy()
    )
    assert (fleet.learner.replay.count == 0).all()  # type: ignore[attr-defined]


def test_after_a_crash_targets_belong_to_the_copy_that_it_starts_from(simulate: Simulate) -> None:
    simulation = simulate({"consensus": {"shared": "critic"}})
    population = simulation.parts.population
    learner: Any = population.fleets[0].learner
    parameters, critics = learner.parameters, learner.critic_columns
    population.settle()
    population.crash(5)
    torch.testing.assert_close(learner.targets[5], parameters[5, critics], rtol=0, atol=0)
    group = population.fleets[0].consensus
    assert group is not None
    published = group.pool.rows[group.pool.row_of(group._published[5:6])][0]
    torch.testing.assert_close(parameters[5, learner.consensus_columns()], published, rtol=0, atol=0)


def test_a_dead_silent_agents_battery_is_drained_by_idling_alone(simulate: Simulate) -> None:
    """Where somebody dies while its device computes, the forecast must not go on with active power."""
    simulation = simulate(
        board(battery_j=0.25),
        {
            "world": {"after_death": "silent", "opponent": "iql", "episode_steps": 150},
            "duration": {"episodes": 2},
        },
    )
    devices = simulation.devices_table()
    off = devices["off_s"] > 0
    assert off.any()
    np.testing.assert_allclose(devices["energy_j"][off], 0.25, rtol=1e-9)


def test_an_empty_battery_switches_a_device_off_for_good(simulate: Simulate) -> None:
    simulation = simulate(
        board(battery_j=2.0 * 0.5), NEVER_LEARN, {"world": {"mode": "realtime", "period_s": 0.02}}
    )
    devices = simulation.devices_table()
    assert devices["battery_empty"].all()
    np.testing.assert_allclose(devices["energy_j"], 1.0, rtol=1e-9)
    on_s = simulation.now_s - devices["off_s"]
    busy_s = devices["busy_act_s"] + devices["busy_learn_s"]
    np.testing.assert_allclose(2.0 * on_s + 3.0 * busy_s, 1.0, rtol=1e-9)


def test_when_every_device_is_off_for_good_a_lockstep_run_ends(simulate: Simulate) -> None:
    simulation = simulate(board(battery_j=0.05), NEVER_LEARN)
    assert simulation.ended == "nothing is left to happen: every device is off for good"


def test_in_lockstep_the_world_waits_for_the_first_device_to_come_back(simulate: Simulate) -> None:
    schedule = {"kind": "schedule", "on": [[0.0, 0.01], [5.0, 1000.0]], "on_drop": "pause"}
    simulation = simulate(NEVER_LEARN, {"devices": {"availability": schedule}})
    assert simulation.ended == "the last episode is over"
    assert 5.0 < simulation.now_s < 6.0


@pytest.mark.parametrize("after_death", ["keep_learning", "silent"])
def test_the_dead_go_on_learning_or_fall_silent(simulate: Simulate, after_death: str) -> None:
    """Against the trained army in a long episode many die early."""
    simulation = simulate(
        {
            "world": {"after_death": after_death, "opponent": "iql", "episode_steps": 150},
            "duration": {"episodes": 1},
            "record": {"every_steps": 1},
        }
    )
    metrics = simulation.recorder.metrics()
    some_dead = metrics["alive"] < 12
    assert some_dead.any()
    expected = metrics["alive"] if after_death == "silent" else np.full(len(metrics["alive"]), 12)
    # A row is written at the step itself; the dead fall silent when they observe it, a moment later.
    settled = some_dead & (np.diff(metrics["alive"], prepend=12) == 0)
    np.testing.assert_array_equal(metrics["online"][settled], expected[settled])


def test_the_run_ends_at_the_limit_of_virtual_time(simulate: Simulate) -> None:
    simulation = simulate({"duration": {"virtual_time_s": 0.05}})
    assert simulation.now_s <= 0.05
    assert simulation.ended == "the limit of virtual time is reached"


def test_equal_seeds_are_equal_and_other_seeds_are_not(simulate: Simulate) -> None:
    first, again, other = (simulate(CHURNING, {"seed": seed}) for seed in (5, 5, 6))
    for name, column in first.recorder.metrics().items():
        if not name.startswith("wall_"):
            np.testing.assert_array_equal(column, again.recorder.metrics()[name], err_msg=name)
    assert first.recorder.metrics()["virtual_time_s"][-1] != other.recorder.metrics()["virtual_time_s"][-1]


def test_losses_do_not_change_what_agents_draw(simulate: Simulate) -> None:
    """With learning off, agents behave the same over a perfect and a hopeless network."""
    frozen = {"learner": {"learning_rate": 1e-300}, "consensus": {"beta": 0.0}}
    hopeless = {"network": {"link": {"loss": {"kind": "bernoulli", "probability": 0.9}}}}
    perfect, lossy = simulate(frozen), simulate(frozen, hopeless)
    assert lossy.metrics()["lost"] > 0 == perfect.metrics()["lost"]
    for name in ("return_mean_per_agent", "hits", "virtual_time_s"):
        np.testing.assert_array_equal(perfect.recorder.metrics()[name], lossy.recorder.metrics()[name])


def test_energy_is_idle_power_plus_what_computing_adds(simulate: Simulate) -> None:
    simulation = simulate(CHURNING)
    devices = simulation.devices_table()
    on_s = simulation.now_s - devices["off_s"]
    busy_s = devices["busy_act_s"] + devices["busy_learn_s"]
    np.testing.assert_allclose(devices["energy_j"], 2.0 * on_s + 3.0 * busy_s, rtol=1e-12)
    assert (devices["off_s"] > 0).any()
    assert not math.isnan(simulation.metrics()["utilisation"])


def test_an_action_is_chosen_with_the_parameters_from_when_it_was_begun() -> None:
    """With gossip, averaging can end between an action and the world's step; the action must not see it."""
    simulation = simulation_of(scenario_of({"consensus": {"scheme": "gossip"}, "duration": {"episodes": 1}}))
    mix_done = simulation.computing._mix_done
    mixed, late = [], []

    def watched(agent: int) -> None:
        running = simulation.parts.units.running(agent)
        acting_now = running is not None and running.kind == ACT
        mixed.append(agent)
        if agent in simulation.computing._begun_acts and not acting_now:
            late.append(agent)
        mix_done(agent)

    simulation.computing._mix_done = watched
    simulation.start()
    finish(simulation)
    assert len(mixed) > 10
    assert late == []


def test_agents_of_one_shape_share_their_mass_among_themselves(simulate: Simulate) -> None:
    """Others discard what they get: mass sent to them would be gone, and push-sum divides by what is left."""
    simulation = simulate(
        {
            "world": {"env": "ctc", "agents": None, "episode_steps": 60},
            "consensus": {"scheme": "push_sum", "interval": {"mean_updates": 1, "std_updates": 0}},
            "network": {"topology": {"kind": "complete"}},
        }
    )
    fleets = simulation.parts.population.fleets
    assert sorted(len(fleet.ids) for fleet in fleets) == [2, 6]
    for fleet in fleets:
        assert fleet.consensus is not None
        scheme = fleet.consensus.scheme
        assert isinstance(scheme, PushSum)
        count, pool = len(fleet.ids), fleet.consensus.pool
        sent = (count - 1) * float(scheme._sigma_weight.sum())
        taken = sum(float(pool.number_of(v)) for v in scheme._consumed.ravel() if v >= 0)
        under_way = sent - taken
        assert under_way > 0
        assert scheme.weight.sum() + under_way == pytest.approx(count, abs=1e-9)
        assert torch.isfinite(fleet.learner.parameters).all()
