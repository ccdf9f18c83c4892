"""A store that is closed leaves nothing of grpcio's behind that could keep the process from ending."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from etcd_server import EtcdServer
from etha.kvstore.errors import StoreClosedError, StoreUnavailableError, WaitTimeoutError
from etha_kvstore_testkit.observe import ctrl_c_after

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore


def calls_alive() -> int:
    """Count grpcio's calls that take a lock when they are destroyed."""
    # By their types alone: asked what they are, other libraries' objects in this process may do anything.
    return sum({grpc.Call, grpc.RpcContext} <= set(type(each).__mro__) for each in gc.get_objects())


def await_threads(count: int) -> None:
    """Wait until no more threads than that are left; grpcio's own end in their own time."""
    deadline = monotonic() + 30
    while threading.active_count() > count:
        assert monotonic() < deadline, threading.enumerate()
        gc.collect()


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from hiding what is left in a cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_no_call_outlives_its_store(etcd: EtcdServer, open_store: OpenStore) -> None:
    before, threads = calls_alive(), threading.active_count()
    store, writer = open_store(etcd.endpoint), open_store(etcd.endpoint)
    with ThreadPoolExecutor(2) as pool:
        wait = pool.submit(store.wait_for_key, "key", 30)
        with store.watch() as changes:
            writer.set("key", "1")
            changes.next(10)
        assert wait.result(10) == b"1"
        cut_short = pool.submit(store.wait_for_key, "never", 30)
        with pytest.raises(WaitTimeoutError):
            store.wait_for_key("never", 0.2)
        store.close(cleanup=False)
        with pytest.raises(StoreClosedError):
            cut_short.result(10)
        del cut_short
    writer.close(cleanup=False)
    assert calls_alive() == before
    assert threading.active_count() <= threads + 2  # grpcio's own end in their own time


def test_ctrl_c_ends_a_close_on_a_frozen_server_and_another_close_ends_the_threads(open_store: OpenStore) -> None:
    threads = threading.active_count()
    with EtcdServer() as server:
        store = open_store(server.endpoint, timeout=10.0)
        store.set("key", "1")
        with store.watch():
            server.freeze()
            with ctrl_c_after(0.3):
                store.close()
            store.close()
        await_threads(threads)


def test_a_close_while_another_stream_is_being_opened_ends_its_thread(
    etcd: EtcdServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threading.active_count()
    store = open_store(etcd.endpoint)
    opening, closing = threading.Event(), threading.Event()
    with store.watch() as changes:
        store.set("key", "1")
        changes.next(10)
        opened = store._stream._read

        def open_late(*arguments: Any) -> None:
            opening.set()
            closing.wait(10)
            opened(*arguments)

        monkeypatch.setattr(store._stream, "_read", open_late)
        store._stream.restart(StoreUnavailableError("the test opens another"))
        assert opening.wait(10)
        with ThreadPoolExecutor(1) as pool:
            closed = pool.submit(store.close)
            assert store._connection.closed.wait(10)
            closing.set()
            closed.result(10)
    await_threads(threads)
