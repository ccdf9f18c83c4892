"""Waits on one key: `wait_for_key` and `wait_for_value`, and what all waits have in common."""

from __future__ import annotations

import math
import time

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import WaitTimeoutError
from etha_kvstore_testkit.harness import Harness
from etha_kvstore_testkit.observe import GRACE, PATIENCE, in_background, see_under_way, takes
from etha_kvstore_testkit.tables import WAITS

__all__ = ["WaitPromises"]

ROUNDS = 80
"""How often a write races against the start of each wait."""

RACE_PATIENCE = 5.0
"""Seconds after which a wait that was raced has missed the write."""


class WaitPromises(Harness):
    """A wait returns when its condition comes true, and says what it found when it does not."""

    @pytest.mark.parametrize("text", ["1", "", "\u00e9"])
    def test_a_wait_that_is_satisfied_already_returns_at_once(self, store: KVStore, other: KVStore, text: str) -> None:
        store.set("key", text)
        with takes(at_most=GRACE):
            assert other.wait_for_key("key", 2 * GRACE) == text.encode()
            assert other.wait_for_value("key", text, 2 * GRACE) == text.encode()
            assert other.wait_for_keys("k*", 1, text, 2 * GRACE, ["key"]) == ["key"]

    def test_wait_for_key_returns_what_a_later_write_wrote_even_nothing(self, store: KVStore, other: KVStore) -> None:
        waiting = in_background(store.wait_for_key, "key", PATIENCE)
        see_under_way(store, waiting)
        other.set("key", "")
        found = waiting.result(PATIENCE)
        assert (type(found), found) == (bytes, b"")

    def test_wait_for_value_goes_on_until_the_key_has_the_value(self, store: KVStore, other: KVStore) -> None:
        other.set("version", "6")
        waiting = in_background(store.wait_for_value, "version", "7", PATIENCE)
        see_under_way(store, waiting)
        for text in ("", "77", "8"):
            other.set("version", text)
        other.delete("version")
        see_under_way(store, waiting)
        other.set("version", "7")
        found = waiting.result(PATIENCE)
        assert (type(found), found) == (bytes, b"7")

    def test_wait_for_value_does_not_take_an_absent_key_for_an_empty_one(self, store: KVStore) -> None:
        with pytest.raises(WaitTimeoutError) as timeout:
            store.wait_for_value("key", "", 0.05)
        assert timeout.value.missing == ["key"]
        store.set("key", "")
        assert store.wait_for_value("key", "", 0.05) == b""

    @pytest.mark.parametrize("wait", WAITS)
    def test_a_write_through_the_same_store_ends_a_wait_too(self, store: KVStore, wait: str) -> None:
        waiting = in_background(WAITS[wait], store, timeout=PATIENCE)
        see_under_way(store, waiting)
        store.set("rank:0/ready", "1")
        waiting.result(PATIENCE)

    @pytest.mark.parametrize("wait", WAITS)
    def test_a_condition_that_comes_true_and_stays_true_is_never_missed(
        self, store: KVStore, other: KVStore, wait: str
    ) -> None:
        def write_after(seconds: float, key: str) -> None:
            time.sleep(seconds)
            other.set(key, "1")

        started = time.monotonic()
        with pytest.raises(WaitTimeoutError):
            WAITS[wait](store, key="absent", timeout=0)
        look = time.monotonic() - started
        for number in range(ROUNDS):  # the writes fall evenly from before the look to well after it
            key = f"rank:{number}/ready"
            written = in_background(write_after, 2 * look * number / ROUNDS, key)
            WAITS[wait](store, key=key, timeout=RACE_PATIENCE)
            written.result(PATIENCE)

    def test_a_condition_that_holds_for_a_moment_is_caught_where_every_change_is_followed(
        self, store: KVStore, other: KVStore
    ) -> None:
        other.set("phase", "before")
        timeout = PATIENCE if self.has("watch") else 1.0
        waiting = in_background(store.wait_for_value, "phase", "now", timeout)
        see_under_way(store, waiting)
        other.set("phase", "now")
        other.set("phase", "after")
        error = waiting.exception(2 * PATIENCE)
        if self.has("watch") or error is None:
            assert waiting.result() == b"now"
        else:  # one that polls may miss it, and then says what it sees
            assert isinstance(error, WaitTimeoutError)
            assert error.mismatched == {"phase": b"after"}

    def test_a_timeout_says_what_was_waited_for_and_for_how_long(self, store: KVStore) -> None:
        with takes(at_least=0.2, at_most=0.2 + GRACE), pytest.raises(TimeoutError) as timeout:
            store.wait_for_key("rank:0/address", 0.2)
        error = timeout.value
        assert isinstance(error, WaitTimeoutError)
        assert 0.2 <= error.waited <= 0.2 + GRACE
        assert (error.expected_count, error.matched, error.mismatched) == (1, [], {})
        assert error.missing == ["rank:0/address"]
        assert error.unreachable_for is None
        assert "rank:0/address" in str(error)
        assert f"{error.waited:.1f} s" in str(error)

    def test_a_timeout_names_the_value_that_the_key_has_instead(self, store: KVStore, other: KVStore) -> None:
        other.set("weights/version", "6")
        with takes(at_least=0.2, at_most=0.2 + GRACE), pytest.raises(WaitTimeoutError) as timeout:
            store.wait_for_value("weights/version", "7", 0.2)
        error = timeout.value
        assert (error.expected_count, error.matched, error.missing) == (1, [], [])
        assert error.mismatched == {"weights/version": b"6"}
        assert error.unreachable_for is None
        for fact in ("weights/version", "'7'", "b'6'"):
            assert fact in str(error)

    @pytest.mark.parametrize("wait", WAITS)
    @pytest.mark.parametrize("timeout", [0, 0.0, 1e-9])
    def test_a_wait_without_time_looks_once(self, store: KVStore, other: KVStore, wait: str, timeout: float) -> None:
        with takes(at_most=GRACE), pytest.raises(WaitTimeoutError) as refusal:
            WAITS[wait](store, timeout=timeout)
        assert refusal.value.missing == ["rank:0/ready"], "it did look"
        other.set("rank:0/ready", "1")
        with takes(at_most=GRACE):
            WAITS[wait](store, timeout=timeout)

    @pytest.mark.parametrize("wait", WAITS)
    def test_a_wait_can_be_for_ever_or_for_longer_than_a_clock_can_count(
        self, store: KVStore, other: KVStore, wait: str
    ) -> None:
        timeouts = [math.inf, 1e300, 10**400, 2.0**31, 25 * 86_400]
        waits = [in_background(WAITS[wait], store, timeout=timeout) for timeout in timeouts]
        see_under_way(other, *waits)
        other.set("rank:0/ready", "1")
        for waiting in waits:
            waiting.result(PATIENCE)
