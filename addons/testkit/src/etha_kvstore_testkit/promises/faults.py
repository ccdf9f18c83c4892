"""A server that is frozen or gone: every call ends in time and says what happened, and waits ride out what they can.

These tests ask for the fixture ``fault``; in a suite that gives none they are not collected.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from etha.kvstore.base import Change, KVStore
from etha.kvstore.errors import (
    KVStoreError,
    OperationTimeoutError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from etha_kvstore_testkit.harness import Harness, OpenStores, ServerFault
from etha_kvstore_testkit.observe import GRACE, PATIENCE, ctrl_c_after, in_background, see_under_way, takes
from etha_kvstore_testkit.tables import READS, WAITS, WRITES

__all__ = ["FaultPromises"]

TIMEOUT = 0.8
"""The operation timeout of the stores that meet a fault, in seconds."""

LONG = 30.0
"""Seconds that a wait may take which is to live through an outage; a server may need some of them to start."""


@contextmanager
def frozen(fault: ServerFault) -> Iterator[None]:
    """Freeze the server for the length of a block."""
    fault.freeze()
    try:
        yield
    finally:
        fault.thaw()


@contextmanager
def stopped(fault: ServerFault) -> Iterator[None]:
    """Kill the server for the length of a block."""
    fault.stop()
    try:
        yield
    finally:
        fault.start()


class _Noting(logging.Handler):
    """Notes that anything was logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.noted = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.noted.set()


@contextmanager
def noting_a_warning() -> Iterator[threading.Event]:
    """Give an event that is set as soon as a warning is logged in the block."""
    handler = _Noting()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.noted
    finally:
        logging.getLogger().removeHandler(handler)


def go_on(calls: Mapping[str, Future[Any]]) -> None:
    """See that calls in the background go on for a while, which is longer than the operation timeout."""
    ended = wait(calls.values(), 1.5 * TIMEOUT, FIRST_COMPLETED).done
    assert {name: call.exception() for name, call in calls.items() if call in ended} == {}


def failures(calls: Mapping[str, Future[Any]], within: float) -> dict[str, BaseException | None]:
    """Wait until calls in the background have ended, all of them within the same seconds, and give what each raised."""
    deadline = monotonic() + within
    return {name: call.exception(max(0.0, deadline - monotonic())) for name, call in calls.items()}


def each_raised(
    right: type[KVStoreError] | tuple[type[KVStoreError], ...], found: Mapping[str, BaseException | None]
) -> None:
    """See that each of several calls raised an error of the right kind."""
    assert {name: error for name, error in found.items() if not isinstance(error, right)} == {}


def every_wait(store: KVStore, timeout: float) -> dict[str, Future[object]]:
    """Begin all three waits at once, each in the background."""
    return {name: in_background(call, store, timeout=timeout) for name, call in WAITS.items()}


def time_out_and_say_since_when(found: Mapping[str, BaseException | None]) -> None:
    """See that each wait ended in a `WaitTimeoutError` that says since when the store could not be reached, and why."""
    for name, error in found.items():
        assert isinstance(error, WaitTimeoutError), f"{name} raised {error!r}"
        assert error.unreachable_for is not None, f"{name} does not say that the store could not be reached"
        assert 0 < error.unreachable_for <= error.waited
        assert isinstance(error.__cause__, KVStoreError), f"{name} does not say why"


