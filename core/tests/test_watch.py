"""The skeleton's watch: the state, and then each change once."""

from __future__ import annotations

from time import monotonic

import pytest

from etha.kvstore.base import Change
from etha.kvstore.errors import StoreClosedError, StoreUnavailableError, WaitTimeoutError
from etha.kvstore.follow import Outage, PushFollower
from small_stores import PREFIX, FedStore, InBackground, ListingStore, SilentFollower, batch


@pytest.fixture
def feed() -> PushFollower:
    """A follower that has said already that `a` and `b` are there."""
    follower = PushFollower()
    follower.push(batch(restart=True, a=b"1", b=b"2"))
    return follower


def test_a_watch_gives_the_state_and_then_each_change_in_order(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        assert watch.state == {"a": b"1", "b": b"2"}
        feed.push(batch(a=b"3", c=b"4"))
        feed.push(batch(a=b"3"))
        feed.push(batch(b=None))
        seen = [watch.next(timeout=0) for _ in range(4)]
    assert seen == [Change("a", b"3"), Change("c", b"4"), Change("a", b"3"), Change("b", None)]


def test_listed_keys_come_from_what_is_enumerated_where_a_backend_has_nothing_better(listing: ListingStore) -> None:
    listing.kept = {PREFIX + b"a": b"1", PREFIX + b"b": b""}
    assert list(listing._list(PREFIX, 0.0)) == [PREFIX + b"a", PREFIX + b"b"]


def test_changes_that_came_with_the_state_are_not_lost(feed: PushFollower) -> None:
    feed.push(batch(c=b"3"))
    with FedStore(feed) as store, store.watch() as watch:
        assert watch.state == {"a": b"1", "b": b"2"}
        assert watch.next(timeout=0) == Change("c", b"3")


def test_a_restart_yields_the_net_difference_deletions_included(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        feed.push(batch(c=b"3", d=b"4"))
        feed.push(batch(restart=True, b=b"5", c=b"3", e=b"6"))
        feed.push(batch(c=None))
        state = dict(watch.state)
        seen = [watch.next(timeout=0) for _ in range(7)]
        with pytest.raises(WaitTimeoutError):
            watch.next(timeout=0)
    assert seen[:2] == [Change("c", b"3"), Change("d", b"4")]
    assert sorted(seen[2:6]) == [("a", None), ("b", b"5"), ("d", None), ("e", b"6")]
    assert seen[6] == Change("c", None)
    for key, value in seen:
        state |= {key: value} if value is not None else {}
        if value is None:
            del state[key]
    assert state == {"b": b"5", "e": b"6"}


def test_a_restart_without_a_difference_yields_nothing(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        feed.push(batch(restart=True, b=b"2", a=b"1"))
        with pytest.raises(WaitTimeoutError, match=r"no change to a key matching '\*' in 0 s"):
            watch.next(timeout=0)


def test_a_watch_that_times_out_goes_on_afterwards(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        with pytest.raises(WaitTimeoutError):
            watch.next(timeout=0.01)
        feed.push(batch(a=None))
        assert watch.next(timeout=0) == Change("a", None)


def test_the_timeout_of_a_watch_is_checked(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        with pytest.raises(ValueError, match="not negative"):
            watch.next(timeout=-1)
        with pytest.raises(TypeError, match="number of seconds"):
            watch.next(timeout="5")  # type: ignore[arg-type]


def test_iterating_ends_when_the_store_is_closed(feed: PushFollower, in_background: InBackground) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        seen = in_background(list, watch)
        store.close()
        assert seen.result(30) == []
        with pytest.raises(StoreClosedError):
            watch.next()


def test_a_watch_whose_block_was_left_says_that_and_not_that_the_store_was_closed(feed: PushFollower) -> None:
    with FedStore(feed) as store:
        with store.watch() as watch:
            feed.push(batch(a=b"2"))
        with pytest.raises(StoreClosedError) as caught:
            watch.next(timeout=0)
        assert "block" in str(caught.value)
        assert list(watch) == []


def test_a_watch_starts_where_its_block_does_and_once(feed: PushFollower) -> None:
    with FedStore(feed) as store:
        watch = store.watch()
        with pytest.raises(RuntimeError, match="a watch starts where its block does"):
            watch.next(timeout=0)
        with watch, pytest.raises(RuntimeError, match=r"entered before; call watch\(\) again"), watch:
            pass


def test_a_watch_that_cannot_look_raises_the_cause_and_lets_go() -> None:
    cause = StoreUnavailableError("connection refused")
    with FedStore(SilentFollower(outage=Outage(0.0, cause))) as store:
        with pytest.raises(StoreUnavailableError, match="connection refused"), store.watch():
            pass
        assert store._followers == set()


def test_a_watch_that_times_out_during_an_outage_says_so(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        feed.outage = Outage(monotonic(), StoreUnavailableError("connection refused"))
        with pytest.raises(WaitTimeoutError, match="the store has not answered for") as caught:
            watch.next(timeout=0)
    assert caught.value.__cause__ is feed.outage.cause
