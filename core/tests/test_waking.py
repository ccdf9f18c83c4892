"""Waking: what a wait sleeps by, and how much must have happened before it is woken."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest

from etha.kvstore import skeleton
from etha.kvstore.errors import AuthenticationError, StoreClosedError, WaitTimeoutError
from etha.kvstore.follow import Batch, Bell, Follower, PushFollower, Selector
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.skeleton import SkeletalStore

InBackground = Callable[..., "Future[Any]"]

PREFIX = b"job-42/trainer/"


def batch(restart: bool = False, **changes: bytes | None) -> Batch:
    return Batch([(PREFIX + key.encode(), value) for key, value in changes.items()], restart=restart)


def test_a_bell_that_rang_wakes_the_next_sleeper_once_however_often_it_was_rung() -> None:
    bell = Bell()
    bell.set()
    bell.set()
    assert bell.wait(30.0)
    assert not bell.wait(0.01)
    bell.set()
    bell.clear()
    bell.clear()
    assert not bell.wait(0.01)


def test_a_signal_that_does_not_wake_a_wait_is_seen_within_a_second() -> None:
    falling_asleep = threading.Event()

    class Sleeper(Bell):
        def wait(self, timeout: float) -> bool:
            falling_asleep.set()
            return super().wait(timeout)

    def interrupt() -> None:  # a signal to another thread is to be handled by this one, and does not wake it
        falling_asleep.wait(10)
        interrupted.append(monotonic())
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    interrupted: list[float] = []
    follower = PushFollower()
    follower._news = Sleeper()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            follower.next(monotonic() + 30.0)
    assert monotonic() - interrupted[0] < 1.0


def test_a_bell_that_many_threads_ring_at_once_wakes_its_sleeper_each_time() -> None:
    bell = Bell()
    ringers, rounds = 4, 500
    start = threading.Barrier(ringers + 1)

    def ring() -> None:
        for _ in range(rounds):
            start.wait(30)
            bell.set()
            start.wait(30)

    with ThreadPoolExecutor(ringers) as pool:
        rung = [pool.submit(ring) for _ in range(ringers)]
        for _ in range(rounds):
            bell.clear()
            start.wait(30)
            assert bell.wait(30.0)
            start.wait(30)
        assert [each.result(30) for each in rung] == [None] * ringers


# --- the consumer of a follower ---


def numbered(number: int) -> Batch:
    return batch(a=b"%d" % number)


class BellOfASleeper(Bell):
    """A bell that says when its sleeper sleeps, and how often it was rung."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = threading.Semaphore(0)
        self.rung = 0

    def set(self) -> None:
        self.rung += 1
        super().set()

    def wait(self, timeout: float) -> bool:
        self.asleep.release()
        return super().wait(timeout)


Sleeper = tuple[PushFollower, "Future[Any]", BellOfASleeper]


@pytest.fixture
def sleeper(in_background: InBackground) -> Iterator[Sleeper]:
    """A follower whose consumer sleeps until three changes have come, its `next` under way, and what it sleeps on."""
    follower = PushFollower()
    follower._news = bell = BellOfASleeper()
    follower.enough = 3
    waking = in_background(follower.next, math.inf)
    assert bell.asleep.acquire(timeout=30)
    yield follower, waking, bell
    follower.close()


def test_a_consumer_sleeps_until_enough_changes_have_come_and_is_given_all_of_them(sleeper: Sleeper) -> None:
    follower, waking, bell = sleeper
    batches = [numbered(number) for number in range(3)]
    for each in batches:
        assert bell.rung == 0
        follower.push(each)
    assert waking.result(30) == batches
    assert bell.rung == 1


@pytest.mark.parametrize("large", [batch(a=b"1", b=b"1"), batch(restart=True)], ids=["of several changes", "restart"])
def test_a_batch_that_may_change_much_wakes_a_consumer_whatever_is_enough(large: Batch, sleeper: Sleeper) -> None:
    follower, waking, _ = sleeper
    follower.push(numbered(1))
    follower.push(large)
    assert waking.result(30) == [numbered(1), large]


def test_a_failure_wakes_a_consumer_whatever_is_enough_and_comes_after_what_was_fed(sleeper: Sleeper) -> None:
    follower, waking, _ = sleeper
    follower.push(numbered(1))
    follower.fail(AuthenticationError("refused"))
    assert waking.result(30) == [numbered(1)]
    with pytest.raises(AuthenticationError):
        follower.next(math.inf)


def test_close_wakes_a_consumer_whatever_is_enough(sleeper: Sleeper) -> None:
    follower, waking, _ = sleeper
    follower.push(numbered(1))
    follower.close()
    assert isinstance(waking.exception(30), StoreClosedError)


class FedAsleep(Bell):
    """The bell of a follower that is fed one change whenever its consumer has gone to sleep."""

    def __init__(self, follower: PushFollower) -> None:
        super().__init__()
        self.follower = follower

    def wait(self, timeout: float) -> bool:
        self.follower.push(numbered(1))
        return super().wait(timeout)


def test_what_was_fed_and_is_not_enough_comes_at_the_deadline() -> None:
    follower = PushFollower()
    follower.enough = 3
    follower._news = FedAsleep(follower)
    deadline = monotonic() + 0.05
    assert list(follower.next(deadline)) == [numbered(1)]
    assert monotonic() >= deadline


