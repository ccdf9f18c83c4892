"""Whose turn it is: in the order in which they came, whatever becomes of those who wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from etha_kvstore_tcpstore.turn import Place, Turn
from etha_kvstore_testkit.observe import ctrl_c_after

PATIENCE = 30.0


@pytest.fixture
def turn() -> Turn:
    return Turn()


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as executor:
        yield executor


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """Give a thread that is neither the test's nor one of those in the background."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def later() -> float:
    return monotonic() + PATIENCE


def await_line(turn: Turn, length: int) -> None:
    """Wait until so many stand in the line, the one whose turn it is among them."""
    deadline = later()
    while len(turn._line) < length:
        assert monotonic() < deadline
        threading.Event().wait(0.001)


def test_those_who_wait_are_served_in_the_order_in_which_they_came(turn: Turn, background: ThreadPoolExecutor) -> None:
    served: list[int] = []

    def wait(number: int) -> None:
        place = Place()
        try:
            assert turn.take(place, later())
            served.append(number)
        finally:
            turn.give_back(place)

    first = Place()
    assert turn.take(first, later())
    waiting = []
    for number in range(20):
        waiting.append(background.submit(wait, number))
        await_line(turn, number + 2)
    turn.give_back(first)
    for each in waiting:
        each.result(PATIENCE)
    assert served == list(range(20))


def test_one_who_takes_turn_after_turn_starves_nobody(turn: Turn, background: ThreadPoolExecutor) -> None:
    enough = threading.Event()

    def hog() -> None:
        while not enough.is_set():
            place = Place()
            try:
                assert turn.take(place, later())
            finally:
                turn.give_back(place)

    hogging = background.submit(hog)
    try:
        for _ in range(100):
            place = Place()
            try:
                assert turn.take(place, later())
            finally:
                turn.give_back(place)
    finally:
        enough.set()
    hogging.result(PATIENCE)


def test_one_who_loses_patience_leaves_the_line_to_the_next(
    turn: Turn, background: ThreadPoolExecutor, elsewhere: ThreadPoolExecutor
) -> None:
    first, impatient, last = Place(), Place(), Place()
    assert elsewhere.submit(turn.take, first, later()).result(PATIENCE)
    started = monotonic()
    assert not turn.take(impatient, started + 0.05)
    assert monotonic() - started >= 0.05
    waiting = background.submit(turn.take, last, later())
    await_line(turn, 3)
    turn.give_back(impatient)
    turn.give_back(first)
    assert waiting.result(PATIENCE)


def test_a_call_that_a_signals_handler_makes_in_the_middle_of_another_is_not_kept_waiting(turn: Turn) -> None:
    first, inner = Place(), Place()
    assert turn.take(first, later())
    started = monotonic()
    assert not turn.take(inner, later())
    assert monotonic() - started < PATIENCE / 2
    turn.give_back(inner)
    turn.give_back(first)


def test_ctrl_c_leaves_the_line_to_the_next(
    turn: Turn, background: ThreadPoolExecutor, elsewhere: ThreadPoolExecutor
) -> None:
    first, interrupted, last = Place(), Place(), Place()
    assert elsewhere.submit(turn.take, first, later()).result(PATIENCE)
    with ctrl_c_after(0.1):
        try:
            turn.take(interrupted, later())
        finally:
            turn.give_back(interrupted)
    waiting = background.submit(turn.take, last, later())
    await_line(turn, 2)
    turn.give_back(first)
    assert waiting.result(PATIENCE)


def test_those_who_wait_are_sent_away_and_the_one_whose_turn_it_is_stays(
    turn: Turn, background: ThreadPoolExecutor
) -> None:
    first, waiter, last = Place(), Place(), Place()
    assert turn.take(first, later())
    waiting = background.submit(turn.take, waiter, later())
    await_line(turn, 2)
    turn.dismiss()
    assert waiting.result(PATIENCE) is False
    turn.give_back(waiter)
    turn.give_back(first)
    assert turn.take(last, later())
