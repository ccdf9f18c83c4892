"""The life of a store: open, close, use after close, and what ends a wait early."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import InvalidKeyError, StoreClosedError, UnsupportedOperationError
from etha_kvstore_testkit.harness import Harness, OpenStores
from etha_kvstore_testkit.observe import (
    GRACE,
    PATIENCE,
    call_with_a_signal,
    ctrl_c_after,
    in_background,
    see_under_way,
    takes,
)
from etha_kvstore_testkit.tables import EVERY_CALL, OPTIONAL, WAITS

__all__ = ["LifePromises"]

MOMENTS = 12
"""At how many of its lines a call is interrupted; each time by a store of its own."""


class LifePromises(Harness):
    """A store opens or says why not, and after `close` it is closed for everybody."""

    @pytest.mark.parametrize("part", ["namespace", "component"])
    @pytest.mark.parametrize(
        ("name", "error"),
        [
            pytest.param("", InvalidKeyError, id="empty"),
            pytest.param("a/b", InvalidKeyError, id="with a slash"),
            pytest.param("/", InvalidKeyError, id="a slash"),
            pytest.param("a\0b", InvalidKeyError, id="with NUL"),
            pytest.param("a\ud800", InvalidKeyError, id="with a lone surrogate"),
            pytest.param("n" * 4096, InvalidKeyError, id="too long"),
            pytest.param(None, TypeError, id="None"),
            pytest.param(b"name", TypeError, id="bytes"),
            pytest.param(7, TypeError, id="an int"),
        ],
    )
    def test_a_store_is_not_opened_under_a_name_that_breaks_a_rule(
        self, opened: OpenStores, part: str, name: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            opened(**{part: name})

    def test_leaving_the_block_closes_the_store(self, store: KVStore, other: KVStore) -> None:
        with store as entered:
            assert entered is store
            store.set("key", "1")
        with pytest.raises(StoreClosedError):
            store.get("key")
        with pytest.raises(ZeroDivisionError), other:  # an error leaves the block as it is
            raise ZeroDivisionError
        with pytest.raises(StoreClosedError):
            other.get("key")

    def test_close_may_be_called_again(self, store: KVStore) -> None:
        for cleanup in (False, False, True):
            store.close(cleanup=cleanup)
        store.close()

    def test_close_may_be_called_from_many_threads_at_once(self, store: KVStore) -> None:
        together = threading.Barrier(8)

        def close() -> None:
            together.wait(PATIENCE)
            store.close()

        for closing in [in_background(close) for _ in range(together.parties)]:
            closing.result(PATIENCE)

    @pytest.mark.parametrize("call", ["set", "wait_for_key"])
    def test_close_in_a_signals_handler_ends_whatever_the_call_was_doing(self, opened: OpenStores, call: str) -> None:
        more = {"timeout": 0.02} if call in WAITS else {}

        def interrupted(line: int) -> int:
            (store,) = opened(timeout=GRACE)
            ended = in_background(
                call_with_a_signal, lambda: EVERY_CALL[call](store, **more), line, lambda: store.close(cleanup=False)
            )
            lines = ended.result(5 * GRACE)
            store.close(cleanup=False)
            return lines

        lines = interrupted(0)
        for part in range(MOMENTS):
            interrupted(1 + part * lines // MOMENTS)

    @pytest.mark.parametrize("call", EVERY_CALL)
    def test_a_call_after_close_is_refused(self, store: KVStore, other: KVStore, call: str) -> None:
        other.set("rank:0/ready", "1")
        store.close(cleanup=False)
        lacking = call in OPTIONAL and not self.has(call)
        with pytest.raises((StoreClosedError, UnsupportedOperationError) if lacking else StoreClosedError):
            EVERY_CALL[call](store)
        assert other.get("rank:0/ready") == b"1"

    def test_closing_one_store_leaves_the_others_open(self, store: KVStore, other: KVStore) -> None:
        waiting = in_background(store.wait_for_key, "key", PATIENCE)
        see_under_way(store, waiting)
        other.close(cleanup=False)
        store.set("key", "1")
        assert waiting.result(PATIENCE) == b"1"
        assert store.get("key") == b"1"

    @pytest.mark.parametrize("wait", WAITS)
    def test_close_from_another_thread_ends_a_wait(self, opened: OpenStores, wait: str) -> None:
        beside, store = opened(2)
        waiting = in_background(WAITS[wait], store, timeout=PATIENCE)
        see_under_way(beside, waiting)
        closing = in_background(store.close)
        with pytest.raises(StoreClosedError):
            waiting.result(GRACE)
        closing.result(PATIENCE)

    @pytest.mark.parametrize("wait", WAITS)
    def test_ctrl_c_ends_a_wait_and_the_store_goes_on(self, store: KVStore, wait: str) -> None:
        with ctrl_c_after(0.1):
            WAITS[wait](store, timeout=3 * GRACE)
        store.set("rank:0/ready", "1")
        with takes(at_most=GRACE):
            WAITS[wait](store, timeout=PATIENCE)