# --- a whole wait ---


class FedStore(SkeletalStore):
    """A store that has no data, and whose follower is the test's to feed."""

    spec = BackendSpec(
        "fed",
        "test_waking:FedStore",
        "a follower fed by hand",
        contract=1,
        capabilities=frozenset({"waits_by_pattern"}),
    )

    def __init__(self, follower: Follower) -> None:
        super().__init__("job-42", "trainer")
        self.follower = follower

    def _follow(self, selector: Selector) -> Follower:
        return self.follower

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        raise NotImplementedError

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        raise NotImplementedError

    def _remove(self, key: bytes, deadline: float) -> bool:
        raise NotImplementedError


class SleepingFeed(PushFollower):
    """A follower that says when its consumer asks for more, and counts how often it did."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)
        self.turns = 0
        self.push(batch(restart=True))

    def next(self, deadline: float) -> Sequence[Batch]:
        self.turns += 1
        if self.turns > 1:
            self.asked.release()
        return super().next(deadline)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "the last two at once"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 100])
def test_a_wait_for_many_keys_ends_with_the_change_that_completes_it_and_is_seldom_woken(
    count: int, together: bool, in_background: InBackground
) -> None:
    feed = SleepingFeed()
    with FedStore(feed) as store:
        wait = in_background(store.wait_for_keys, "*", count)
        assert feed.asked.acquire(timeout=30)
        singles = count - 2 if together else count
        for number in range(singles):
            feed.push(batch(restart=False, **{f"k{number:03}": b"1"}))
        if together:
            feed.push(batch(restart=False, **{f"k{number:03}": b"1" for number in range(max(0, singles), count)}))
        assert wait.result(30) == [f"k{number:03}" for number in range(count)]
    assert feed.turns <= 2 + count.bit_length() * 2


@pytest.mark.parametrize("count", [2, 3, 5, 50])
def test_a_wait_whose_keys_come_and_go_ends_when_all_are_there(count: int, in_background: InBackground) -> None:
    feed = SleepingFeed()
    with FedStore(feed) as store:
        wait = in_background(store.wait_for_keys, "*", count)
        assert feed.asked.acquire(timeout=30)
        for value in (b"1", b"0", b"1", None):  # never the last of them
            for number in range(count - 1):
                feed.push(batch(restart=False, **{f"k{number:03}": value}))
        for number in reversed(range(count)):
            feed.push(batch(restart=False, **{f"k{number:03}": b"1"}))
        assert wait.result(30) == [f"k{number:03}" for number in range(count)]


class FedTwice(Bell):
    """The bell of a follower that is fed two changes when its consumer goes to sleep."""

    def __init__(self, feed: PushFollower) -> None:
        super().__init__()
        self.feed = feed

    def wait(self, timeout: float) -> bool:
        self.feed.push(batch(a=b"1"))
        self.feed.push(batch(b=b"0"))
        return super().wait(timeout)


def test_a_wait_that_times_out_tells_all_that_was_fed_although_it_was_not_woken_for_it() -> None:
    feed = SleepingFeed()
    feed._news = FedTwice(feed)
    with FedStore(feed) as store, pytest.raises(WaitTimeoutError) as caught:
        store.wait_for_keys("*", 100, timeout=0.05, candidate_keys=["a", "b", "c"])
    assert (caught.value.matched, caught.value.mismatched, caught.value.missing) == (["a"], {"b": b"0"}, ["c"])


def test_close_ends_a_wait_that_is_not_to_be_woken_yet(in_background: InBackground) -> None:
    feed = SleepingFeed()
    store = FedStore(feed)
    wait = in_background(store.wait_for_keys, "*", 100)
    assert feed.asked.acquire(timeout=30)
    feed.push(batch(a=b"1"))
    store.close()
    assert isinstance(wait.exception(30), StoreClosedError)


def test_a_restart_of_the_state_can_end_a_wait_that_is_not_to_be_woken_yet(in_background: InBackground) -> None:
    feed = SleepingFeed()
    with FedStore(feed) as store:
        wait = in_background(store.wait_for_keys, "*", 4)
        assert feed.asked.acquire(timeout=30)
        feed.push(batch(a=b"1"))
        feed.push(batch(restart=True, b=b"1", c=b"1", d=b"1", e=b"1"))
        assert wait.result(30) == ["b", "c", "d", "e"]


# --- what a wait has looked up for those who are told of it ---


class Clocked(Follower):
    """A follower that notes, at each deadline that it sleeps to, whether somebody will be told what is there."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.noted: list[tuple[float, bool]] = []

    def next(self, deadline: float) -> Sequence[Batch]:
        self.noted.append((deadline - 1000.0, self.thorough))
        self.now = deadline
        return ()

    def close(self) -> None: ...


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING], ids=logging.getLevelName)
def test_a_wait_that_goes_on_has_nothing_looked_up_for_a_log_that_is_off(
    level: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follower = Clocked()
    monkeypatch.setattr(skeleton, "monotonic", lambda: follower.now)
    with caplog.at_level(level), FedStore(follower) as store, pytest.raises(WaitTimeoutError):
        store.wait_for_key("a", timeout=100.0)
    assert follower.noted == [(30.0, level == logging.INFO), (60.0, level == logging.INFO), (100.0, True)]
