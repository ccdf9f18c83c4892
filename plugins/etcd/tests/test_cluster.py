"""Several members: one that is dead, frozen or killed does not stop the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from etcd_server import EtcdCluster, EtcdServer, free_port
from etha.kvstore import Change
from etha.kvstore.errors import OutcomeUnknownError, StoreUnavailableError
from etha_kvstore_etcd.connection import Backoff
from tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore


@pytest.fixture
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster(3) as cluster:
        yield cluster


def test_a_dead_first_endpoint_is_skipped_at_the_opening(etcd: EtcdServer, open_store: OpenStore) -> None:
    started = time.monotonic()
    store = open_store(f"127.0.0.1:{free_port()}", etcd.endpoint)
    assert store.get("key") is None
    assert time.monotonic() - started < 2.0


def test_a_frozen_first_endpoint_is_skipped_at_the_opening(cluster: EtcdCluster, open_store: OpenStore) -> None:
    frozen = cluster.members[0]
    frozen.freeze()
    store = open_store(*cluster.endpoints)
    assert store.get("key") is None
    frozen.thaw()


def await_end_of_connections(address: str) -> None:
    """Wait until this process has noticed that all its connections to an address have ended."""
    host, _, port = address.rpartition(":")
    while any(tuple(each.raddr) == (host, int(port)) for each in psutil.Process().net_connections()):
        time.sleep(0.01)


def test_a_member_whose_name_does_not_resolve_is_left_and_the_write_is_sent_to_another(
    etcd: EtcdServer, open_store: OpenStore
) -> None:
    with TcpProxy(etcd.endpoint) as proxy:
        store = open_store(proxy.address, "a-pod-that-is-down.invalid:2379", etcd.endpoint)
        store.set("key", "before")
        proxy.refuse()
        await_end_of_connections(proxy.address)  # what is sent on a dying one may have arrived
        store.set("key", "after")
    assert store.get("key") == b"after"


def test_no_endpoint_at_all_is_an_error_that_names_them_after_connect_timeout(open_store: OpenStore) -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError) as raised:
        open_store(*addresses, connect_timeout=0.5)
    assert all(address in str(raised.value) for address in addresses)
    assert time.monotonic() - started < 1.5


def test_a_server_that_starts_later_is_waited_for(open_store: OpenStore) -> None:
    server = EtcdServer()
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(open_store, server.endpoint, connect_timeout=30.0)
        with server:
            assert opening.result(30).get("key") is None


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_reads_move_on_when_the_member_that_is_asked_goes_away(
    cluster: EtcdCluster, open_store: OpenStore, harm: str
) -> None:
    store = open_store(*cluster.endpoints, timeout=30.0)
    store.set("key", "value")
    victim = cluster.members[0]
    getattr(victim, harm)()
    assert store.get("key") == b"value"
    if harm == "freeze":
        victim.thaw()


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_waits_move_on_when_the_member_that_they_watch_goes_away(
    cluster: EtcdCluster, open_store: OpenStore, harm: str
) -> None:
    victim = cluster.members[0]
    store, writer = open_store(*cluster.endpoints), open_store(*cluster.endpoints[1:], timeout=20.0)
    with store.watch() as changes, ThreadPoolExecutor(1) as pool:
        wait = pool.submit(store.wait_for_key, "key", 60)
        writer.set("first", "1")
        assert changes.next(10) == Change("first", b"1")
        getattr(victim, harm)()
        for _ in range(3):  # the victim may have led: a write in that moment may be of unknown outcome
            try:
                writer.set("key", "value")
                break
            except OutcomeUnknownError:
                continue
        assert wait.result(60) == b"value"
        while changes.next(60) != Change("key", b"value"):
            pass
    if harm == "freeze":
        victim.thaw()


def test_an_outage_of_any_length_is_told_as_what_it_is(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "FIRST", 0.0)
    monkeypatch.setattr(Backoff, "LONGEST", 0.0)
    with pytest.raises(StoreUnavailableError):  # after thousands of attempts
        open_store(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", connect_timeout=3.0)


def test_a_write_of_unknown_outcome_leaves_the_member_that_did_not_answer(
    cluster: EtcdCluster, open_store: OpenStore
) -> None:
    store = open_store(*cluster.endpoints, timeout=2.0)
    store.set("key", "value")
    frozen = cluster.members[0]
    frozen.freeze()
    with pytest.raises(OutcomeUnknownError):
        store.delete("key")
    store.timeout = 30.0
    started = time.monotonic()
    store.delete("key")
    assert time.monotonic() - started < 15.0
    frozen.thaw()
