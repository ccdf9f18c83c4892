"""`watch`: works where the capability ``watch`` is declared, and refuses by name where it is not."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from etha.kvstore.base import Change, KVStore, Watch
from etha.kvstore.errors import StoreClosedError, WaitTimeoutError
from etha_kvstore_testkit.harness import Harness, OpenStores
from etha_kvstore_testkit.observe import GRACE, PATIENCE, ctrl_c_after, in_background, see_under_way, takes
from etha_kvstore_testkit.promises.bad_inputs import NOT_TIMEOUTS
from etha_kvstore_testkit.tables import PATTERNS, PatternCase

__all__ = ["WatchPromises"]


def take(changes: Watch, number: int) -> list[Change]:
    """Take so many changes from a watch."""
    return [changes.next(PATIENCE) for _ in range(number)]


class WatchPromises(Harness):
    """A watch is the state at its start, then every change in order and once."""

    def test_state_is_what_was_there_at_the_start(self, store: KVStore, other: KVStore) -> None:
        other.set("a", "1")
        other.set("b/c", "")
        other.set("gone", "1")
        other.delete("gone")
        if self.lacks("watch", store.watch):
            return
        with store.watch() as changes:
            other.set("later", "1")
            assert changes.state == {"a": b"1", "b/c": b""}
            assert take(changes, 1) == [Change("later", b"1")]

    def test_every_change_comes_in_order_and_once_deletions_included(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        with store.watch() as changes:
            expected: list[Change] = []
            for number in range(5):
                for key in ("a", "b"):
                    other.set(key, str(number))
                    expected.append(Change(key, str(number).encode()))
                other.delete("a")
                expected.append(Change("a", None))
                other.delete("a")  # deletes nothing, and so changes nothing
            store.set("a", "its own")
            expected.append(Change("a", b"its own"))
            assert take(changes, len(expected)) == expected
            with pytest.raises(WaitTimeoutError):
                changes.next(0.1)

    def test_iterating_yields_the_changes(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        with store.watch() as changes:
            for number in range(3):
                other.set("counter", str(number))
            assert [change for _, change in zip(range(3), changes, strict=False)] == [
                Change("counter", str(number).encode()) for number in range(3)
            ]

    def test_nothing_is_missed_between_the_state_and_the_first_change(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        enough = threading.Event()

        def write() -> None:
            for number in count():
                other.set("counter", str(number))
                if enough.is_set():
                    return

        writing = in_background(write)
        try:
            store.wait_for_key("counter", PATIENCE)
            for _ in range(20):
                with store.watch("counter") as changes:
                    first = int(changes.state["counter"])
                    found = [int(change.value or b"") for change in take(changes, 5)]
                    assert found == list(range(first + 1, first + 6))
        finally:
            enough.set()
        writing.result(PATIENCE)

    @pytest.mark.parametrize("case", PATTERNS, ids=lambda case: case.pattern)
    def test_the_pattern_chooses_what_is_seen(self, store: KVStore, other: KVStore, case: PatternCase) -> None:
        if self.lacks("watch", lambda: store.watch(case.pattern)):
            return
        everything = [*case.others, *case.matching]
        with store.watch(case.pattern) as changes:
            for key in everything:
                other.set(key, "1")
            assert take(changes, len(case.matching)) == [Change(key, b"1") for key in case.matching]
            with pytest.raises(WaitTimeoutError):
                changes.next(0)
        with store.watch(case.pattern) as changes:
            assert changes.state == dict.fromkeys(case.matching, b"1")

    def test_it_follows_another_component_and_no_neighbour(
        self, store: KVStore, opened: OpenStores, namespace: str
    ) -> None:
        if self.lacks("watch", lambda: store.watch(component="elsewhere")):
            return
        neighbours = [opened(component=name)[0] for name in ("elsewher", "elsewhere0")]
        neighbours += [store, opened(namespace=namespace + "0", component="elsewhere")[0]]
        there = opened(component="elsewhere")[0]
        with store.watch(component="elsewhere") as changes:
            for neighbour in neighbours:
                neighbour.set("key", "theirs")
            there.set("key", "its own")
            assert changes.state == {}
            assert take(changes, 1) == [Change("key", b"its own")]

    def test_watches_of_one_store_do_not_take_from_each_other(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        with store.watch("a*") as first, store.watch("*b") as second, other.watch() as third:
            for key in ("a", "b", "ab"):
                other.set(key, "1")
            assert [change.key for change in take(first, 2)] == ["a", "ab"]
            assert [change.key for change in take(second, 2)] == ["b", "ab"]
            assert [change.key for change in take(third, 3)] == ["a", "b", "ab"]

    def test_next_waits_for_a_change_and_no_longer_than_it_may(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        with store.watch() as changes:
            with takes(at_most=GRACE), pytest.raises(WaitTimeoutError):
                changes.next(0)
            with takes(at_least=0.2, at_most=0.2 + GRACE), pytest.raises(WaitTimeoutError):
                changes.next(0.2)
            waiting = in_background(changes.next)
            see_under_way(other, waiting)
            other.set("key", "1")
            assert waiting.result(PATIENCE) == Change("key", b"1")

    def test_a_bad_timeout_is_refused(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        with store.watch() as changes:
            other.set("key", "1")
            raised = {
                what: in_background(changes.next, bad).exception(PATIENCE) for what, (bad, _) in NOT_TIMEOUTS.items()
            }
            wrong = {
                what: raised[what] for what, (_, error) in NOT_TIMEOUTS.items() if not isinstance(raised[what], error)
            }
            assert wrong == {}
            assert take(changes, 1) == [Change("key", b"1")]

    def test_it_ends_where_its_block_does(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        with store.watch() as changes:
            pass
        other.set("key", "1")
        assert list(changes) == []
        with pytest.raises(StoreClosedError):
            changes.next(PATIENCE)
        assert store.get("key") == b"1"

    def test_close_from_another_thread_ends_it(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        with store.watch() as iterated, store.watch() as asked:
            iterating = in_background(lambda: list(iterated))
            asking = in_background(asked.next)
            see_under_way(other, iterating, asking)
            closing = in_background(store.close, cleanup=False)
            assert iterating.result(GRACE) == []
            with pytest.raises(StoreClosedError):
                asking.result(GRACE)
            closing.result(PATIENCE)

    def test_ctrl_c_ends_a_wait_for_a_change(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("watch", store.watch):
            return
        with store.watch() as changes:
            with ctrl_c_after(0.1):
                changes.next(3 * GRACE)
            other.set("key", "1")
            assert take(changes, 1) == [Change("key", b"1")]

    def test_applying_the_changes_of_many_writers_ends_in_the_state_of_the_store(
        self, store: KVStore, other: KVStore
    ) -> None:
        if self.lacks("watch", store.watch):
            return

        def write(each: KVStore, writer: int) -> None:
            for number in range(20):
                each.set(f"key:{number % 5}", f"{writer}.{number}")
                if number % 3 == 0:
                    each.delete(f"key:{(number + writer) % 5}")

        with store.watch() as changes:
            found = dict(changes.state)
            for writing in [in_background(write, (store, other)[writer % 2], writer) for writer in range(4)]:
                writing.result(PATIENCE)
            other.set("last", "1")
            while "last" not in found:
                key, value = changes.next(PATIENCE)
                if value is None:
                    del found[key]  # only what was there can have been deleted
                else:
                    found[key] = value
        keys = [f"key:{number}" for number in range(5)]
        assert {key: found.get(key) for key in keys} == {key: store.get(key) for key in keys}
