"""What a store logs and prints: nothing while all is well, and once in a while that a wait goes on."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import WaitTimeoutError
from etha_kvstore_testkit.harness import Harness, OpenStores
from etha_kvstore_testkit.observe import PATIENCE
from etha_kvstore_testkit.tables import EVERY_CALL, OPTIONAL, WAITS

__all__ = ["QuietPromises"]


class QuietPromises(Harness):
    """On a healthy path nothing is printed, and nothing above DEBUG is logged but a wait's progress."""

    def test_a_healthy_life_prints_nothing_and_logs_nothing_above_debug(
        self, opened: OpenStores, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        store, other = opened(2)
        for name, call in EVERY_CALL.items():
            if name in OPTIONAL and not self.has(name):
                continue
            if name == "get_bytes":
                other.set_bytes("rank:0/ready", b"\xff")
            else:
                other.set("rank:0/ready", "1")
            call(store)
        other.delete("rank:0/ready")
        for wait in WAITS.values():  # a wait that times out is healthy, too
            with suppress(WaitTimeoutError):
                wait(store, timeout=0.05)
            later = threading.Timer(0.05, other.set, ("rank:0/ready", "1"))
            later.start()
            wait(store, timeout=PATIENCE)
            later.join()
            other.delete("rank:0/ready")
        other.close()
        store.close()
        assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []
        assert tuple(capfd.readouterr()) == ("", "")

    def test_a_wait_that_goes_on_says_so_at_info_and_then_at_doubling_intervals(
        self, store: KVStore, first_report: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        store.set("rank:1/ready", "starting")
        with pytest.raises(WaitTimeoutError):
            store.wait_for_keys(
                "rank:*/ready", 2, timeout=7.5 * first_report, candidate_keys=["rank:0/ready", "rank:1/ready"]
            )
        said = [record for record in caplog.records if record.levelno > logging.DEBUG]
        assert 1 <= len(said) <= 3, "after one, two and four times the first interval, or fewer where time was short"
        for record in said:
            assert record.levelno == logging.INFO
            for fact in ("rank:*/ready", "rank:0/ready", "rank:1/ready", "starting"):
                assert fact in record.getMessage()

    def test_a_wait_says_nothing_before_its_first_report(
        self, store: KVStore, first_report: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        with pytest.raises(WaitTimeoutError):
            store.wait_for_key("key", first_report / 2)
        assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []
