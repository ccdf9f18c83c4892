"""From a set to the waiter's wake: etcd beside a raw watch, memory beside an event, TCPStore beside the time waited."""

from __future__ import annotations

import itertools
import queue
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from statistics import median
from time import monotonic, sleep

import grpc

from children import Child
from etcd_server import EtcdServer
from etha.kvstore import open_store
from etha.kvstore.base import KVStore
from harness import Contestant, Line, Result, compare, interleave, percentile, sampled
from peers import raw_tcpstore
from raw_etcd import RawEtcd, await_watchers
from tcpstore_host import TorchHost

__all__ = ["measure_etcd", "measure_lateness", "measure_memory"]

NAMESPACE, COMPONENT = "job-42", "trainer"
STORE, POLLING = "etha.kvstore", "polling every 100 ms"
WATCH, EVENT, TORCH = "raw watch callback", "threading.Event", "torch's own wait"

POLL_SECONDS = 0.1

SETTLE_SECONDS = 0.005
"""How long everything rests between the beginning of a wait and the set that ends it."""

SHARE, GRACE = 0.02, 0.0015
"""How late a wait on TCPStore may be: this share of the time waited, and so many seconds."""

LENGTHS = {0.005: 60, 0.02: 60, 0.05: 40, 0.1: 30, 0.2: 20, 0.5: 12, 1.0: 6, 2.0: 5, 3.0: 5}
"""How long waits on TCPStore last, in seconds, and how many of each a full run has.

A quick one has a twelfth of them, and none of the longest.
"""

LONGEST_RAW = 0.1
"""Seconds: beyond this torch's own wait, which is no later for having waited, is not measured again."""


def measure_etcd(quick: bool) -> Result:
    """Time a put, by another process, to the wake of a wait that the server is known to watch for."""
    names = _names()
    with (
        EtcdServer() as server,
        Child("setter.py", "etcd", server.endpoint) as setter,
        open_store("etcd", namespace=NAMESPACE, component=COMPONENT, endpoints=[server.endpoint]) as store,
        closing(RawEtcd(server.endpoint)) as raw,
        ThreadPoolExecutor(1) as waiter,
    ):
        heard = _hear(raw, "raw/")
        await_watchers(server.endpoint, 1)

        def wait() -> float:
            name = next(names)
            woken = waiter.submit(_instant, lambda: store.wait_for_key(name, timeout=60.0))
            await_watchers(server.endpoint, 2)
            start, _ = setter.ask(f"set {NAMESPACE}/{COMPONENT}/{name} {SETTLE_SECONDS}")
            woke = woken.result()
            await_watchers(server.endpoint, 1)
            return woke - start

        def watch() -> float:
            await_watchers(server.endpoint, 1)  # what is asked here and below makes the server as cold as `wait` does
            start, _ = setter.ask(f"set raw/{next(names)} {SETTLE_SECONDS}")
            heard_at = heard.get(timeout=10.0)
            await_watchers(server.endpoint, 1)
            return heard_at - start

        def poll() -> float:
            name = next(names)
            woken = waiter.submit(_instant, lambda: _poll(store, name))
            start, _ = setter.ask(f"set {NAMESPACE}/{COMPONENT}/{name} {random.uniform(0.0, POLL_SECONDS)}")
            return woken.result() - start

        rounds = 15 if quick else 100
        contestants = [Contestant(STORE, sampled(wait)), Contestant(WATCH, sampled(watch))]
        series = interleave("etcd, set to wake", contestants, rounds, samples=3)
        series.samples[POLLING] = [[poll()] for _ in range(15 if quick else 60)]
    return Result([compare("etcd-wake", "wake", series, STORE, WATCH)], [series])


