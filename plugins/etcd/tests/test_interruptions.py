"""Ctrl-C in a wait on etcd, at whatever step it strikes: the store serves the next call, and closes."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from etcd_server import EtcdServer
from etha.kvstore import Change
from etha.kvstore.errors import WaitTimeoutError
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_testkit.observe import call_with_a_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.etcd.tests.conftest import OpenStore

OURS_AND_GRPCS = ("/etha/", "/etha_kvstore_etcd/", "/grpc/")


NO_INSTRUCTION_YET = -1 if sys.version_info < (3, 11) else sys.maxsize
"""The last instruction, at most, of a frame that may be struck.

What a trace function raises where a generator goes on, Python 3.10 raises outside of the generator, whose ``with`` then
gives no lock back. A signal strikes within, like the trace functions of later versions.
"""


class Strike:
    """Raise `KeyboardInterrupt`, as Ctrl-C does, where this thread calls its n-th function of ours or of grpcio's."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        ours_or_grpcs = any(part in frame.f_code.co_filename for part in OURS_AND_GRPCS)
        if ours_or_grpcs and frame.f_lasti <= NO_INSTRUCTION_YET:
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt

    def __enter__(self) -> None:
        sys.settrace(self)

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)


def test_ctrl_c_at_any_step_of_a_wait_leaves_a_store_that_serves_the_next_and_closes(
    etcd: EtcdServer,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # grpcio's destructors object to half-made calls
    for nth in range(1, 1000):
        store, strike = open_store(etcd.endpoint), Strike(nth)
        try:
            with strike:
                store.wait_for_key("key", timeout=0.2)
        except WaitTimeoutError:
            if strike.left > 0:
                break  # the wait has fewer steps
        except KeyboardInterrupt:
            pass

        def go_on(store: EtcdStore = store) -> None:
            store.set("other", "1")
            store.wait_for_key("other", timeout=10)
            store.close()

        pool = ThreadPoolExecutor(1)
        pool.submit(go_on).result(20)
        pool.shutdown()
    assert nth > 50
    record_property("steps struck by Ctrl-C", nth - 1)


def test_close_in_a_signals_handler_ends_at_any_step_of_a_first_wait(
    etcd: EtcdServer, open_store: OpenStore, record_property: Callable[[str, object], None]
) -> None:
    def interrupted(line: int) -> int:
        store = open_store(etcd.endpoint, timeout=0.5)
        steps = call_with_a_signal(lambda: store.wait_for_key("key", timeout=0.02), line, store.close)
        store.close()
        return steps

    struck = range(1, interrupted(0), 20)
    with ThreadPoolExecutor(1) as pool:
        for line in struck:
            pool.submit(interrupted, line).result(20)
    record_property("steps struck by a handler that closes", len(struck))


@pytest.mark.parametrize("is_running", [False, True])
def test_a_store_whose_first_wait_ctrl_c_broke_off_serves_the_next_and_closes(
    is_running: bool, own_etcd: EtcdServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, start = "etha-kvstore-etcd-watch", threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if is_running or thread.name != name:
            start(thread)
        if thread.name == name:
            raise KeyboardInterrupt

    store, writer = open_store(own_etcd.endpoint), open_store(own_etcd.endpoint)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.wait_for_key("key", timeout=10)
    with store.watch() as changes:
        writer.set("key", "1")
        assert changes.next(10) == Change("key", b"1")
        watchers = [each for each in threading.enumerate() if each.name == name]
        assert len(watchers) == 1
    store.close()
