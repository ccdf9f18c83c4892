"""Followers: how a wait learns of changes, by polling on a clock of the test's own and by being told."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest

from etha.kvstore import follow
from etha.kvstore.errors import (
    AuthenticationError,
    KVStoreError,
    OperationTimeoutError,
    StoreClosedError,
    StoreUnavailableError,
)
from etha.kvstore.follow import LOOK_GRACE, Batch, Bell, PollingFollower, PushFollower, Selector, first_look_by
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.patterns import Pattern
from etha.kvstore.skeleton import SkeletalStore

InBackground = Callable[..., "Future[Any]"]

START = 1000.0
KEY = b"n/c/k"
LITERAL = Selector(Pattern(KEY), expected=1)
PAIR = (b"n/c/a", b"n/c/b")
BOTH = Selector(Pattern(b"n/c/*"), PAIR, 2, b"1")


class Clock:
    """A clock that moves when somebody sleeps on it. It notes when, and for how long."""

    def __init__(self) -> None:
        self.now = START
        self.pauses: list[tuple[float, float]] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.pauses.append((self.now - START, seconds))
        self.now += seconds
        return False


class ScriptedStore(SkeletalStore):
    """A store that answers as the test says, at a price in time."""

    spec = BackendSpec("scripted", "test_follow:ScriptedStore", "a script", contract=1)

    def __init__(self, clock: Callable[[], float], answer: Callable[[bytes], bytes | None], cost: float = 0.0) -> None:
        super().__init__("n", "c", timeout=7.0)
        self.clock = clock
        self.answer = answer
        self.cost = cost
        self.reads: list[tuple[bytes, float]] = []
        self.deadlines: list[float] = []

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        self.reads.append((key, self.clock() - START))
        self.deadlines.append(deadline)
        if isinstance(self.clock, Clock):
            self.clock.now += self.cost
        return self.answer(key)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None: ...

    def _remove(self, key: bytes, deadline: float) -> bool:
        return False


class ListingStore(ScriptedStore):
    """One that is asked for all keys with a prefix at once."""

    spec = BackendSpec(
        "listing", "test_follow:ListingStore", "a script", contract=1, capabilities=frozenset({"waits_by_pattern"})
    )

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        self.deadlines.append(deadline)
        found = [(key, self.answer(key)) for key in (*PAIR, KEY)]
        return [(key, value) for key, value in found if value is not None and key.startswith(prefix)]


class OutlivingStore(ScriptedStore):
    """One whose data outlive its server."""

    spec = BackendSpec(
        "outliving", "test_follow:OutlivingStore", "a script", contract=1, capabilities=frozenset({"outlives_server"})
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(follow, "monotonic", clock)
    return clock


def polling(clock: Clock, store: SkeletalStore, selector: Selector = LITERAL) -> PollingFollower:
    """Make a follower that sleeps on the clock, and take its first answer, if it gives one."""
    follower = PollingFollower(store, selector)
    follower._end = clock  # type: ignore[assignment]
    return follower


def absent(key: bytes) -> bytes | None:
    return None


# --- the pace of polling ---


def test_the_pause_between_looks_is_two_percent_of_the_time_waited_within_bounds(clock: Clock) -> None:
    store = ScriptedStore(clock, absent)
    follower = polling(clock, store)
    follower.next(START + 10.0)
    follower.next(START + 10.0)
    *paced, last = clock.pauses
    assert [pause for _, pause in paced] == pytest.approx(
        [min(max(0.02 * waited, 0.0005), 0.05) for waited, _ in paced]
    )
    assert sum(last) == pytest.approx(10.0)
    assert len(store.reads) == len(clock.pauses) + 1


def test_an_idle_wait_looks_twenty_times_a_second(clock: Clock) -> None:
    store = ScriptedStore(clock, absent)
    follower = polling(clock, store)
    follower.next(START + 100.0)
    follower.next(START + 100.0)
    late = [at for _, at in store.reads if 50.0 <= at < 100.0]
    assert len(late) == pytest.approx(50 * 20, abs=2)


@pytest.mark.parametrize("when", [0.0001, 0.003, 0.05, 0.7, 3.3, 100.0, 3000.0])
def test_what_appears_is_seen_no_later_than_two_percent_of_the_wait(when: float, clock: Clock) -> None:
    store = ScriptedStore(clock, lambda key: b"1" if clock.now >= START + when else None)
    follower = polling(clock, store)
    assert follower.next(START + 3600.0) == (Batch([], restart=True),)
    assert follower.next(START + 3600.0) == (Batch([(KEY, b"1")]),)
    assert 0 <= clock.now - START - when <= max(0.0005, min(0.02 * when, 0.05)) + 1e-6


@pytest.mark.parametrize("cost", [0.004, 0.05, 0.5])
def test_in_a_long_wait_slow_looks_take_two_percent_of_the_time(cost: float, clock: Clock) -> None:
    store = ScriptedStore(clock, absent, cost)
    follower = polling(clock, store)
    follower.next(START + 2000.0)
    follower.next(START + 2000.0)
    late = [at for _, at in store.reads if 1000.0 <= at < 2000.0]
    assert 0.9 * 0.02 <= len(late) * cost / 1000.0 <= 1.1 * 0.02


def test_one_look_that_was_held_up_does_not_stop_the_looking(clock: Clock) -> None:
    store = ScriptedStore(clock, absent, 0.0005)
    follower = polling(clock, store)
    follower.next(START + 10.0)
    follower.next(START + 10.0)
    store.cost = 5.0
    follower.next(clock.now)
    store.cost = 0.0005
    begin = len(clock.pauses)
    follower.next(clock.now + 60.0)
    assert max(pause for _, pause in clock.pauses[begin:]) < 1.0


# --- what polling tells ---


def test_the_first_answer_is_the_state_and_each_later_one_what_differs(clock: Clock) -> None:
    held: dict[bytes, bytes] = {}
    follower = polling(clock, ListingStore(clock, held.get), Selector(Pattern(b"n/c/*"), expected=3))
    assert follower.next(START + 1.0) == (Batch([], restart=True),)
    held[PAIR[0]] = b"1"
    assert follower.next(START + 1.0) == (Batch([(PAIR[0], b"1")]),)
    held |= {PAIR[0]: b"2", PAIR[1]: b"1"}
    assert follower.next(START + 1.0) == (Batch([(PAIR[0], b"2"), (PAIR[1], b"1")]),)
    del held[PAIR[0]]
    assert follower.next(START + 1.0) == (Batch([(PAIR[0], None)]),)
    assert follower.next(START + 1.0) == ()


def test_a_listing_is_narrowed_to_what_matches(clock: Clock) -> None:
    follower = polling(clock, ListingStore(clock, lambda key: b"1"), Selector(Pattern(b"n/*/b"), expected=1))
    assert follower.next(START + 1.0) == (Batch([(PAIR[1], b"1")], restart=True),)


@pytest.mark.parametrize("kind", [ScriptedStore, ListingStore])
def test_no_look_of_a_long_wait_outlasts_the_operation_timeout(kind: type[ScriptedStore], clock: Clock) -> None:
    store = kind(clock, absent)
    polling(clock, store, Selector(Pattern(b"n/c/*"), PAIR, 2, b"1")).next(START + 3600.0)
    assert set(store.deadlines) == {START + store.timeout}


def test_the_first_look_happens_also_after_the_deadline_and_has_the_operation_timeout(clock: Clock) -> None:
    store = ScriptedStore(clock, lambda key: b"1")
    assert polling(clock, store).next(START) == (Batch([(KEY, b"1")], restart=True),)
    assert store.deadlines == [START + store.timeout]
    assert clock.pauses == []


def test_a_last_look_happens_at_the_deadline_and_has_a_moment_for_it(clock: Clock) -> None:
    store = ScriptedStore(clock, lambda key: b"1" if clock.now >= START + 5.0 else None)
    follower = polling(clock, store)
    follower.next(START + 5.0)
    assert follower.next(START + 5.0) == (Batch([(KEY, b"1")]),)
    assert clock.now == pytest.approx(START + 5.0)
    assert store.deadlines[-1] == pytest.approx(START + 5.0 + LOOK_GRACE)


def test_first_look_by_gives_a_mere_look_the_operation_timeout_and_a_wait_its_own(clock: Clock) -> None:
    assert first_look_by(START - 1.0, 10.0) == START + 10.0
    assert first_look_by(START, 10.0) == START + 10.0
    assert first_look_by(START + 0.1, 10.0) == START + LOOK_GRACE
    assert first_look_by(START + 60.0, 10.0) == START + 60.0


def test_a_key_that_leaves_its_value_between_two_readings_is_not_reported(clock: Clock) -> None:
    moments = iter([{PAIR[0]: b"1"}] * 2 + [{PAIR[0]: b"1", PAIR[1]: b"1"}, {PAIR[1]: b"1"}] + [{PAIR[1]: b"1"}] * 9)
    now = dict[bytes, bytes]()

    def answer(key: bytes) -> bytes | None:
        now.clear()
        now.update(next(moments))
        return now.get(key)

    store = ScriptedStore(clock, answer)
    follower = polling(clock, store, BOTH)
    assert follower.next(START + 1.0) == (Batch([(PAIR[0], b"1")], restart=True),)
    [batch] = follower.next(START + 1.0)
    assert sorted(batch.changes, key=str) == [(PAIR[0], None), (PAIR[1], b"1")]
    assert [key for key, _ in store.reads] == [*PAIR, PAIR[1], *PAIR]


def test_all_candidates_are_read_twice_before_they_are_said_to_hold_at_once(clock: Clock) -> None:
    store = ScriptedStore(clock, lambda key: b"1")
    [batch] = polling(clock, store, BOTH).next(START + 1.0)
    assert sorted(batch.changes, key=str) == [(PAIR[0], b"1"), (PAIR[1], b"1")]
    assert [key for key, _ in store.reads] == [*PAIR, *PAIR]


def test_a_candidate_that_holds_the_value_is_not_asked_again_until_there_are_enough(clock: Clock) -> None:
    store = ScriptedStore(clock, lambda key: b"1" if key == PAIR[0] or clock.now >= START + 3.0 else None)
    follower = polling(clock, store, BOTH)
    follower.next(START + 10.0)
    follower.next(START + 10.0)
    assert [at for key, at in store.reads if key == PAIR[0] and 0.0 < at < 3.0] == []
    assert [key for key, _ in store.reads[-3:]] == [PAIR[1], *PAIR]


def test_the_last_look_reads_all_again_so_that_a_time_out_tells_no_stale_facts(clock: Clock) -> None:
    store = ScriptedStore(clock, lambda key: b"1" if key == PAIR[0] and clock.now < START + 1.0 else None)
    follower = polling(clock, store, BOTH)
    assert follower.next(START + 5.0) == (Batch([(PAIR[0], b"1")], restart=True),)
    assert follower.next(START + 5.0) == (Batch([(PAIR[0], None)]),)
    assert clock.now == pytest.approx(START + 5.0)


def test_a_deadline_at_which_nobody_is_told_anything_costs_no_reading_of_what_is_settled(clock: Clock) -> None:
    store = ScriptedStore(clock, lambda key: b"1" if key == PAIR[0] else None)
    follower = polling(clock, store, BOTH)
    follower.next(START + 5.0)
    follower.thorough = False
    assert follower.next(START + 5.0) == ()
    assert [at for key, at in store.reads if key == PAIR[0]] == [0.0]
    assert clock.now == pytest.approx(START + 5.0)


# --- trouble ---


class Failing:
    """An answer that raises an error for a while."""

    def __init__(self, clock: Clock, error: KVStoreError, since: float, until: float) -> None:
        self.clock, self.error, self.since, self.until = clock, error, START + since, START + until

    def __call__(self, key: bytes) -> bytes | None:
        if self.since <= self.clock.now < self.until:
            raise self.error
        return b"1" if self.clock.now >= self.until else None


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (ScriptedStore, OperationTimeoutError("silent")),
        (OutlivingStore, OperationTimeoutError("silent")),
        (OutlivingStore, StoreUnavailableError("gone")),
    ],
)
def test_what_waiting_can_cure_is_ridden_out(kind: type[ScriptedStore], error: KVStoreError, clock: Clock) -> None:
    follower = polling(clock, kind(clock, Failing(clock, error, 1.0, 4.0)))
    follower.next(START + 2.0)
    assert follower.next(START + 2.0) == ()
    assert follower.outage is not None
    assert follower.outage.cause is error
    assert follower.outage.since == pytest.approx(START + 1.0, abs=0.05)
    assert follower.next(START + 10.0) == (Batch([(KEY, b"1")]),)
    assert clock.now == pytest.approx(START + 4.0, abs=0.05)
    assert follower.outage is None


def test_a_store_that_is_silent_from_the_first_look_on_answers_with_its_state_later(clock: Clock) -> None:
    follower = polling(clock, ScriptedStore(clock, Failing(clock, OperationTimeoutError("silent"), 0.0, 3.0)))
    assert follower.next(START) == ()
    assert follower.outage is not None
    assert follower.next(START + 10.0) == (Batch([(KEY, b"1")], restart=True),)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (ScriptedStore, StoreUnavailableError("gone, and its data with it")),
        (ScriptedStore, AuthenticationError("refused")),
        (OutlivingStore, AuthenticationError("refused")),
    ],
)
def test_what_waiting_cannot_cure_is_raised_at_once(
    kind: type[ScriptedStore], error: KVStoreError, clock: Clock
) -> None:
    follower = polling(clock, kind(clock, Failing(clock, error, 1.0, 4.0)))
    follower.next(START + 10.0)
    with pytest.raises(type(error)) as caught:
        follower.next(START + 10.0)
    assert caught.value is error
    assert clock.now == pytest.approx(START + 1.0, abs=0.05)


def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    error = StoreUnavailableError("connection refused")
    follower = polling(clock, OutlivingStore(clock, Failing(clock, error, 1.0, 4.0)))
    with caplog.at_level("INFO", "etha.kvstore"):
        follower.next(START + 10.0)
        follower.next(START + 10.0)
    began, ended = caplog.records
    assert began.levelname == "WARNING"
    assert "connection refused" in began.getMessage()
    assert ended.levelname == "INFO"
    assert "answers again" in ended.getMessage()


def test_close_ends_a_wait_that_polls(in_background: InBackground) -> None:
    looked = threading.Event()

    def answer(key: bytes) -> bytes | None:
        looked.set()
        return None

    follower = PollingFollower(ScriptedStore(monotonic, answer), LITERAL)
    follower.next(math.inf)
    looked.clear()
    wait = in_background(follower.next, math.inf)
    assert looked.wait(30)
    follower.close()
    with pytest.raises(StoreClosedError):
        wait.result(30)


def test_a_follower_that_was_closed_before_its_first_look_does_not_look() -> None:
    store = ScriptedStore(monotonic, absent)
    follower = PollingFollower(store, LITERAL)
    follower.close()
    with pytest.raises(StoreClosedError):
        follower.next(math.inf)
    assert store.reads == []


# --- being told ---


def numbered(number: int) -> Batch:
    return Batch([(KEY, b"%d" % number)])


def test_what_is_pushed_arrives_in_order_and_once() -> None:
    follower = PushFollower()
    for number in range(3):
        follower.push(numbered(number))
    assert list(follower.next(0.0)) == [numbered(number) for number in range(3)]
    follower.push(numbered(3))
    assert list(follower.next(0.0)) == [numbered(3)]
    assert list(follower.next(0.0)) == []


def test_a_failure_comes_after_what_was_fed_before_it_and_stays() -> None:
    follower = PushFollower()
    failure = AuthenticationError("refused")
    follower.push(numbered(1))
    follower.fail(failure)
    assert list(follower.next(0.0)) == [numbered(1)]
    for _ in range(2):
        with pytest.raises(AuthenticationError) as caught:
            follower.next(math.inf)
        assert caught.value is failure


def test_close_comes_before_all_else() -> None:
    follower = PushFollower()
    follower.push(numbered(1))
    follower.close()
    follower.fail(StoreUnavailableError("the connection was closed"))
    with pytest.raises(StoreClosedError):
        follower.next(math.inf)


def test_nothing_comes_when_the_deadline_has_passed_and_not_before() -> None:
    deadline = monotonic() + 0.05
    assert list(PushFollower().next(deadline)) == []
    assert monotonic() >= deadline


class CountingBell(Bell):
    """A bell that counts how often it is waited for."""

    waits = 0

    def wait(self, timeout: float) -> bool:
        self.waits += 1
        return super().wait(timeout)


def test_a_follower_that_has_taken_its_news_sleeps_again() -> None:
    follower = PushFollower()
    follower._news = sleeps = CountingBell()
    follower.push(numbered(1))
    follower.next(0.0)
    assert list(follower.next(monotonic() + 0.05)) == []
    assert sleeps.waits <= 3


class LateFed(PushFollower):
    """A follower that is fed just after each look for what was fed, the moment before it goes to sleep."""

    def _take(self) -> list[Batch]:
        taken = super()._take()
        self.push(numbered(1))
        return taken


@pytest.fixture
def sleeping_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing but news wake a follower."""
    monkeypatch.setattr(follow, "LONGEST_SLEEP", 3600.0)


