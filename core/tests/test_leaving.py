"""The end of a store: closing it ends its waits and releases the backend once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from etha.kvstore.errors import StoreClosedError, WaitTimeoutError
from etha.kvstore.follow import Follower, PollingFollower, PushFollower, Selector
from small_stores import CALLS, WAITS, DictStore, FedStore, InBackground


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_after_close_is_refused(call: Callable[[DictStore, Any], object], store: DictStore) -> None:
    store.close()
    with pytest.raises(StoreClosedError, match="this DictStore is closed; open another one"):
        call(store, "k")


@pytest.mark.parametrize("cleanup", [True, False])
def test_a_store_is_released_once_however_often_it_is_closed(cleanup: bool, store: DictStore) -> None:
    store.close(cleanup)
    store.close()
    store.close(not cleanup)
    assert store.released == [cleanup]


def test_two_threads_that_close_at_the_same_time_release_it_once(store: DictStore, in_background: InBackground) -> None:
    both_found_it_open = threading.Barrier(2)

    class Gate:
        """The store's lock, before which both threads meet."""

        lock = threading.Lock()

        def __enter__(self) -> None:
            both_found_it_open.wait(30)
            self.lock.acquire()

        def __exit__(self, *exc_info: object) -> None:
            self.lock.release()

    store._life = Gate()  # type: ignore[assignment]
    closing = [in_background(store.close) for _ in range(2)]
    assert [thread.result(30) for thread in closing] == [None, None]
    assert store.released == [True]


class SignallingStore(DictStore):
    """A store that tells when a wait has begun to look."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Event()

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        self.looked.set()
        return super()._read(key, deadline)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_close_ends_the_waits_of_other_threads(
    wait: Callable[[DictStore, Any], object], in_background: InBackground
) -> None:
    store = SignallingStore()
    endless = in_background(wait, store, math.inf)
    assert store.looked.wait(30)
    store.close()
    with pytest.raises(StoreClosedError):
        endless.result(30)
    assert store._followers == set()


def test_waits_are_told_before_the_backend_lets_go() -> None:
    follower = PushFollower()
    told: list[bool] = []

    class OrderedStore(FedStore):
        def _release(self, cleanup: bool, deadline: float) -> None:
            with pytest.raises(StoreClosedError):
                follower.next(0.0)
            told.append(True)

    store = OrderedStore(follower)
    store._attach(Selector(store._pattern("*", None)))
    store.close()
    assert told == [True]


def test_a_wait_that_begins_while_the_store_closes_ends_too() -> None:
    follower = PushFollower()

    class ClosingStore(FedStore):
        def _follow(self, selector: Selector) -> Follower:
            self.close()
            return follower

    with pytest.raises(StoreClosedError, match="this ClosingStore is closed"):
        ClosingStore(follower).wait_for_key("k")
    with pytest.raises(StoreClosedError):
        follower.next(0.0)


def test_a_wait_lets_go_of_its_follower_however_it_ends(store: DictStore) -> None:
    made: list[PollingFollower] = []

    class KeepingStore(DictStore):
        def _follow(self, selector: Selector) -> Follower:
            made.append(PollingFollower(self, selector))
            return made[-1]

    keeping = KeepingStore()
    with pytest.raises(WaitTimeoutError):
        keeping.wait_for_key("k", timeout=0)
    keeping.set("k", "1")
    keeping.wait_for_key("k")
    assert keeping._followers == set()
    for follower in made:
        with pytest.raises(StoreClosedError):
            follower.next(math.inf)


def test_a_repr_says_what_where_and_whether_it_is_closed(store: DictStore) -> None:
    shown = "<DictStore backend='dict' namespace='job-42' component='trainer' at this process"
    assert repr(store) == f"{shown}>"
    store.close()
    assert repr(store) == f"{shown}, closed>"
