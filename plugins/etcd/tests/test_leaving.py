"""A store that is closed leaves nothing of grpcio's behind that could keep the process from ending."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from etcd_server import EtcdServer
from etha.kvstore.errors import StoreClosedError, WaitTimeoutError

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore


def calls_alive() -> int:
    """Count grpcio's calls that take a lock when they are destroyed."""
    # By their types alone: asked what they are, other libraries' objects in this process may do anything.
    return sum({grpc.Call, grpc.RpcContext} <= set(type(each).__mro__) for each in gc.get_objects())


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
