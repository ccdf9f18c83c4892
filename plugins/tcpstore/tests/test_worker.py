"""The worker alone, with calls that block until a test lets them go on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from etha_kvstore_tcpstore.carrier import CarrierEndedError, UnansweredError
from etha_kvstore_tcpstore.worker import Worker
from etha_kvstore_testkit.observe import ctrl_c_after

PATIENCE = 30.0
"""Seconds within which what must happen happens, on the slowest machine."""


class Gate:
    """A call that says when it is under way, and blocks until it is let through."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, owned: list[str]) -> str:
        self.reached.set()
        assert self.opened.wait(PATIENCE)
        return "let through"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def worker() -> Worker[list[str]]:
    return Worker([])


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def soon() -> float:
    return monotonic() + 0.05


def later() -> float:
    return monotonic() + PATIENCE


def write(text: str) -> Callable[[list[str]], None]:
    return lambda owned: owned.append(text)


def test_the_object_is_used_on_one_thread_that_ends_with_the_worker() -> None:
    worker: Worker[list[str]] = Worker([])
    threads = [worker.call(later(), lambda owned: threading.current_thread()) for _ in range(2)]
    worker.end(later(), lambda owned: None)
    assert threads[0] is threads[1] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_a_call_returns_or_raises_what_its_function_does(worker: Worker[list[str]]) -> None:
    assert worker.call(later(), len) == 0
    with pytest.raises(IndexError):
        worker.call(later(), lambda owned: owned[0])
    assert worker.call(later(), len) == 0


def test_a_deadline_that_is_never_and_one_that_has_passed_are_both_deadlines(worker: Worker[list[str]]) -> None:
    assert worker.call(float("inf"), len) == 0
    with pytest.raises(UnansweredError):
        worker.call(monotonic() - 1, lambda owned: threading.Event().wait(0.05))


def test_a_call_that_is_not_answered_in_time_says_that_it_had_begun(worker: Worker[list[str]], gate: Gate) -> None:
    started = monotonic()
    with pytest.raises(UnansweredError) as silence:
        worker.call(started + 0.2, gate)
    assert 0.2 <= monotonic() - started < 1.2
    assert silence.value.begun


def test_a_call_behind_one_that_blocks_says_that_it_had_not_begun_and_never_begins(
    worker: Worker[list[str]], gate: Gate
) -> None:
    with pytest.raises(UnansweredError):
        worker.call(soon(), gate)
    with pytest.raises(UnansweredError) as silence:
        worker.call(soon(), write("too late"))
    assert not silence.value.begun
    gate.opened.set()
    assert worker.call(later(), list) == []


def test_a_late_answer_goes_to_nobody(worker: Worker[list[str]], gate: Gate) -> None:
    with pytest.raises(UnansweredError):
        worker.call(soon(), gate)
    gate.opened.set()
    assert worker.call(later(), lambda owned: "mine") == "mine"


def test_a_call_behind_one_that_blocks_goes_on_when_that_is_through(
    worker: Worker[list[str]], gate: Gate, background: ThreadPoolExecutor
) -> None:
    first = background.submit(worker.call, later(), gate)
    assert gate.reached.wait(PATIENCE)
    second = background.submit(worker.call, later(), len)
    gate.opened.set()
    assert (first.result(PATIENCE), second.result(PATIENCE)) == ("let through", 0)


def test_calls_of_many_threads_are_made_one_at_a_time(
    worker: Worker[list[str]], background: ThreadPoolExecutor
) -> None:
    inside = threading.Lock()

    def alone(owned: list[str]) -> bool:
        if not inside.acquire(blocking=False):
            return False
        owned.append("was here")
        inside.release()
        return True

    calls = [background.submit(worker.call, later(), alone) for _ in range(500)]
    assert all(call.result(PATIENCE) for call in calls)
    assert worker.call(later(), len) == 500


def test_the_end_ends_the_calls_that_wait_at_once_and_makes_the_last_one(
    worker: Worker[list[str]], gate: Gate, background: ThreadPoolExecutor
) -> None:
    begun = background.submit(worker.call, later(), gate)
    assert gate.reached.wait(PATIENCE)
    queued = background.submit(worker.call, later(), write("never"))
    ending = background.submit(worker.end, later(), list)
    for call in (begun, queued):
        with pytest.raises(CarrierEndedError):
            call.result(1.0)
    gate.opened.set()
    assert ending.result(PATIENCE) == []


def test_a_call_after_the_end_is_refused(worker: Worker[list[str]]) -> None:
    worker.end(later(), len)
    with pytest.raises(CarrierEndedError):
        worker.call(later(), len)


def test_the_end_waits_no_longer_than_its_deadline_for_a_thread_that_is_busy(
    worker: Worker[list[str]], gate: Gate
) -> None:
    with pytest.raises(UnansweredError):
        worker.call(soon(), gate)
    started = monotonic()
    with pytest.raises(UnansweredError):
        worker.end(started + 0.2, len)
    assert monotonic() - started < 1.2


def test_ctrl_c_ends_a_call_that_waits_and_keeps_one_that_had_not_begun_from_beginning(
    worker: Worker[list[str]], gate: Gate
) -> None:
    for function in (gate, write("never")):
        with ctrl_c_after(0.2):
            worker.call(later(), function)
    gate.opened.set()
    assert worker.call(later(), list) == []


def test_a_worker_that_nobody_ended_goes_with_its_last_user() -> None:
    worker: Worker[list[str]] = Worker([])
    thread = worker.call(later(), lambda owned: threading.current_thread())
    del worker
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()
