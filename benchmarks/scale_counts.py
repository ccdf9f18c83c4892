"""Count what reaches a server and what leaves it: bytes by the kernel, requests by etcd's metrics or by a relay.

Nothing is counted in the clients, so the counts hold for whatever a client does, and stay right when it changes.
"""

from __future__ import annotations

import re
import selectors
import socket
import struct
import urllib.request
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection

from tcpstore_host import PROCESSES

__all__ = ["Counts", "Relay", "etcd_counts", "growth", "tcp_counts"]

Counts = Mapping[str, float]

# Linux's sock_diag: <linux/inet_diag.h> and <linux/tcp.h>.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
REQUEST_AND_DUMP = 0x301
DONE, FAILED = 3, 2
TCP_ESTABLISHED = 1
INET_DIAG_INFO = 2
HEADER, MESSAGE = 16, 72
BYTES_ACKED, BYTES_RECEIVED = 120, 128

ETCD_SAYS = {
    "requests": re.compile(r'^grpc_server_msg_received_total\{.*"etcdserverpb\.(?:KV|Watch)".*\} (\S+)$', re.M),
    "replies": re.compile(r'^grpc_server_msg_sent_total\{.*"etcdserverpb\.(?:KV|Watch)".*\} (\S+)$', re.M),
    "events": re.compile(r"^etcd_debugging_mvcc_events_total (\S+)$", re.M),
    "message_bytes_in": re.compile(r"^etcd_network_client_grpc_received_bytes_total (\S+)$", re.M),
    "message_bytes_out": re.compile(r"^etcd_network_client_grpc_sent_bytes_total (\S+)$", re.M),
}

REQUESTS = {
    0: ("validate", "word"),
    1: ("set", "text text"),
    2: ("compare_set", "text text text"),
    4: ("add", "text number"),
    5: ("check", "texts"),
    8: ("delete_key", "text"),
    13: ("ping", "word"),
    17: ("list_keys", ""),
}
"""The requests of a TCPStore that the plugin makes, by the byte that they begin with, and the parts of each."""

_number = struct.Struct("<q")


def growth(before: Counts, after: Counts) -> dict[str, float]:
    """Give by how much each count has grown."""
    return {what: count - before.get(what, 0) for what, count in after.items()}


def tcp_counts(port: int) -> dict[str, int]:
    """Give the bytes that a server of this machine has received and sent on the connections that are open now.

    Parameters
    ----------
    port : int
        Where it listens, on IPv4.

    Returns
    -------
    dict
        ``connections``, ``bytes_in`` and ``bytes_out``: what the connections carry, without the headers of TCP.
    """
    wanted = struct.pack(">HH", port, 0) + bytes(44)
    asked = struct.pack(
        "=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0, 1 << TCP_ESTABLISHED
    )
    found = {"connections": 0, "bytes_in": 0, "bytes_out": 0}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as kernel:
        body = asked + wanted
        kernel.send(struct.pack("=IHHII", HEADER + len(body), SOCK_DIAG_BY_FAMILY, REQUEST_AND_DUMP, 1, 0) + body)
        while True:
            data = kernel.recv(1 << 20)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                if kind == DONE:
                    return found
                if kind == FAILED:
                    raise OSError(-struct.unpack_from("=i", data, HEADER)[0], "the kernel does not tell of sockets")
                _add_socket(data[HEADER:size], port, found)
                data = data[(size + 3) & ~3 :]


def _add_socket(told: bytes, port: int, found: dict[str, int]) -> None:
    """Add one socket of the kernel's answer, if it is the server's end of a connection."""
    if struct.unpack_from(">H", told, 4)[0] != port:
        return
    at = MESSAGE
    while at + 4 <= len(told):
        size, kind = struct.unpack_from("=HH", told, at)
        if kind == INET_DIAG_INFO:
            (sent,) = struct.unpack_from("=Q", told, at + 4 + BYTES_ACKED)
            (received,) = struct.unpack_from("=Q", told, at + 4 + BYTES_RECEIVED)
            found["connections"] += 1
            found["bytes_in"] += received
            found["bytes_out"] += sent
        at += (size + 3) & ~3


def etcd_counts(endpoint: str) -> dict[str, int]:
    """Give what etcd says of itself: requests, replies, events sent to watches, and the bytes of its messages.

    A unary call is one request; so is each message on a watch stream, which creates or cancels a watch.

    Parameters
    ----------
    endpoint : str
        Where it serves, ``host:port``.

    Returns
    -------
    dict
        By what is counted.
    """
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=30.0) as answer:
        text = answer.read().decode()
    return {what: int(sum(map(float, pattern.findall(text)))) for what, pattern in ETCD_SAYS.items()}


class Relay:
    """A process between the clients of a TCPStore and its server that reads what they ask and counts it.

    Parameters
    ----------
    target : str
        Where the server listens, ``host:port``.
    """

    def __init__(self, target: str) -> None:
        self._told, told = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=_relay, args=(target, told), daemon=True)
        self._process.start()
        told.close()
        self.port: int = self._told.recv()

    def counts(self) -> dict[str, int]:
        """Give the requests so far by name, and the bytes of them."""
        self._told.send("counts")
        counts: dict[str, int] = self._told.recv()
        return counts

    def close(self) -> None:
        """End the process."""
        self._told.close()
        self._process.join(10.0)


def _relay(target: str, told: Connection) -> None:
    """Pass bytes both ways until the other end of the pipe is closed."""
    host, _, port = target.rpartition(":")
    counts: Counter[str] = Counter()
    with selectors.DefaultSelector() as selector, socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(told, selectors.EVENT_READ)
        told.send(listener.getsockname()[1])
        while True:
            for ready, _ in selector.select():
                if ready.fileobj is told:
                    try:
                        told.recv()
                    except EOFError:
                        return
                    told.send(dict(counts))
                elif ready.fileobj is listener:
                    client, _ = listener.accept()
                    server = socket.create_connection((host, int(port)))
                    for end in (client, server):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(client, selectors.EVENT_READ, (client, server, bytearray()))
                    selector.register(server, selectors.EVENT_READ, (server, client, None))
                else:
                    _pass(selector, counts, *ready.data)


def _pass(
    selector: selectors.BaseSelector,
    counts: Counter[str],
    source: socket.socket,
    sink: socket.socket,
    requests: bytearray | None,
) -> None:
    """Pass on what has come, and count the requests that are complete with it."""
    data = b""
    with suppress(OSError):
        data = source.recv(1 << 20)
        sink.sendall(data)
    if not data:
        selector.unregister(source)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
    elif requests is not None:
        requests += data
        while requests and (end := _end_of(requests)) is not None:
            counts[REQUESTS[requests[0]][0]] += 1
            counts["bytes_in"] += end
            del requests[:end]


def _end_of(requests: bytearray) -> int | None:
    """Give where the first request ends; `None` where the rest of it has not come yet."""
    at = 1
    try:
        for part in REQUESTS[requests[0]][1].split():
            if part == "word":
                at += 4
            elif part == "number":
                at += _number.size
            else:
                texts = 1
                if part == "texts":
                    (texts,) = _number.unpack_from(requests, at)
                    at += _number.size
                for _ in range(texts):
                    at += _number.size + _number.unpack_from(requests, at)[0]
    except struct.error:
        return None
    return at if at <= len(requests) else None