def measure_memory(quick: bool) -> Result:
    """Time a set, by another thread, to the wake of a wait that has begun before."""
    names = _names()
    with (
        open_store("memory", namespace=NAMESPACE, component=COMPONENT) as store,
        ThreadPoolExecutor(1) as waiter,
    ):

        def time_wake(wait: Callable[[], object], wake: Callable[[], object]) -> float:
            begun = threading.Event()

            def waits() -> float:
                begun.set()
                return _instant(wait)

            woken = waiter.submit(waits)
            begun.wait()
            sleep(SETTLE_SECONDS)
            start = monotonic()
            wake()
            return woken.result() - start

        def by_store() -> float:
            name = next(names)
            return time_wake(lambda: store.wait_for_key(name, timeout=60.0), lambda: store.set(name, "1"))

        def by_event() -> float:
            event = threading.Event()
            return time_wake(lambda: event.wait(60.0), event.set)

        contestants = [Contestant(STORE, sampled(by_store)), Contestant(EVENT, sampled(by_event))]
        series = interleave("memory, set to wake", contestants, rounds=15 if quick else 100, samples=6)
    return Result([compare("memory-wake", "wake", series, STORE, EVENT)], [series])


def measure_lateness(quick: bool) -> Result:
    """Time how late waits of several lengths on TCPStore are, counted from when the server has acknowledged the set."""
    names = _names()
    result = Result()
    with (
        TorchHost() as host,
        Child("setter.py", "tcpstore", host.endpoint) as setter,
        open_store("tcpstore", namespace=NAMESPACE, component=COMPONENT, host="127.0.0.1", port=host.port) as store,
        ThreadPoolExecutor(1) as waiter,
    ):
        raw = raw_tcpstore(host.endpoint)

        def late(wait: Callable[[str], object], length: float) -> tuple[float, float]:
            """Give how long a wait went on until the set was acknowledged, and how much longer it took to wake."""
            name = next(names)
            begun = monotonic()
            woken = waiter.submit(_instant, lambda: wait(name))
            _, acknowledged = setter.ask(f"set {NAMESPACE}/{COMPONENT}/{name} {length}")
            return acknowledged - begun, max(0.0, woken.result() - acknowledged)

        def ours(name: str) -> object:
            return store.wait_for_key(name, timeout=60.0)

        def theirs(name: str) -> None:
            raw.wait([f"{NAMESPACE}/{COMPONENT}/{name}"])

        waits, raw_waits = [], []
        late(ours, 0.01)
        for length, count in LENGTHS.items():
            for _ in range(count // 12 if quick else count):
                waits.append(late(ours, length))
                if length <= LONGEST_RAW:
                    raw_waits.append(late(theirs, length))
    result.points = {STORE: waits, TORCH: raw_waits}
    result.lines += [_judge("tcpstore-lateness", "99th percentile of lateness", waits)]
    result.lines += [_judge("", "lateness of torch's own wait, which the server wakes, on the same scale", raw_waits)]
    return result


def _judge(target: str, what: str, waits: list[tuple[float, float]]) -> Line:
    """Hold the lateness of waits against what is allowed to each."""
    shares = sorted(late / (SHARE * waited + GRACE) for waited, late in waits)
    within = sum(share <= 1.0 for share in shares) / len(shares)
    latest = max(late for _, late in waits)
    note = f"{len(waits)} waits, {within:.1%} within; median {median(shares):.2f}, latest {latest * 1e3:.2f} ms"
    return Line(target, what, percentile(shares, 0.99), unit="of what is allowed", note=note)


def _names() -> Iterator[str]:
    """Give names that nobody has used."""
    return (f"wake:{number}" for number in itertools.count())


def _instant(wait: Callable[[], object]) -> float:
    """Wait, and say when that was over."""
    wait()
    return monotonic()


def _poll(store: KVStore, name: str) -> None:
    """Wait as users do who have no store to wait with."""
    while store.get(name) is None:
        sleep(POLL_SECONDS)


def _hear(raw: RawEtcd, prefix: str) -> queue.SimpleQueue[float]:
    """Watch a prefix in a thread, whose callback notes the instant of every event, until the channel is closed."""
    heard: queue.SimpleQueue[float] = queue.SimpleQueue()

    def read() -> None:
        with suppress(grpc.RpcError):
            for response in raw.follow(prefix):
                for _ in response.events:
                    heard.put(monotonic())

    threading.Thread(target=read, daemon=True).start()
    return heard