class FaultPromises(Harness):
    """Every call ends within its deadline and a second, whatever happens to the server."""

    @pytest.fixture
    def brisk(self, opened: OpenStores) -> KVStore:
        """Open a store with a short operation timeout."""
        return opened(timeout=TIMEOUT)[0]

    # --- frozen ---

    def test_every_call_on_a_frozen_server_times_out_in_time(self, brisk: KVStore, fault: ServerFault) -> None:
        with frozen(fault):
            reads, writes = self._what_operations_raise(brisk)
        each_raised(OperationTimeoutError, reads)
        each_raised((OperationTimeoutError, OutcomeUnknownError), writes)

    def test_a_wait_that_begins_on_a_frozen_server_reaches_its_deadline_and_says_since_when(
        self, brisk: KVStore, fault: ServerFault
    ) -> None:
        timeout = 1.5 * TIMEOUT
        with frozen(fault), takes(at_least=timeout, at_most=timeout + GRACE):
            found = failures(every_wait(brisk, timeout), timeout + GRACE)
        time_out_and_say_since_when(found)

    def test_a_wait_without_time_looks_once_on_a_frozen_server_under_the_operation_timeout(
        self, brisk: KVStore, fault: ServerFault
    ) -> None:
        with frozen(fault):
            found = failures(every_wait(brisk, 0), TIMEOUT + GRACE)
        time_out_and_say_since_when(found)

    @pytest.mark.parametrize("wait", WAITS)
    def test_a_wait_that_begins_on_a_frozen_server_says_so_in_the_log_after_the_operation_timeout(
        self, brisk: KVStore, fault: ServerFault, wait: str
    ) -> None:
        named = {"candidate_keys": None} if wait == "wait_for_keys" and self.has("waits_by_pattern") else {}
        with noting_a_warning() as warned, frozen(fault):
            waiting = in_background(WAITS[wait], brisk, timeout=LONG, **named)
            assert warned.wait(TIMEOUT + GRACE), "a wait that nobody answers warns of it"
            brisk.close(cleanup=False)
            assert isinstance(waiting.exception(GRACE), StoreClosedError)

    def test_a_wait_on_a_server_that_freezes_reaches_its_deadline(self, brisk: KVStore, fault: ServerFault) -> None:
        timeout = 2 * TIMEOUT
        started = monotonic()
        waits = every_wait(brisk, timeout)
        see_under_way(brisk, *waits.values())
        with frozen(fault):
            found = failures(waits, started + timeout + GRACE - monotonic())
        each_raised(WaitTimeoutError, found)

    def test_a_wait_goes_on_through_a_freeze(self, brisk: KVStore, other: KVStore, fault: ServerFault) -> None:
        waits = every_wait(brisk, LONG)
        see_under_way(other, *waits.values())
        with frozen(fault):
            go_on(waits)
        other.set("rank:0/ready", "1")
        assert failures(waits, PATIENCE) == dict.fromkeys(WAITS)

    def test_a_read_goes_on_through_a_freeze_that_is_shorter_than_the_operation_timeout(
        self, store: KVStore, fault: ServerFault
    ) -> None:
        store.set("key", "1")
        with frozen(fault):
            reading = in_background(store.get, "key")
            go_on({"get": reading})
        assert reading.result(PATIENCE) == b"1"

    def test_a_store_works_again_after_a_freeze(self, brisk: KVStore, other: KVStore, fault: ServerFault) -> None:
        brisk.set("before", "1")
        with frozen(fault), pytest.raises(OperationTimeoutError):
            brisk.get("before")
        brisk.set("after", "2")
        assert (other.get("before"), other.get("after")) == (b"1", b"2")
        assert (brisk.get("before"), brisk.get("after")) == (b"1", b"2")

    @pytest.mark.parametrize("cleanup", [True, False])
    def test_close_on_a_frozen_server_ends_in_time_and_does_not_raise(
        self, brisk: KVStore, fault: ServerFault, cleanup: bool
    ) -> None:
        brisk.set("key", "1")
        with frozen(fault):
            in_background(brisk.close, cleanup=cleanup).result(TIMEOUT + GRACE)

    def test_close_ends_a_wait_on_a_frozen_server(self, brisk: KVStore, fault: ServerFault) -> None:
        waits = every_wait(brisk, LONG)
        see_under_way(brisk, *waits.values())
        with frozen(fault):
            go_on(waits)
            closing = in_background(brisk.close)
            found = failures(waits, GRACE)
            closing.result(TIMEOUT + GRACE)
        each_raised(StoreClosedError, found)

    @pytest.mark.parametrize("wait", WAITS)
    def test_ctrl_c_ends_a_wait_on_a_frozen_server(self, brisk: KVStore, fault: ServerFault, wait: str) -> None:
        with frozen(fault), ctrl_c_after(0.2):
            WAITS[wait](brisk, timeout=3 * GRACE)

    def test_a_server_that_is_frozen_can_not_be_opened(
        self, brisk: KVStore, opened: OpenStores, fault: ServerFault
    ) -> None:
        with frozen(fault), takes(at_most=2 * TIMEOUT + GRACE):
            error = in_background(opened, timeout=TIMEOUT, connect_timeout=TIMEOUT).exception(PATIENCE)
        assert isinstance(error, (StoreUnavailableError, OperationTimeoutError))

    # --- gone ---

    def test_every_call_on_a_server_that_is_gone_says_so_in_time(self, brisk: KVStore, fault: ServerFault) -> None:
        with stopped(fault):
            reads, writes = self._what_operations_raise(brisk)
        each_raised((StoreUnavailableError, OperationTimeoutError), reads)
        each_raised((StoreUnavailableError, OperationTimeoutError, OutcomeUnknownError), writes)

    def test_a_read_goes_on_when_the_server_is_back_or_says_that_it_is_gone(
        self, opened: OpenStores, fault: ServerFault
    ) -> None:
        store = opened(timeout=LONG)[0]
        store.set("key", "1")
        with stopped(fault):
            reading = in_background(store.get, "key")
            if self.has("outlives_server"):
                go_on({"get": reading})
            else:
                with pytest.raises(StoreUnavailableError):
                    reading.result(PATIENCE)
                return
        assert reading.result(PATIENCE) == b"1"

    def test_a_wait_that_begins_on_a_server_that_is_gone_rides_it_out_to_its_deadline_or_says_so_at_once(
        self, brisk: KVStore, fault: ServerFault
    ) -> None:
        timeout = 2 * TIMEOUT + GRACE
        with stopped(fault):
            if self.has("outlives_server"):
                with takes(at_least=timeout, at_most=timeout + GRACE):
                    found = failures(every_wait(brisk, timeout), timeout + GRACE)
                time_out_and_say_since_when(found)
            else:
                found = failures(every_wait(brisk, timeout), TIMEOUT + GRACE)
                each_raised(StoreUnavailableError, found)

    def test_a_wait_under_way_goes_on_when_the_server_is_back_or_says_at_once_that_it_is_gone(
        self, brisk: KVStore, opened: OpenStores, fault: ServerFault
    ) -> None:
        waits = every_wait(brisk, LONG)
        see_under_way(brisk, *waits.values())
        with stopped(fault):
            if not self.has("outlives_server"):
                found = failures(waits, TIMEOUT + GRACE)
                each_raised(StoreUnavailableError, found)
                return
            go_on(waits)
        opened()[0].set("rank:0/ready", "1")
        assert failures(waits, PATIENCE) == dict.fromkeys(WAITS)

    def test_a_wait_under_way_that_ends_in_an_outage_says_since_when_and_has_logged_it(
        self, brisk: KVStore, fault: ServerFault, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        timeout = 3 * TIMEOUT
        started = monotonic()
        waits = every_wait(brisk, timeout)
        see_under_way(brisk, *waits.values())
        with stopped(fault):
            found = failures(waits, started + timeout + GRACE - monotonic())
        if self.has("outlives_server"):
            time_out_and_say_since_when(found)
            assert caplog.records, "a wait that rides out an outage logs it"
        else:
            each_raised(StoreUnavailableError, found)

    def test_what_was_acknowledged_outlives_the_server_where_its_data_do(
        self, brisk: KVStore, opened: OpenStores, fault: ServerFault
    ) -> None:
        brisk.set("text", "1")
        brisk.set_bytes("data", b"\xff\x00")
        with stopped(fault), pytest.raises((StoreUnavailableError, OperationTimeoutError)):
            brisk.get("text")
        outlives = self.has("outlives_server")
        again = opened()[0]
        assert again.get("text") == (b"1" if outlives else None)
        assert again.get_bytes("data") == (b"\xff\x00" if outlives else None)
        if outlives:
            assert brisk.wait_for_value("text", "1", PATIENCE) == b"1"

    @pytest.mark.parametrize("cleanup", [True, False])
    def test_close_after_the_server_has_gone_ends_in_time_and_does_not_raise(
        self, brisk: KVStore, fault: ServerFault, caplog: pytest.LogCaptureFixture, cleanup: bool
    ) -> None:
        brisk.set("key", "1")
        with stopped(fault):
            in_background(brisk.close, cleanup=cleanup).result(TIMEOUT + GRACE)
            in_background(brisk.close).result(GRACE)
            with pytest.raises(StoreClosedError):
                brisk.get("key")
        if cleanup and self.has("cleanup"):
            assert [record for record in caplog.records if record.levelno >= logging.WARNING], "what it left is logged"

    def test_a_server_that_does_not_come_is_waited_for_and_then_named(
        self, brisk: KVStore, opened: OpenStores, fault: ServerFault
    ) -> None:
        with stopped(fault), takes(at_least=TIMEOUT / 2, at_most=TIMEOUT + GRACE):
            error = in_background(opened, connect_timeout=TIMEOUT).exception(PATIENCE)
        assert isinstance(error, StoreUnavailableError)

    def test_a_server_that_is_not_up_yet_is_waited_for(
        self, brisk: KVStore, opened: OpenStores, fault: ServerFault
    ) -> None:
        with stopped(fault):
            opening = in_background(opened, connect_timeout=LONG)
            go_on({"opening": opening})
        (late,) = opening.result(LONG)
        late.set("key", "1")
        assert late.get("key") == b"1"

    # --- watched ---

    def test_a_watch_goes_on_after_a_freeze(self, brisk: KVStore, other: KVStore, fault: ServerFault) -> None:
        if self.lacks("watch", brisk.watch):
            return
        with brisk.watch() as changes:
            other.set("key", "1")
            assert changes.next(PATIENCE) == Change("key", b"1")
            with frozen(fault), takes(at_most=TIMEOUT + GRACE), pytest.raises(WaitTimeoutError):
                changes.next(TIMEOUT)
            other.set("key", "2")
            assert changes.next(PATIENCE) == Change("key", b"2")

    def test_a_watch_resumes_when_the_server_is_back_or_says_that_it_is_gone(
        self, brisk: KVStore, opened: OpenStores, fault: ServerFault
    ) -> None:
        if self.lacks("watch", brisk.watch):
            return
        with brisk.watch() as changes:
            brisk.set("key", "1")
            assert changes.next(PATIENCE) == Change("key", b"1")
            with stopped(fault):
                waiting = in_background(changes.next, LONG)
                if not self.has("outlives_server"):
                    with pytest.raises(StoreUnavailableError):
                        waiting.result(TIMEOUT + GRACE)
                    return
                go_on({"next": waiting})
            again = opened()[0]
            again.set("key", "2")
            again.delete("key")
            assert waiting.result(PATIENCE) == Change("key", b"2")
            assert changes.next(PATIENCE) == Change("key", None)

    def _what_operations_raise(
        self, store: KVStore
    ) -> tuple[dict[str, BaseException | None], dict[str, BaseException | None]]:
        """Make every call but the waits at once, and give what the reads and the writes raised in time."""
        calls = {name: in_background(call, store) for name, call in [*READS.items(), *WRITES.items()]}
        if not self.lacks("list_keys", store.list_keys):
            calls["list_keys"] = in_background(store.list_keys)
        found = failures(calls, TIMEOUT + GRACE)
        writes = {name: found.pop(name) for name in WRITES}
        return found, writes
