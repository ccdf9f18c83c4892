"""What the keys of other jobs in the same server cost a wait: two servers, one with them and one without, in turns."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter, sleep
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

from etha.kvstore import KVStore, open_store
from etha.kvstore.patterns import expand
from etha_kvstore_memory import MemoryHub
from harness import Block, Contestant, compare, interleave, repeat
from scale_servers import serve

__all__ = ["measure_namespaces"]

NAMESPACE, COMPONENT = "job", "trainer"
OWN = 100
"""How many keys the job that is timed has."""

ALONE, BESIDE = "alone", "beside the others"

OTHERS = 20
"""Other components in the same namespace, and other namespaces; some begin as the job's own names do."""

ROUNDS = 5
SETTLED = 0.02
"""Seconds after which a wait that another thread has begun is waiting."""

BATCH = 100
"""Keys that a server is given at once."""


class Place(NamedTuple):
    """Where stores of a job, or of others, are opened.

    Attributes
    ----------
    open : callable
        Opens a store, given a namespace and a component.
    put : callable
        Writes keys, given a namespace, a component and the keys; a server takes them all at once, since a `set` for
        each would take minutes.
    """

    open: Callable[[str, str], KVStore]
    put: Callable[[str, str, Sequence[str]], object]


def measure_namespaces(others: int, samples: int, say: Callable[[str], object]) -> list[dict[str, Any]]:
    """Time what a job does with and without the keys of others.

    Parameters
    ----------
    others : int
        How many keys other jobs have.
    samples : int
        How many samples each work takes in a round.
    say : callable
        Is told what has been done.

    Returns
    -------
    list of dict
        For each backend and each work the medians in microseconds, and the ratio with its quartiles.
    """
    rows = []
    for backend in ("memory", "tcpstore", "etcd"):
        with ExitStack() as stack:
            places = {name: stack.enter_context(_place(backend)) for name in (ALONE, BESIDE)}
            _fill(places[BESIDE], others)
            say(f"{backend}: {others:,} keys of others")
            works = {name: _works(place, stack) for name, place in places.items()}
            for work in works[ALONE]:
                contestants = [Contestant(name, works[name][work]) for name in places]
                series = interleave(work, contestants, ROUNDS, samples, warm_up=2)
                line = compare("", work, series, BESIDE, ALONE)
                say(f"{backend}: {work}: {line.value:.2f} times")
                rows.append(
                    {
                        "backend": backend,
                        "work": work,
                        "others": others,
                        "alone_us": series.median(ALONE) * 1e6,
                        "beside_us": series.median(BESIDE) * 1e6,
                        "ratio": line.value,
                        "quartiles": line.quartiles,
                    }
                )
    return rows


@contextmanager
def _place(backend: str) -> Iterator[Place]:
    """Run a server, or make a hub."""
    if backend == "memory":
        opened = partial(_open, backend, {"hub": MemoryHub()})
        yield Place(opened, partial(_put_one_by_one, opened))
        return
    with serve(backend) as server:
        opened = partial(_open, backend, server.options())
        if backend == "etcd":
            yield Place(opened, partial(_put_in_etcd, server.endpoint))
        else:
            from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types

            client = TCPStore("127.0.0.1", server.port, wait_for_workers=False)
            yield Place(opened, partial(_put_in_tcpstore, client))


def _open(backend: str, options: dict[str, Any], namespace: str, component: str) -> KVStore:
    return open_store(backend, namespace=namespace, component=component, **options)


def _put_one_by_one(opened: Callable[[str, str], KVStore], namespace: str, component: str, keys: Sequence[str]) -> None:
    with opened(namespace, component) as store:
        for key in keys:
            store.set(key, "1")


def _put_in_tcpstore(client: Any, namespace: str, component: str, keys: Sequence[str]) -> None:
    client.multi_set([f"{namespace}/{component}/{key}" for key in keys], ["1"] * len(keys))


def _put_in_etcd(endpoint: str, namespace: str, component: str, keys: Sequence[str]) -> None:
    """Set keys in one transaction, by etcd's gateway."""
    names = [b64encode(f"{namespace}/{component}/{key}".encode()).decode() for key in keys]
    puts = [{"request_put": {"key": name, "value": "MQ=="}} for name in names]
    request = Request(f"http://{endpoint}/v3/kv/txn", json.dumps({"success": puts}).encode())
    with urlopen(request, timeout=30.0) as answer:
        answer.read()


def _fill(place: Place, others: int) -> None:
    """Write the keys of other jobs, named like those of the job that is timed."""
    jobs = [(NAMESPACE, f"{COMPONENT}{number}") for number in range(OTHERS)]
    jobs += [(f"{NAMESPACE}{number}", COMPONENT) for number in range(OTHERS)]
    keys = expand("rank:*/ready", range(others // len(jobs)))
    for job in jobs:
        for begin in range(0, len(keys), BATCH):
            place.put(*job, keys[begin : begin + BATCH])


def _works(place: Place, stack: ExitStack) -> dict[str, Block]:
    """Give what is timed on one server, by name."""
    store = stack.enter_context(place.open(NAMESPACE, COMPONENT))
    writer = stack.enter_context(place.open(NAMESPACE, COMPONENT))
    own = expand("rank:*/ready", range(OWN))
    for key in own:
        store.set(key, "1")
    return {
        "`wait_for_key`, there": repeat(lambda: store.wait_for_key(own[0], 10.0)),
        f"`wait_for_keys`, {OWN} there": repeat(lambda: store.wait_for_keys("rank:*/ready", OWN, "1", 10.0, own)),
        "`set` to wake of `wait_for_keys`": _wake(store, writer),
        f"`list_keys`, {OWN} of its own": _fewer(repeat(lambda: store.list_keys("rank:*"))),
    }


def _fewer(block: Block) -> Block:
    """Take a quarter of the samples: a TCPStore lists a whole server."""
    return lambda samples: block(max(1, samples // 4))


def _wake(store: KVStore, writer: KVStore) -> Block:
    """Give a block that times from a `set` to the return of the wait for it, which has begun `SETTLED` before."""

    def block(samples: int) -> Sequence[float]:
        taken = []
        for _ in range(samples):
            writer.delete("late:0")
            woken: list[float] = []

            def wait(woken: list[float] = woken) -> None:
                store.wait_for_keys("late:*", 1, "1", 10.0, ["late:0"])
                woken.append(perf_counter())

            waiter = threading.Thread(target=wait)
            waiter.start()
            sleep(SETTLED)
            begun = perf_counter()
            writer.set("late:0", "1")
            waiter.join()
            taken.append(woken[0] - begun)
        return taken

    return block
