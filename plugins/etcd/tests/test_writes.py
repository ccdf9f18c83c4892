"""Writes whose replies are lost: confirmed where that can be shown, never sent twice, never claimed without proof."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import pytest

from etcd_server import EtcdServer
from etcd_troubles import make_data_differ
from etha.kvstore.errors import OutcomeUnknownError, StoreUnavailableError, ValueTooLargeError
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_testkit.observe import takes
from tcp_proxy import Direction, TcpProxy

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore


@pytest.fixture
def proxy(etcd: EtcdServer) -> Iterator[TcpProxy]:
    with TcpProxy(etcd.endpoint) as proxy:
        yield proxy


def revisions(etcd: EtcdServer, store: EtcdStore, key: str) -> int:
    """Tell how often a key was written since it was created."""
    with grpc.insecure_channel(etcd.endpoint) as channel:
        call = channel.unary_unary(
            "/etcdserverpb.KV/Range", pb.RangeRequest.SerializeToString, pb.RangeResponse.FromString
        )
        (kv,) = call(pb.RangeRequest(key=f"{store.namespace}/{store.component}/{key}".encode())).kvs
        return int(kv.version)


def in_flight(call: Callable[[], object], proxy: TcpProxy) -> tuple[threading.Thread, list[object]]:
    """Start a call while the proxy holds the replies, and wait until it holds some."""
    return _held(call, proxy, "replies")


def in_flight_requests(call: Callable[[], object], proxy: TcpProxy) -> tuple[threading.Thread, list[object]]:
    """Start a call while the proxy holds the requests, and wait until it holds some."""
    return _held(call, proxy, "requests")


def _held(call: Callable[[], object], proxy: TcpProxy, direction: Direction) -> tuple[threading.Thread, list[object]]:
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001 (whatever it is, is the outcome)
            outcome.append(error)

    proxy.hold(direction)
    thread = threading.Thread(target=run)
    thread.start()
    proxy.await_struck(direction)
    return thread, outcome


def test_a_set_whose_reply_is_lost_is_confirmed_by_reading_and_written_once(
    etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, other = open_store(proxy.address), open_store(etcd.endpoint)
    thread, outcome = in_flight(lambda: store.set("key", "value"), proxy)
    other.wait_for_key("key", 10)
    proxy.reset()
    thread.join(10)
    assert outcome == [None]
    assert store.get("key") == b"value"
    assert revisions(etcd, store, "key") == 1


def test_a_set_that_was_overwritten_before_it_could_be_confirmed_is_of_unknown_outcome(
    etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, other = open_store(proxy.address), open_store(etcd.endpoint)
    thread, outcome = in_flight(lambda: store.set("key", "mine"), proxy)
    other.wait_for_key("key", 10)
    other.set("key", "theirs")
    proxy.reset()
    thread.join(10)
    assert isinstance(outcome[0], OutcomeUnknownError)
    assert "'key'" in str(outcome[0])
    assert other.get("key") == b"theirs"


def test_a_set_whose_request_was_lost_is_of_unknown_outcome_and_not_sent_again(
    etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, other = open_store(proxy.address, timeout=1.0), open_store(etcd.endpoint)
    proxy.hold("requests")
    with pytest.raises(OutcomeUnknownError) as raised:
        store.set("key", "value")
    assert raised.value.__cause__ is not None
    proxy.reset()
    assert other.get("key") is None


def test_a_value_that_was_there_before_the_call_confirms_nothing(
    etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store = open_store(proxy.address, timeout=1.0)
    store.set("key", "value")
    proxy.hold("requests")
    with pytest.raises(OutcomeUnknownError):
        store.set("key", "value")


def test_a_delete_whose_reply_is_lost_is_never_confirmed_by_absence(
    etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, other = open_store(proxy.address), open_store(etcd.endpoint)
    store.set("key", "value")
    with other.watch() as changes:
        thread, outcome = in_flight(lambda: store.delete("key"), proxy)
        changes.next(10)
    proxy.reset()
    thread.join(10)
    assert isinstance(outcome[0], OutcomeUnknownError)
    assert store.get("key") is None


def test_a_read_whose_reply_is_lost_is_asked_again(etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore) -> None:
    store = open_store(proxy.address)
    store.set("key", "value")
    thread, outcome = in_flight(lambda: store.get("key"), proxy)
    proxy.reset()
    thread.join(10)
    assert outcome == [b"value"]


def test_a_write_that_never_left_is_sent_when_the_server_is_back(own_etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(own_etcd.endpoint, timeout=20.0)
    own_etcd.kill()
    with pytest.raises(StoreUnavailableError):
        open_store(own_etcd.endpoint, connect_timeout=0.5)
    restart = threading.Thread(target=own_etcd.start)
    restart.start()
    store.set("key", "value")
    assert store.delete("key") is True
    restart.join()


def test_a_value_beyond_the_limit_is_refused_before_it_is_sent(etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(etcd.endpoint)
    store.set("key", "old")
    limit = 1_572_864 - 16_384
    store.set("key", "x" * limit)
    with pytest.raises(ValueTooLargeError) as raised:
        store.set("key", "x" * (limit + 1))
    assert (raised.value.size, raised.value.limit) == (limit + 1, limit)
    assert store.get("key") == b"x" * limit


def test_a_servers_own_refusal_of_a_size_is_the_same_error(etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(etcd.endpoint, max_request_bytes=4_000_000)
    store.set("key", "old")
    with pytest.raises(ValueTooLargeError, match="max_request_bytes"):
        store.set("key", "x" * 1_800_000)
    assert store.get("key") == b"old"


def test_anothers_earlier_write_of_the_same_value_confirms_nothing_that_a_late_request_could_undo(
    etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, other = open_store(proxy.address), open_store(etcd.endpoint)
    other.set("key", "1")  # after the last that the store has heard of the revision
    thread, outcome = in_flight_requests(lambda: store.set("key", "1"), proxy)
    other.set("key", "2")
    proxy.release()
    thread.join(10)
    assert outcome == [None]
    assert other.get("key") == b"1"  # it took effect within the call: guarded, refused, and sent after the "2" was seen


def test_a_late_request_does_nothing_once_somebody_has_written_the_key(
    etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, other = open_store(proxy.address, timeout=1.0), open_store(etcd.endpoint)
    thread, outcome = in_flight_requests(lambda: store.set("key", "late"), proxy)
    thread.join(10)
    assert isinstance(outcome[0], OutcomeUnknownError)
    with other.watch() as changes:
        other.set("key", "newer")
        assert changes.next(10).value == b"newer"
        proxy.release()
        store.get("key")  # behind the late request on the same connection
    assert other.get("key") == b"newer"


def test_a_cluster_whose_data_differ_refuses_a_write_at_once_and_says_why(open_store: OpenStore) -> None:
    with make_data_differ() as cluster:
        store = open_store(*cluster.endpoints)
        with takes(at_most=2.0), pytest.raises(StoreUnavailableError, match="its members' data differ") as refused:
            store.set("key", "1")
        assert not isinstance(refused.value, OutcomeUnknownError)
        store.close(cleanup=False)
