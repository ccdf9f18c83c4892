"""etcd's API by bare gRPC calls: what the store is held against, and what reads the server's own counters.

The messages are those of the package ``etcd3``, and the channel has the options that the store gives its own.
"""

from __future__ import annotations

import queue
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from etha_kvstore_etcd.etcd3_compat import import_etcd3

__all__ = ["RawEtcd", "await_watchers", "server_metric"]

OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)

TIMEOUT = 10.0
"""Seconds: every call has a deadline, as the store's calls have."""


class RawEtcd:
    """A channel and the calls on it.

    Parameters
    ----------
    endpoint : str
        The server, ``host:port``.
    """

    def __init__(self, endpoint: str) -> None:
        self.messages: Any = import_etcd3().etcdrpc
        self.channel = grpc.insecure_channel(endpoint, OPTIONS)
        rpc = self.messages
        self.range = self._unary("KV/Range", rpc.RangeRequest, rpc.RangeResponse)
        self.put = self._unary("KV/Put", rpc.PutRequest, rpc.PutResponse)
        self.delete_range = self._unary("KV/DeleteRange", rpc.DeleteRangeRequest, rpc.DeleteRangeResponse)
        self.txn = self._unary("KV/Txn", rpc.TxnRequest, rpc.TxnResponse)
        self.watch = self.channel.stream_stream(
            "/etcdserverpb.Watch/Watch", rpc.WatchRequest.SerializeToString, rpc.WatchResponse.FromString
        )

    def prepared(self, method: Any, request: Any) -> Callable[[], Any]:
        """Bind a call to a request that is built once."""

        def call() -> Any:
            return method(request, timeout=TIMEOUT)

        return call

    def get(self, key: str, **options: Any) -> Callable[[], Any]:
        """Prepare a read of one key."""
        return self.prepared(self.range, self.messages.RangeRequest(key=key.encode(), **options))

    def set(self, key: str, value: bytes) -> Callable[[], Any]:
        """Prepare a plain put."""
        return self.prepared(self.put, self.messages.PutRequest(key=key.encode(), value=value))

    def guarded_set(self, key: str, value: bytes) -> Callable[[], Any]:
        """Prepare a put under a guard: the least that a client can send whose late request must do no harm."""
        rpc = self.messages
        guard = rpc.Compare(result=rpc.Compare.LESS, target=rpc.Compare.MOD, key=key.encode(), mod_revision=2**62)
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value))
        return self.prepared(self.txn, rpc.TxnRequest(compare=[guard], success=[put]))

    def delete(self, key: str) -> Callable[[], Any]:
        """Prepare a deletion."""
        return self.prepared(self.delete_range, self.messages.DeleteRangeRequest(key=key.encode()))

    def follow(self, prefix: str) -> Iterator[Any]:
        """Open a watch stream for a prefix, and give its responses, the one that says ``created`` first."""
        end = prefix.encode()
        create = self.messages.WatchCreateRequest(key=end, range_end=end[:-1] + bytes([end[-1] + 1]))
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        requests.put(self.messages.WatchRequest(create_request=create))
        responses: Iterator[Any] = self.watch(iter(requests.get, None))
        return responses

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()

    def _unary(self, path: str, request: Any, response: Any) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        return self.channel.unary_unary(f"/etcdserverpb.{path}", request.SerializeToString, response.FromString)


def server_metric(endpoint: str, name: str, *labels: str) -> float:
    """Read one of a server's counters: the sum over the lines of that name that have all these labels."""
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10.0) as answer:
        text = answer.read().decode()
    total = 0.0
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(label in head for label in labels):
            total += float(value)
    return total


def await_watchers(endpoint: str, count: int) -> None:
    """Wait until a server has so many watches, which is when a wait really waits."""
    deadline = time.monotonic() + 60.0
    while (there := server_metric(endpoint, "etcd_debugging_mvcc_watcher_total")) != count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server has {there:g} watches, and not {count}")
        time.sleep(0.001)
