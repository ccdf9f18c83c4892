"""The etcd store beside bare gRPC calls, beside the four Python clients, and from 64 threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Barrier
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from etcd_server import EtcdServer
from etha.kvstore import open_store
from etha.kvstore.base import KVStore
from etha_kvstore_etcd import EtcdStore
from harness import Block, Contestant, Result, compare, interleave, repeat
from peers import ETCD_CLIENTS, EtcdPeers, tooz_group
from raw_etcd import RawEtcd

__all__ = ["measure_calls", "measure_disk", "measure_members", "measure_threads"]

NAMESPACE, COMPONENT = "job-42", "trainer"
KEY, VALUE = "rank:0/address", "10.0.0.1:29500"
FULL_KEY = f"{NAMESPACE}/{COMPONENT}/{KEY}"

STORE, RAW = "etha.kvstore", "raw call"
SHARED = "etha.kvstore on the raw calls' channel"
FLOOR = "raw guarded Txn"

THREADS = 64
MEMBERS = 100


@contextmanager
def _contestants(*arguments: str) -> Iterator[tuple[EtcdServer, KVStore, RawEtcd]]:
    with (
        EtcdServer(*arguments) as server,
        open_store("etcd", namespace=NAMESPACE, component=COMPONENT, endpoints=[server.endpoint]) as store,
        closing(RawEtcd(server.endpoint)) as raw,
    ):
        store.set(KEY, VALUE)
        yield server, store, raw


def measure_calls(quick: bool) -> Result:
    """Time `get`, `set`, `exists` and `delete` beside the raw call, then `get` and `set` beside the other clients."""
    result = Result()
    rounds, samples = (25, 10) if quick else (100, 12)
    with _contestants() as (server, store, raw):
        channel = SimpleNamespace(channel=raw.channel, metadata=None)
        with EtcdStore(NAMESPACE, COMPONENT, client=channel) as shared:
            for what, blocks in _beside_raw(store, shared, raw).items():
                contestants = [Contestant(name, block) for name, block in blocks.items()]
                series = interleave(f"etcd {what}", contestants, rounds, samples)
                result.series.append(series)
                result.lines += [
                    compare("etcd-raw", what, series, STORE, RAW),
                    compare("", f"etcd {what}, store and raw call on one channel object", series, SHARED, RAW),
                ]
                if FLOOR in blocks:
                    result.lines += [
                        compare("", f"etcd {what}, beside the guarded Txn that it has to send", series, STORE, FLOOR),
                        compare("", f"etcd {what}, the guarded Txn itself beside a plain Put", series, FLOOR, RAW),
                    ]
        _beside_clients(server, store, result, rounds, samples)
    return result


def _beside_raw(store: KVStore, shared: KVStore, raw: RawEtcd) -> dict[str, dict[str, Block]]:
    data = VALUE.encode()
    return {
        "get": {
            STORE: repeat(lambda: store.get(KEY)),
            RAW: repeat(raw.get(FULL_KEY)),
            SHARED: repeat(lambda: shared.get(KEY)),
        },
        "set": {
            STORE: repeat(lambda: store.set(KEY, VALUE)),
            RAW: repeat(raw.set(FULL_KEY, data)),
            SHARED: repeat(lambda: shared.set(KEY, VALUE)),
            FLOOR: repeat(raw.guarded_set(FULL_KEY, data)),
        },
        "exists": {
            STORE: repeat(lambda: store.exists(KEY)),
            RAW: repeat(raw.get(FULL_KEY, count_only=True)),
            SHARED: repeat(lambda: shared.exists(KEY)),
        },
        "delete": {
            STORE: _deletions(raw, lambda key: lambda: store.delete(key)),
            RAW: _deletions(raw, lambda key: raw.delete(f"{NAMESPACE}/{COMPONENT}/{key}")),
            SHARED: _deletions(raw, lambda key: lambda: shared.delete(key)),
        },
    }


def _deletions(raw: RawEtcd, prepare: Callable[[str], Callable[[], object]]) -> Block:
    """Delete keys that are there; writing them and preparing the calls is not timed."""

    def block(samples: int) -> list[float]:
        names = [f"gone:{number}" for number in range(samples)]
        calls = [prepare(name) for name in names]
        for name in names:
            raw.set(f"{NAMESPACE}/{COMPONENT}/{name}", b"1")()
        taken = []
        for call in calls:
            start = perf_counter()
            call()
            taken.append(perf_counter() - start)
        return taken

    return block


def _beside_clients(server: EtcdServer, store: KVStore, result: Result, rounds: int, samples: int) -> None:
    with closing(EtcdPeers(server.endpoint)) as peers:
        for what, blocks in {
            "get": {STORE: repeat(lambda: store.get(KEY)), **peers.get(FULL_KEY)},
            "set": {STORE: repeat(lambda: store.set(KEY, VALUE)), **peers.set(FULL_KEY, VALUE)},
        }.items():
            contestants = [Contestant(name, block) for name, block in blocks.items()]
            series = interleave(f"etcd {what} by client", contestants, rounds, samples)
            result.series.append(series)
            result.lines.append(compare("etcd-clients", what, series, STORE, series.fastest(ETCD_CLIENTS)))


def measure_threads(quick: bool) -> Result:
    """Count operations a second from 64 threads: on one store, and raw on one channel."""
    result = Result()
    rounds, calls = (7, 4) if quick else (25, 10)
    data = VALUE.encode()
    with _contestants() as (_, store, raw), ThreadPoolExecutor(THREADS) as threads:
        for what, blocks in {
            "get": {STORE: lambda number: lambda: store.get(_mine(number)), RAW: lambda number: raw.get(_full(number))},
            "set": {
                STORE: lambda number: lambda: store.set(_mine(number), VALUE),
                RAW: lambda number: raw.set(_full(number), data),
                FLOOR: lambda number: raw.guarded_set(_full(number), data),
            },
        }.items():
            contestants = [Contestant(name, _crowd(threads, prepare, calls)) for name, prepare in blocks.items()]
            series = interleave(f"etcd {what} from {THREADS} threads", contestants, rounds, samples=1)
            result.series.append(series)
            result.lines.append(compare("etcd-threads", what, series, STORE, RAW, rate=True))
            if FLOOR in blocks:
                context = f"etcd {what} from {THREADS} threads, beside the guarded Txn that it has to send"
                result.lines.append(compare("", context, series, STORE, FLOOR, rate=True))
    return result


def _mine(number: int) -> str:
    return f"rank:{number}/address"


def _full(number: int) -> str:
    return f"{NAMESPACE}/{COMPONENT}/{_mine(number)}"


def _crowd(threads: ThreadPoolExecutor, prepare: Callable[[int], Callable[[], Any]], calls: int) -> Block:
    """Have every thread make so many calls at the same time; a sample is the time of all, divided by their number."""

    def block(samples: int) -> list[float]:
        return [once() for _ in range(samples)]

    def once() -> float:
        started = Barrier(THREADS + 1)

        def work(call: Callable[[], Any]) -> None:
            started.wait()
            for _ in range(calls):
                call()

        working = [threads.submit(work, prepare(number)) for number in range(THREADS)]
        started.wait()
        start = perf_counter()
        for each in working:
            each.result()
        return (perf_counter() - start) / (THREADS * calls)

    return block


def measure_disk(quick: bool) -> Result:
    """Time `set` on a server that waits for its disk, as a production server does, for the context."""
    data = VALUE.encode()
    with _contestants("--unsafe-no-fsync=false") as (_, store, raw):
        series = interleave(
            "etcd set, fsync",
            [
                Contestant(STORE, repeat(lambda: store.set(KEY, VALUE))),
                Contestant(RAW, repeat(raw.set(FULL_KEY, data))),
                Contestant(FLOOR, repeat(raw.guarded_set(FULL_KEY, data))),
            ],
            rounds=8 if quick else 40,
            samples=10,
        )
    return Result([compare("", "etcd set, on a server that waits for its disk", series, STORE, RAW)], [series])


def measure_members(quick: bool) -> Result:
    """Time reading who is there, of 100 members."""
    rounds, samples = (10, 5) if quick else (60, 5)
    reading = f"tooz get_members of {MEMBERS}"
    with _contestants() as (_, store, _), EtcdServer() as server:
        get_members = tooz_group(server.endpoint, MEMBERS)
        for number in range(MEMBERS):
            store.set(f"member:{number}", "1")
        series = interleave(
            f"etcd list_keys of {MEMBERS}",
            [
                Contestant(STORE, repeat(lambda: _expect(store.list_keys("member:*")))),
                Contestant(reading, repeat(lambda: _expect(get_members()))),
            ],
            rounds,
            samples,
        )
    return Result([compare("etcd-members", "list_keys", series, STORE, reading)], [series])


def _expect(members: Any) -> None:
    if len(members) != MEMBERS:
        raise RuntimeError(f"{len(members)} of {MEMBERS} members were there")
