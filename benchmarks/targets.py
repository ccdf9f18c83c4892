"""What the store must reach: the rows of the table, in order, and what is to be said where one is missed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MISSES", "TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """One row.

    Attributes
    ----------
    name : str
        What the measurements call it.
    work : str
        What is done.
    beside : str
        What it is held against.
    wanted : str
        The limit, as text.
    limit : float
        The limit.
    at_least : bool
        Whether the value must reach the limit, rather than stay within it.
    unit : str
        The value's unit.
    lines : tuple of str
        What has to be measured: one line each.
    short : str
        The row in a few words, for a plot.
    """

    name: str
    work: str
    beside: str
    wanted: str
    limit: float
    at_least: bool = False
    unit: str = "×"
    lines: tuple[str, ...] = ()
    short: str = ""


TARGETS = (
    Target(
        "import",
        "`import etha.kvstore`",
        "`import asyncio` in the same interpreter",
        "0.4×",
        0.4,
        lines=("import",),
        short="import / asyncio",
    ),
    Target(
        "start",
        "interpreter start to first `set` on memory",
        "bare interpreter start + `import pluggy, importlib_metadata`",
        "1.5×",
        1.5,
        lines=("start",),
        short="start to first set / bare start",
    ),
    Target(
        "etcd-raw",
        "etcd `get`, `set`, `exists`, `delete`",
        "the raw gRPC call, same channel, prebuilt request",
        "1.10×",
        1.10,
        lines=("get", "set", "exists", "delete"),
        short="etcd / raw call",
    ),
    Target(
        "etcd-clients",
        "etcd `get`, `set`",
        "the fastest of the four Python clients",
        "1.0×",
        1.0,
        lines=("get", "set"),
        short="etcd / fastest client",
    ),
    Target(
        "etcd-threads",
        "etcd, 64 threads on one store, operations a second",
        "raw calls from 64 threads",
        "at least 0.9×",
        0.9,
        at_least=True,
        lines=("get", "set"),
        short="etcd, 64 threads / raw calls",
    ),
    Target(
        "tcpstore-get",
        "TCPStore `get`",
        "`check` then `get`",
        "0.5×",
        0.5,
        lines=("get",),
        short="TCPStore / check then get",
    ),
    Target(
        "tcpstore-raw",
        "TCPStore `get`, `exists`",
        "the one raw call under it",
        "1.3×",
        1.3,
        lines=("get", "exists"),
        short="TCPStore / one raw call",
    ),
    Target(
        "tcpstore-set",
        "TCPStore `set`",
        "raw `set` then `check`",
        "1.2×",
        1.2,
        lines=("set",),
        short="TCPStore / raw set then check",
    ),
    Target(
        "tcpstore-jax",
        "TCPStore `set`, `get`",
        "JAX coordination service, set and try_get",
        "0.3×",
        0.3,
        lines=("set", "get"),
        short="TCPStore / JAX service",
    ),
    Target(
        "tcpstore-mib",
        "TCPStore `set_bytes`, `get_bytes` of 1 MiB",
        "raw `set`, `get` of the same bytes",
        "2×",
        2.0,
        lines=("set_bytes", "get_bytes"),
        short="TCPStore, 1 MiB / raw",
    ),
    Target(
        "memory-dict",
        "memory `get`, `set`",
        "a dict under a lock, key made by an f-string",
        "3.5×",
        3.5,
        lines=("get", "set"),
        short="memory / dict under a lock",
    ),
    Target(
        "memory-peer",
        "memory `get`, `set`",
        "`py-key-value-aio` memory store",
        "0.1×",
        0.1,
        lines=("get", "set"),
        short="memory / py-key-value-aio",
    ),
    Target(
        "etcd-wake",
        "etcd, set to wake of `wait_for_key`",
        "a raw watch callback",
        "1.15×",
        1.15,
        lines=("wake",),
        short="etcd, set to wake / raw watch",
    ),
    Target(
        "memory-wake",
        "memory, set to wake",
        "`threading.Event`",
        "3×",
        3.0,
        lines=("wake",),
        short="memory, set to wake / Event",
    ),
    Target(
        "tcpstore-lateness",
        "TCPStore, lateness of a wait",
        "the time waited",
        "2 % + 1.5 ms",
        1.0,
        unit="of what is allowed",
        lines=("99th percentile of lateness",),
        short="TCPStore, lateness of a wait",
    ),
    Target(
        "etcd-arrivals",
        "etcd `wait_for_keys`, 10,000 keys that arrive one by one, waiter's CPU",
        "decoding the same watch events raw",
        "1.5×",
        1.5,
        lines=("CPU time",),
        short="etcd, CPU of arrivals / decoding",
    ),
    Target(
        "etcd-growth",
        "the same, 1,000 to 10,000 keys",
        "growth",
        "12×",
        12.0,
        lines=("growth",),
        short="etcd, growth of that CPU",
    ),
    Target(
        "etcd-crowd",
        "1,000 waits in one process on one etcd store",
        "threads beyond the callers' own",
        "3, and one stream",
        3.0,
        unit="",
        lines=("threads", "streams"),
        short="etcd, 1,000 waits",
    ),
    Target(
        "quiet",
        "waiting for 1,000 keys, requests to the server while nothing happens",
        "",
        "etcd: keepalive and one re-read in 10 s; TCPStore: 20 a second where all candidates are expected, else stated",
        1.0,
        unit="in 10 s",
        lines=("etcd", "TCPStore, all candidates expected", "TCPStore, half of the candidates expected"),
        short="quiet wait for 1,000",
    ),
    Target(
        "etcd-members",
        "membership read (`list_keys` of 100) on etcd",
        "`tooz` `get_members`",
        "0.4×",
        0.4,
        lines=("list_keys",),
        short="etcd, 100 members / tooz",
    ),
)

MISSES: dict[str, str] = {
    "etcd-raw/set": (
        "Floor: a `set` is a transaction with a guard, which makes its confirmation by reading sound (decision "
        "record 0004); the same transaction, built beforehand and sent raw, takes 1.00 to 1.06 of a Put. Profile: "
        "15 µs of our own in a warm loop: 5 build the request, 3 note the write for the clean-up, 4 are the "
        "deadline, the member and the retries, 3 check the arguments and make the key. Between two calls of half "
        "a millisecond the caches have grown cold, and the same instructions take three times as long. Tried, and "
        "no faster by more than the noise: a request written by hand instead of by protobuf, requests that are "
        "kept, another polling strategy of gRPC, `future()` instead of the plain call, no garbage collection."
    ),
    "etcd-clients/get": (
        "Floor: `etcd3` calls the same gRPC stub with a request like ours, and neither can be faster than the raw "
        "call. Profile: 6 µs of our own in a warm loop, for the key's rules and a deadline that holds also where "
        "the member falls silent; `etcd3` checks nothing. The two differ by less than the quartiles of the "
        "measurement. Tried: as for the raw call."
    ),
    "etcd-clients/set": (
        "`etcd3` sends a plain Put, and where its reply is lost nobody knows what happened. Floor: the guarded "
        "transaction, 1.00 to 1.06 of a Put. Profile and attempts: as for the raw call."
    ),
    "etcd-threads/get": (
        "Floor: none below the raw call, and the interpreter runs one thread at a time: 64 threads and the server "
        "share two cores, and a raw call takes 340 µs of the client's CPU, nearly all of it in gRPC. Profile: 6 "
        "µs of our own in a warm loop, some 20 when 64 threads take turns. Tried: no locks on the way of a read; "
        "there is none left."
    ),
    "etcd-threads/set": (
        "Floor: the guarded transaction, sent raw, reaches 0.97 to 1.0 of the plain Put. Profile: 15 µs of our "
        "own in a warm loop, 50 to 60 when 64 threads take turns at the interpreter and evict each other from the "
        "caches; one lock on the way, held for a dictionary's entry. Tried: what is named for the single call."
    ),
    "tcpstore-mib/get_bytes": (
        "Floor: the specification stores bytes as base64, so 1.33 times the bytes travel, and decoding takes 0.2 "
        "ms of 1: 1.86 of the raw call with no other cost at all. torch's own client, reading and decoding the "
        "same, takes 3.3 to 4. Tried: receiving through memory that is kept, which took 2.4 ms to 1.0; pieces of "
        "16 KiB to 1 MiB; one buffer for the whole reply; base64 by SIMD (pybase64), 20 times faster than the "
        "standard library's."
    ),
    "etcd-wake": (
        "Floor: the watch callback and one hop to the thread that waits, 1.10 to 1.14. Profile of what lies "
        "beyond the raw callback: 50 µs to find the follower and decode, 60 to 80 for the hop, 40 to cancel the "
        "watch. Tried: a bare lock instead of an event for the hop, which is kept; cancelling the watch later, "
        "which wakes gRPC's thread then and is no faster."
    ),
    "tcpstore-lateness": (
        "A wait that polls is as late as its thread is woken, and on a busy machine the scheduler alone takes "
        "more than 1.5 ms. Floor: the pause, 2 % of the time waited, plus one request. Tried: on an idle machine "
        "the same waits are within 0.8 of what is allowed."
    ),
}
"""For a target, or one of its lines (``"etcd-raw/set"``), that is missed: the profile, the floor that was measured, and
what was tried to reach it. Shown beside a miss only, so that a text which is out of date does no harm."""
