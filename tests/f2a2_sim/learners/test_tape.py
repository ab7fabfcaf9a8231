"""Tapes: what is played is what would be computed, whatever the operation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from f2a2_sim.learners.tape import Tape, available

pytestmark = pytest.mark.skipif(not available(), reason="this torch cannot play tapes")

Compute = Callable[..., Tensor]


def in_place(weights: Tensor) -> Compute:
    """Held memory is read through views, written through others, and read again."""

    def compute(x: Tensor) -> Tensor:
        first = weights[0]
        before = first.sum()
        first.mul_(2.0).add_(x[0, :4])
        weights.t()[1].sub_(1)
        return torch.stack([before, weights.sum(), first.reshape(-1).sum()])

    return compute


def lists(weights: Tensor) -> Compute:
    """Lists of tensors come out and go in; one of them is not used."""

    def compute(x: Tensor) -> Tensor:
        low, _, high = x.chunk(3, dim=1)
        a, b = weights.unbind(0)[:2]
        return torch.cat([low + a[:1], high * b[:1]], dim=1)

    return compute


def types(weights: Tensor) -> Compute:
    """Numbers of all kinds, types, layouts and missing arguments."""

    def compute(x: Tensor) -> Tensor:
        rounded = (x * 3).to(torch.int64).clamp_(min=0, max=2)
        one_hot = torch.zeros(*x.shape, 3, dtype=torch.float64).scatter_(-1, rounded.unsqueeze(-1), 1.0)
        biggest, at = one_hot.max(dim=-1)
        chosen = torch.where(at > 1, biggest, float("-inf")).masked_fill_(at == 0, 0.5)
        padded = torch.nn.functional.pad(x, (1, 0), value=2).contiguous(memory_format=torch.contiguous_format)
        leaky = torch.nn.functional.leaky_relu(padded, 0.01)
        return chosen.clamp(min=-1).mean() + leaky.double().mean(dim=(0, 1)) + weights.double().norm()

    return compute


def copies(weights: Tensor) -> Compute:
    """What may be a view or a copy: a copy of held memory must be made each time."""

    def compute(x: Tensor) -> Tensor:
        copy = weights.t().reshape(-1)
        same = weights.contiguous()
        other = weights.to(torch.float64)
        weights.add_(x.mean())
        return torch.stack([copy.sum().double(), same.sum().double(), other.sum()])

    return compute


def passing_memory(weights: Tensor) -> Compute:
    """Short-lived tensors, so that later ones get the places of earlier ones."""

    def compute(x: Tensor) -> Tensor:
        total = x.clone()
        for step in range(50):
            total = total + (weights[step % 2, :1] * x).tanh()
        return total

    return compute


@pytest.mark.parametrize("make", [in_place, lists, types, copies, passing_memory])
def test_playing_equals_computing(make: Callable[[Tensor], Compute]) -> None:
    generator = torch.Generator().manual_seed(1)

    def run(taped: bool) -> list[Tensor]:
        weights = torch.arange(12.0).view(3, 4) / 7
        generator.manual_seed(1)
        compute = make(weights)
        with torch.inference_mode():
            tape: Tape | None = None
            outcomes = []
            for _ in range(4):
                given = [torch.rand(5, 6, generator=generator)]
                if not taped:
                    outcomes.append(compute(*given))
                elif tape is None:
                    tape = Tape(compute, given)
                    outcomes.append(tape.result)
                else:
                    outcomes.append(tape.play(given))
                outcomes.append(weights.clone())
        assert tape is None or (tape.failure is None and tape.operations > 3)
        return outcomes

    for expected, found in zip(run(False), run(True), strict=True):
        assert torch.equal(expected, found)
    assert not torch.equal(run(False)[0], run(False)[2]), "what is given matters"


def test_views_of_held_memory_cost_nothing() -> None:
    weights = torch.ones(3, 4)
    tape = Tape(lambda x: x + weights[1].view(2, 2).t()[0].sum(), [torch.zeros(2)])
    assert tape.operations == 2
    weights.fill_(5.0)
    assert tape.play([torch.zeros(2)]).tolist() == [10.0, 10.0]


def test_what_cannot_be_repeated_is_computed_and_told() -> None:
    """A number that Python might decide by."""
    tape = Tape(lambda x: x * float(x.sum()), [torch.ones(2)])
    assert tape.result.tolist() == [2.0, 2.0]
    assert tape.failure is not None and "number" in tape.failure


def test_what_torch_cannot_write_down_is_computed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, given: object, kind: object) -> None:
        raise RuntimeError("no such constant")

    monkeypatch.setattr("f2a2_sim.learners.tape._Recorder._argument", refuse)
    tape = Tape(lambda x: x.add(2.0).mul(3.0), [torch.ones(2)])
    assert tape.result.tolist() == [9.0, 9.0]
    assert tape.failure == "no such constant"


def test_threads_may_play_at_once() -> None:
    tapes = [Tape(lambda x: x @ x, [torch.eye(4)]) for _ in range(2)]
    found: list[Tensor] = []
    threads = [
        threading.Thread(target=lambda tape=tape, k=k: found.append(tape.play([torch.eye(64) * k])))
        for k, tape in enumerate(tapes, start=1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(float(x[0, 0]) for x in found) == [1.0, 4.0]


def test_one_thread_records_at_a_time() -> None:
    """Two at once crash torch now and then; the second waits, and then records for itself."""
    inside, most, lock = 0, 0, threading.Lock()

    def compute(x: Tensor) -> Tensor:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        with lock:
            inside -= 1
        return x + x

    tapes: list[Tape] = []
    x = torch.ones(3)
    threads = [threading.Thread(target=lambda: tapes.append(Tape(compute, [x]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert [tape.play([2 * x]).tolist() for tape in tapes] == [[4.0] * 3] * 4