@pytest.mark.usefixtures("sleeping_long")
def test_what_is_fed_between_the_look_and_the_sleep_wakes_the_sleeper(in_background: InBackground) -> None:
    assert in_background(LateFed().next, math.inf).result(10) == [numbered(1)]


@pytest.mark.usefixtures("sleeping_long")
@pytest.mark.parametrize("timeout", [math.inf, 30 * 86400.0])
@pytest.mark.parametrize("end", ["push", "fail", "close"])
def test_an_endless_wait_is_woken_by_whatever_happens(timeout: float, end: str, in_background: InBackground) -> None:
    follower = PushFollower()
    entered = threading.Event()

    def wait() -> object:
        entered.set()
        return follower.next(monotonic() + timeout)

    woken = in_background(wait)
    assert entered.wait(30)
    if end == "push":
        follower.push(numbered(1))
        assert woken.result(30) == [numbered(1)]
    elif end == "fail":
        follower.fail(AuthenticationError("refused"))
        assert isinstance(woken.exception(30), AuthenticationError)
    else:
        follower.close()
        assert isinstance(woken.exception(30), StoreClosedError)


def test_nothing_that_several_threads_push_is_lost_or_reordered() -> None:
    follower = PushFollower()
    feeders, each = 4, 2000

    def feed(feeder: int) -> None:
        for number in range(each):
            follower.push(Batch([(b"%d" % feeder, b"%d" % number)]))

    taken: list[tuple[bytes, bytes | None]] = []
    with ThreadPoolExecutor(feeders) as pool:
        done = [pool.submit(feed, feeder) for feeder in range(feeders)]
        while len(taken) < feeders * each:
            batches = follower.next(monotonic() + 30)
            assert batches
            taken += [batch.changes[0] for batch in batches]
        assert all(future.result(30) is None for future in done)
    for feeder in range(feeders):
        numbers = [int(value or b"") for key, value in taken if key == b"%d" % feeder]
        assert len(numbers) == each
        assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
