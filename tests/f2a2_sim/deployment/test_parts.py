"""The parts of a deployed run, each alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from f2a2_sim.deployment import messages as say
from f2a2_sim.deployment.clock import RunClock, WallAgenda
from f2a2_sim.deployment.journal import Journal
from f2a2_sim.deployment.links import reachable
from f2a2_sim.deployment.measured import Spread
from f2a2_sim.deployment.patience import Patience
from f2a2_sim.deployment.perception import side_by_side
from f2a2_sim.deployment.policies import POLICY, Policies
from f2a2_sim.deployment.roll import Roll
from f2a2_sim.deployment.sketch import SUMS, mean_distance, norm_of_mean, sketch
from f2a2_sim.deployment.spans import Spans
from f2a2_sim.errors import RunError
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.recorder import Recorder
from f2a2_sim.simulator.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from network.wire import Message


def message(kind: str, sequence: int, sender: int = 1, **tensors: np.ndarray) -> Message:
    return Message(kind, sender, 7, sequence, 0.5, {"run": "r"}, tensors)


@given(records=st.integers(1, 5), cut=st.integers(0, 400), flip=st.booleans())
def test_a_torn_journal_is_read_up_to_its_last_whole_record(
    records: int, cut: int, flip: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path)
    for number in range(records):
        journal.append(message("transition", number, values=np.arange(number + 1, dtype=np.float32)))
    journal.close()
    whole = path.read_bytes()
    size = len(whole) // records - 1  # records grow: the first is not longer than this many bytes on average
    data = bytearray(whole[: max(len(whole) - cut, 0)])
    if flip and data:
        data[-1] ^= 1
    path.write_bytes(data)
    read = list(Journal.records(path))
    assert [m.sequence for m in read] == list(range(len(read)))
    for m in read:
        np.testing.assert_array_equal(m.tensors["values"], np.arange(m.sequence + 1, dtype=np.float32))
    assert len(read) <= records - (1 if cut or flip else 0)
    assert len(read) >= records - 2 - cut // max(size // 2, 1)


def test_zeros_that_a_power_cut_leaves_are_no_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(message("a", 1))
    journal.close()
    with open(tmp_path / "journal", "ab") as file:
        file.write(bytes(100))
    assert [m.kind for m in Journal.records(tmp_path / "journal")] == ["a"]


@pytest.mark.parametrize("left", [b"torn", bytes(40)])
def test_what_is_written_after_a_torn_record_is_read(left: bytes, tmp_path: Path) -> None:
    for number in range(3):
        journal = Journal(tmp_path / "journal")
        assert [m.sequence for m in journal.read()] == list(range(number))
        journal.append(message("a", number))
        journal.close()
        with open(tmp_path / "journal", "ab") as file:
            file.write(left)
    assert [m.sequence for m in Journal.records(tmp_path / "journal")] == [0, 1, 2]


def test_a_full_disk_is_said() -> None:
    journal = Journal.__new__(Journal)
    journal._path, journal._file = Path("/dev/full"), open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with journal._file, pytest.raises(RunError, match="/dev/full: the disk is full"):
        journal.append(message("a", 1))


def test_a_wait_in_vain_is_shorter_the_next_time() -> None:
    patience = Patience(8.0)
    assert patience.holds(True, 0.0) and patience.holds(True, 7.9)
    assert not patience.holds(True, 8.0) and not patience.holds(False, 9.0)
    assert patience.holds(True, 10.0) and not patience.holds(True, 14.0)
    assert not patience.holds(False, 14.0)
    assert patience.holds(True, 20.0) and not patience.holds(False, 21.0)  # it has paid off
    assert patience.holds(True, 30.0) and patience.holds(True, 37.9)


def test_everybodys_observations_are_one_tensor() -> None:
    seen = [np.arange(k * 2.0, dtype=np.float32).reshape(2, k) for k in (3, 1)]
    together = side_by_side(seen)
    assert together.shape == (2, 2, 3)
    for place, own in enumerate(seen):
        np.testing.assert_array_equal(together[place, :, : own.shape[1]], own)
    assert not together[1, :, 1:].any()


def test_a_journal_begins_anew_after_a_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(message("a", 1))
    journal.clear()
    journal.append(message("b", 2))
    assert [m.kind for m in journal.read()] == ["b"]
    journal.close()


def test_distances_can_be_told_from_sketches() -> None:
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(1, 50_000, generator=generator) + 0.1 * torch.randn(6, 50_000, generator=generator)
    exact = float(torch.linalg.vector_norm(vectors - vectors.mean(0), dim=1).mean())
    told = mean_distance(np.stack([sketch(v, seed=3) for v in vectors]))
    assert told == pytest.approx(exact, rel=0.15)
    assert mean_distance(np.stack([sketch(vectors[0], 3)] * 3)) == pytest.approx(0.0, abs=1e-9)
    common = float(torch.linalg.vector_norm(vectors.mean(0)))
    assert norm_of_mean(np.stack([sketch(v, seed=3) for v in vectors])) == pytest.approx(common, rel=0.15)
    opposite = np.stack([sketch(v, 3) for v in (vectors[0], -vectors[0])])
    assert norm_of_mean(opposite) == pytest.approx(0.0, abs=1e-9)


def test_a_clock_follows_the_answer_with_the_shortest_round_trip() -> None:
    now = [100.0]
    clock = RunClock(lambda: now[0])
    asked = clock.own_s()
    now[0] += 0.4
    clock.learn(asked, run_s=50.0)  # half of 0.4 s ago it was 50
    assert clock() == pytest.approx(50.2)
    asked = clock.own_s()
    now[0] += 1.0
    clock.learn(asked, run_s=0.0)  # a longer way: of no use
    assert clock() == pytest.approx(51.2)
    asked = clock.own_s()
    now[0] += 0.1
    clock.learn(asked, run_s=60.0)
    assert clock() == pytest.approx(60.05)


def test_events_are_carried_out_in_order_when_they_are_due() -> None:
    now, seen = [0.0], []
    agenda = WallAgenda(lambda: now[0])
    agenda.handle({"a": lambda subject, detail: seen.append((agenda.now_s, subject, detail))})
    agenda.at(2.0, "a", 2)
    agenda.at(1.0, "a", 1)
    agenda.at(1.0, "a", 3)
    agenda.carry_out()
    assert seen == [] and agenda.next_time_s() == 1.0
    now[0] = 1.5
    agenda.carry_out()
    assert [s for _, s, _ in seen] == [1, 3]
    now[0] = 1.0  # a clock that is corrected does not take time back
    agenda.carry_out()
    assert agenda.now_s == 1.5


def policies(lockstep: bool, timeout_s: float = 60.0) -> Policies:
    learner = SimpleNamespace(parameters=torch.zeros(3, 5), actor_columns=slice(3, 5), n_agents=3)
    return Policies(learner, 0, timeout_s, lockstep)  # type: ignore[arg-type]


def told(sender: int, updates: object, policy: object) -> Message:
    return Message(POLICY, sender, 1, 1, 0.0, {"updates": updates}, {"policy": np.asarray(policy)})


def test_in_lockstep_an_update_waits_for_everybodys_policy_of_that_many_updates() -> None:
    known, everybody = policies(lockstep=True), np.ones(3, dtype=np.bool_)
    assert known.may_update(0, everybody)
    assert not known.may_update(1, everybody)
    assert known.hear(told(1, 1, np.float32([1, 1])))
    assert not known.may_update(1, everybody)
    assert known.may_update(1, np.array([True, True, False])), "who is absent is not waited for"
    assert known.hear(told(2, 1, np.float32([2, 2]))) and known.hear(told(2, 2, np.float32([9, 9])))
    assert known.may_update(1, everybody)
    known.install(1)
    assert known._learner.parameters[:, 3:].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_the_first_update_is_by_the_first_policies_though_a_peer_is_ahead() -> None:
    known = policies(lockstep=True)
    assert known.hear(told(1, 1, np.float32([1, 1])))
    known.install(0)
    assert not known._learner.parameters.any()
    behind = policies(lockstep=False)
    behind.hear(told(1, 1, np.float32([1, 1])))
    behind.install(0)
    assert behind._learner.parameters[1, 3:].tolist() == [1, 1]


def test_who_is_late_is_waited_for_once() -> None:
    known, everybody = policies(lockstep=True, timeout_s=0.0), np.ones(3, dtype=np.bool_)
    assert known.may_update(1, everybody)  # at once, with no patience at all
    assert known._out_of_step == {1, 2}
    known.hear(told(1, 5, np.float32([1, 1])))
    known.may_update(2, everybody)
    assert known._out_of_step == {2}


@pytest.mark.parametrize(
    "bad",
    [
        told(1, 1, np.float32([1, 1, 1])),
        told(1, 1, np.float64([1, 1])),
        told(1, 1, np.float32([1, np.nan])),
        told(1, -1, np.float32([1, 1])),
        told(1, "1", np.float32([1, 1])),
        told(0, 1, np.float32([1, 1])),
        told(3, 1, np.float32([1, 1])),
    ],
)
def test_policies_of_no_use_change_nothing(bad: Message) -> None:
    known = policies(lockstep=True)
    assert not known.hear(bad)
    known.install(1)
    assert not known._learner.parameters.any()


def test_a_world_that_comes_back_knows_what_agents_had_reported(tmp_path: Path) -> None:
    report = say.Report(
        step=30,
        updates=7,
        rounds=3,
        statistics={"entropy": 1.5},
        statistics_count=2,
        dual_norm=0.5,
        counts={"sent": 9, "delivered": 5, "lost": 1},
        ages_s=[0.25],
        update_s=[0.1, 0.2],
        busy_act_s=0.5,
        busy_learn_s=1.0,
        busy_mix_s=0.25,
        peak_memory_bytes=1000,
    )
    before, after = Roll(2, Spans(1, 10)), Roll(2, Spans(1, 10))
    sums = np.arange(SUMS, dtype=np.float64)
    before.note(1, report, {"sketch": sums, "dual": 2 * sums}, Recorder(0, 0))
    assert np.isnan([before.disagreement(), before.dual_mean_norm()]).all()  # agent 0 has not reported
    before.off_s[0] = 3.0
    folder = RunFolder.create("roll", tmp_path / "run")
    write_checkpoint(folder, 1, {"roll": before.state()}, "roll", keep=1)
    after.load_state(read_checkpoint(folder, find_checkpoint(folder), "roll")["roll"])
    assert after.reports == {1: report}
    assert after.of_each("updates").tolist() == [0, 7]
    assert after.counts() == before.counts() and after.counts().in_flight == 3
    spread = Spread.of(after.update_times, after.update_total_s)
    assert spread is not None and spread.count == 2 and spread.mean == pytest.approx(0.15)
    assert (spread.p10, spread.p90) == (pytest.approx(0.1, rel=0.006), pytest.approx(0.2, rel=0.006))
    assert after.take_statistics()["entropy"] == before.take_statistics()["entropy"] == 0.75
    assert after.utilisation(10.0).tolist() == [0.0, 0.175]
    for roll in (before, after):
        roll.note(0, report, {"sketch": sums, "dual": -sums}, Recorder(0, 0))
        assert roll.disagreement() == 0.0 and roll.dual_mean_norm() == pytest.approx(np.linalg.norm(sums) / 2)


def test_fields_are_taken_literally() -> None:
    good = {"step": 3}
    assert say.read(say.Act, Message("act", 0, 1, 1, 0.0, good, {})) == say.Act(step=3)
    for bad in ({}, {"step": "3"}, {"step": 3.0}, {"step": True}, {"step": -1}, {"step": 3, "more": 1}):
        assert say.read(say.Act, Message("act", 0, 1, 1, 0.0, bad, {})) is None


def test_an_agent_says_where_it_can_be_reached() -> None:
    assert reachable("tcp://127.0.0.1:5701", "tcp://127.0.0.1:5700") == "tcp://127.0.0.1:5701"
    assert reachable("tcp://0.0.0.0:5701", "tcp://127.0.0.1:5700") == "tcp://127.0.0.1:5701"
    assert reachable("tcp://192.168.7.9:5701", "tcp://10.0.0.1:5700") == "tcp://192.168.7.9:5701"
