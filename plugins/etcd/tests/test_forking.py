"""Forks beside calls: the parent loses no reply, the child lives, and neither side waits for the other for long."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent import futures
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer
from etha_kvstore_etcd import EtcdStore, forking
from etha_kvstore_testkit.observe import PATIENCE, in_background
from tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore

FORKS = 60
"""Of so many children, six died where forks and calls were not kept apart."""

LONGEST_CALL = 1.0
"""Seconds. A call whose reply a fork has lost takes the operation timeout, which is five."""


@pytest.fixture
def proxy(etcd: EtcdServer) -> Iterator[TcpProxy]:
    with TcpProxy(etcd.endpoint) as proxy:
        yield proxy


def fork(in_child: Callable[[], None] = lambda: None) -> None:
    """Fork, and see the child end well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12, of forking beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that hangs shall not outlive the test
        code = 1
        try:
            in_child()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_waits_until_a_call_has_its_reply(
    proxy: TcpProxy, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "LONGEST_HOLD", PATIENCE)
    store = open_store(proxy.address)
    proxy.hold("replies")
    calling = in_background(store.get, "key")
    proxy.await_struck("replies")
    forked = in_background(fork)
    with pytest.raises(futures.TimeoutError):
        forked.result(0.2)
    proxy.release()
    assert calling.result(PATIENCE) is None
    forked.result(PATIENCE)


def test_a_fork_does_not_wait_for_a_server_that_stands_still(
    proxy: TcpProxy, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "LONGEST_HOLD", 0.1)
    store = open_store(proxy.address)
    proxy.hold("replies")
    calling = in_background(store.get, "key")
    proxy.await_struck("replies")
    fork()
    assert not calling.done()
    proxy.release()
    calling.exception(PATIENCE)  # gRPC may have lost the reply by now; the call has ended


def test_a_signals_handler_that_calls_in_the_middle_of_a_fork_does_not_wait_for_it(
    etcd: EtcdServer, open_store: OpenStore
) -> None:
    store = open_store(etcd.endpoint)
    forking._begin()
    try:
        assert store.get("key") is None
    finally:
        forking._end_in_parent()


def test_forks_beside_busy_stores_lose_no_reply_and_every_child_opens_a_store_of_its_own(
    etcd: EtcdServer, open_store: OpenStore
) -> None:
    stores = [open_store(etcd.endpoint) for _ in range(3)]
    over = threading.Event()

    def keep_busy(store: EtcdStore) -> float:
        """Call without a pause; return the longest time that a call took."""
        longest = 0.0
        while not over.is_set():
            started = monotonic()
            store.set("key", "1")
            longest = max(longest, monotonic() - started)
        return longest

    def open_own() -> None:
        with EtcdStore("child", "own", endpoints=[etcd.endpoint], timeout=2.0, connect_timeout=5.0) as own:
            own.set("key", "1")
            own.wait_for_value("key", "1", timeout=2.0)

    busy = [in_background(keep_busy, store) for store in stores]
    try:
        for _ in range(FORKS):
            fork(open_own)
    finally:
        over.set()
    assert [took for took in (each.result(PATIENCE) for each in busy) if took > LONGEST_CALL] == []
