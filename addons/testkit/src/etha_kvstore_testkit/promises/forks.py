"""Forks: a store belongs to the process that opened it."""

from __future__ import annotations

import json
import os
import signal
import threading
import warnings
from collections.abc import Callable
from time import monotonic
from typing import Any

from etha.kvstore.base import KVStore
from etha_kvstore_testkit.harness import Harness
from etha_kvstore_testkit.observe import GRACE, PATIENCE, in_background, see_under_way
from etha_kvstore_testkit.tables import EVERY_CALL, OPTIONAL

__all__ = ["ForkPromises"]


def in_forked_child(call: Callable[[], object]) -> Any:
    """Make a call in a forked child, and return what it returned, by way of JSON.

    Parameters
    ----------
    call : callable
        What to call. The child ends with it.

    Returns
    -------
    object
        What it returned.
    """
    answers, answer = os.pipe()
    with warnings.catch_warnings():
        # From Python 3.12, of forking beside threads: what a store does then is the subject here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.write(answer, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(answer)
    overdue = threading.Timer(PATIENCE, os.kill, (child, signal.SIGKILL))
    overdue.start()
    try:
        with os.fdopen(answers, "rb") as said:
            text = said.read()
    finally:
        overdue.cancel()
        overdue.join()
        os.waitpid(child, 0)
    assert text, "the forked child hung, or died of something else than a store's error"
    return json.loads(text)


class ForkPromises(Harness):
    """A forked child's copy of a store refuses every call, and harms nothing."""

    def test_every_call_in_a_forked_child_is_refused(self, store: KVStore) -> None:
        store.set("rank:0/ready", "1")

        def outcomes() -> dict[str, str]:
            calls = {name: in_background(call, store) for name, call in EVERY_CALL.items()}
            return {name: type(call.exception(GRACE)).__name__ for name, call in calls.items()}

        refused = dict.fromkeys(EVERY_CALL, "ForkedStoreError")
        found = in_forked_child(outcomes)
        for name in OPTIONAL:
            if not self.has(name) and found[name] == "UnsupportedOperationError":
                refused[name] = found[name]
        assert found == refused

    def test_the_refusal_says_to_open_a_store_in_the_child(self, store: KVStore) -> None:
        assert "open" in in_forked_child(lambda: str(in_background(store.get, "key").exception(GRACE)))

    def test_close_in_a_forked_child_is_quick_and_harms_nothing(self, store: KVStore, other: KVStore) -> None:
        store.set("key", "1")
        waiting = in_background(store.wait_for_key, "later", PATIENCE)
        see_under_way(store, waiting)

        def close() -> tuple[float, str]:
            started = monotonic()
            store.close(cleanup=True)
            other.close(cleanup=True)
            return monotonic() - started, repr(store)

        took, shown = in_forked_child(close)
        assert took <= GRACE
        assert self.spec.name in shown
        assert (store.get("key"), other.get("key")) == (b"1", b"1")
        other.set("later", "2")
        assert waiting.result(PATIENCE) == b"2"
        assert other.delete("key") is True

    def test_a_child_that_ends_without_close_harms_nothing(self, store: KVStore, other: KVStore) -> None:
        store.set("key", "1")
        assert in_forked_child(lambda: "the end") == "the end"
        store.set("key", "2")
        assert other.wait_for_value("key", "2", PATIENCE) == b"2"
