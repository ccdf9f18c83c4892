"""The hub: who is told of a write, and that nothing slips between a wait's look and its watch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from etha.kvstore.errors import StoreClosedError
from etha.kvstore.follow import Batch, Follower, Selector
from etha.kvstore.patterns import Pattern
from etha_kvstore_memory import MemoryHub, MemoryStore
from etha_kvstore_memory.hub import HubFollower

KEY, OTHER = b"n/c/rank:0/ready", b"n/c/rank:1/ready"


@pytest.fixture
def hub() -> MemoryHub:
    return MemoryHub()


@pytest.fixture
def store(hub: MemoryHub) -> Iterator[MemoryStore]:
    with MemoryStore("n", "c", hub=hub) as opened:
        yield opened


def following(hub: MemoryHub, pattern: bytes, state: list[tuple[bytes, bytes]] | None = None) -> Follower:
    """Follow a pattern, and take the state that it begins with."""
    follower = hub.follow(Selector(Pattern(pattern)))
    assert list(follower.next(0.0)) == [Batch(state or [], restart=True)]
    return follower


def told(follower: Follower) -> list[Batch]:
    """Take all that a follower has been told by now."""
    return list(follower.next(0.0))


# --- who is told ---


def test_a_write_tells_those_whose_selector_it_touches_and_no_others(hub: MemoryHub) -> None:
    touched = [following(hub, pattern) for pattern in (KEY, b"n/c/*", b"n/c/rank:*/ready", b"n/c/*0/ready")]
    others = [following(hub, p) for p in (OTHER, b"n/c/rank:*/done", b"n/cc/*", b"n/c/rank:0", b"n/c/rank:0/ready*x")]
    hub.write(KEY, b"1")
    assert [told(follower) for follower in touched] == [[Batch(((KEY, b"1"),))]] * len(touched)
    assert [told(follower) for follower in others] == [[]] * len(others)


def test_a_deletion_is_told_once_and_only_where_something_was_there(hub: MemoryHub) -> None:
    hub.write(KEY, b"1")
    by_key, by_pattern = following(hub, KEY, [(KEY, b"1")]), following(hub, b"n/c/*", [(KEY, b"1")])
    assert hub.remove(KEY)
    assert not hub.remove(KEY)
    assert told(by_key) == told(by_pattern) == [Batch(((KEY, None),))]


def test_every_write_is_told_also_of_the_same_value(hub: MemoryHub) -> None:
    follower = following(hub, KEY)
    hub.write(KEY, b"1")
    hub.write(KEY, b"1")
    assert told(follower) == [Batch(((KEY, b"1"),))] * 2


def test_an_empty_value_is_there_and_can_be_deleted(hub: MemoryHub) -> None:
    hub.write(KEY, b"")
    assert hub.read(KEY) == b""
    assert hub.remove(KEY)
    assert hub.read(KEY) is None


def test_a_pattern_and_a_listing_look_at_no_other_components_keys() -> None:
    hub = MemoryHub()
    for number in range(1000):
        hub.write(b"n/cc/rank:%d" % number, b"1")
        hub.write(b"nn/c/rank:%d" % number, b"1")
    hub.write(KEY, b"1")

    class Counting(Pattern):
        looked_at = 0

        def matches(self, key: bytes) -> bool:
            self.looked_at += 1
            return super().matches(key)

    pattern = Counting(b"n/c/*")
    assert told(hub.follow(Selector(pattern))) == [Batch([(KEY, b"1")], restart=True)]
    assert pattern.looked_at == 1
    assert hub.snapshot(b"n/c/") == [(KEY, b"1")]
    assert hub.remove(KEY)
    assert hub.snapshot(b"n/c/") == []


@pytest.mark.parametrize("pattern", [KEY, b"n/c/*"])
def test_a_closed_follower_is_forgotten_and_its_neighbours_are_not(hub: MemoryHub, pattern: bytes) -> None:
    closed, neighbour = following(hub, pattern), following(hub, pattern)
    closed.close()
    closed.close()
    hub.write(KEY, b"1")
    assert told(neighbour) == [Batch(((KEY, b"1"),))]
    neighbour.close()
    assert (hub._by_key, hub._by_pattern) == ({}, set())


def test_closing_a_follower_of_a_pattern_leaves_those_of_a_key_with_its_prefix(hub: MemoryHub) -> None:
    by_pattern, by_key = following(hub, KEY + b"*"), following(hub, KEY)
    by_pattern.close()
    hub.write(KEY, b"1")
    assert told(by_key) == [Batch(((KEY, b"1"),))]


def test_a_wait_leaves_nothing_behind_in_the_hub(hub: MemoryHub, store: MemoryStore) -> None:
    store.set("k", "1")
    store.wait_for_key("k")
    store.wait_for_keys("*", 1)
    with pytest.raises(TimeoutError):
        store.wait_for_value("k", "2", timeout=0.01)
    with store.watch():
        pass
    assert (hub._by_key, hub._by_pattern) == ({}, set())


def test_stores_of_one_hub_see_each_other_and_only_their_own_namespace(hub: MemoryHub, store: MemoryStore) -> None:
    with MemoryStore("n", "c", hub=hub) as friend, MemoryStore("n1", "c", hub=hub) as stranger:
        store.set("k", "1")
        assert friend.wait_for_key("k", timeout=0) == b"1"
        assert stranger.list_keys() == []
        stranger.set("k", "2")
        assert (store.get("k"), store.list_keys()) == (b"1", ["k"])


def test_closing_one_store_ends_its_waits_and_not_those_of_another_on_the_same_key(hub: MemoryHub) -> None:
    one, other = MemoryStore("n", "c", hub=hub), MemoryStore("n", "c", hub=hub)
    with ThreadPoolExecutor(2) as pool, one.watch("k") as watched, other:
        ended, woken = pool.submit(list, watched), pool.submit(other.wait_for_key, "k")
        one.close()
        assert ended.result(30) == []
        with pytest.raises(StoreClosedError):
            one.wait_for_key("k")
        other.set("k", "1")
        assert woken.result(30) == b"1"


# --- nothing slips through ---


def test_a_write_that_comes_while_a_wait_begins_is_seen(hub: MemoryHub) -> None:
    writers: list[threading.Thread] = []

    class SlowPattern(Pattern):
        """A pattern that lets a writer in while the hub looks for what matches it."""

        __slots__ = ()

        def matches(self, key: bytes) -> bool:
            if not writers:
                writers.append(threading.Thread(target=hub.write, args=(KEY, b"2")))
                writers[0].start()
                writers[0].join(0.05)
                assert writers[0].is_alive(), "the look must shut the writer out until the follower is registered"
            return super().matches(key)

    hub.write(KEY, b"1")
    follower = hub.follow(Selector(SlowPattern(b"n/c/*")))
    writers[0].join(30)
    assert told(follower) == [Batch([(KEY, b"1")], restart=True), Batch(((KEY, b"2"),))]


@pytest.mark.parametrize("pattern", [KEY, b"n/c/*"])
def test_state_and_changes_are_told_under_one_lock_so_that_none_overtakes_another(
    hub: MemoryHub, pattern: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[bool] = []
    push = HubFollower.push

    def noting(follower: HubFollower, batch: Batch) -> None:
        locked.append(hub._lock._is_owned())  # type: ignore[attr-defined]
        push(follower, batch)

    monkeypatch.setattr(HubFollower, "push", noting)
    hub.follow(Selector(Pattern(pattern)))
    hub.write(KEY, b"1")
    hub.remove(KEY)
    assert locked == [True] * 3


@pytest.mark.parametrize("by", ["key", "value", "pattern"])
def test_a_write_that_races_with_the_start_of_a_wait_is_never_missed(by: str, store: MemoryStore) -> None:
    rounds = 3000
    start = threading.Barrier(2)

    def write() -> None:
        for number in range(rounds):
            start.wait(30)
            for _ in range(number % 50):  # so that the write falls now before and now after the look
                pass
            store.set(f"k{number}", "1")

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        for number in range(rounds):
            start.wait(30)
            if by == "key":
                assert store.wait_for_key(f"k{number}", timeout=30) == b"1"
            elif by == "value":
                assert store.wait_for_value(f"k{number}", "1", timeout=30) == b"1"
            else:
                assert store.wait_for_keys(f"*k{number}", 1, timeout=30) == [f"k{number}"]
            store.delete(f"k{number}")
        writer.result(30)


def test_a_hundred_waits_are_each_released_by_their_own_key(store: MemoryStore) -> None:
    waiters = 100
    with ThreadPoolExecutor(waiters) as pool:
        waits = [pool.submit(store.wait_for_value, f"k{number}", str(number), 60) for number in range(waiters)]
        for number in range(waiters):
            store.set(f"k{number}", str(number))
        assert [wait.result(60) for wait in waits] == [str(number).encode() for number in range(waiters)]


def test_a_hundred_ranks_meet(store: MemoryStore) -> None:
    ranks = 100

    def meet(rank: int) -> int:
        store.set(f"rank:{rank}/ready", "1")
        return len(store.wait_for_keys("rank:*/ready", ranks, timeout=60))

    with ThreadPoolExecutor(ranks) as pool:
        assert list(pool.map(meet, range(ranks))) == [ranks] * ranks


def test_a_watch_sees_each_write_of_several_threads_once_and_in_order(store: MemoryStore) -> None:
    writers, each = 4, 500

    def write(writer: int) -> None:
        for number in range(each):
            store.set(f"w{writer}", str(number))

    with store.watch("w*") as watch, ThreadPoolExecutor(writers) as pool:
        done = [pool.submit(write, writer) for writer in range(writers)]
        seen = [watch.next(timeout=60) for _ in range(writers * each)]
        assert all(future.result(60) is None for future in done)
        with pytest.raises(TimeoutError):
            watch.next(timeout=0)
    for writer in range(writers):
        assert [value for key, value in seen if key == f"w{writer}"] == [b"%d" % number for number in range(each)]


def test_of_many_deletions_of_one_key_exactly_one_succeeds(store: MemoryStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in range(200):
            store.set("k", "1")
            assert sorted(pool.map(store.delete, ["k"] * 4)) == [False, False, False, True]
