"""What the keys of other jobs in the same server cost a wait: two servers, one with them and one without, in turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from time import perf_counter, sleep
from typing import Any

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

FILLERS = 4
ROUNDS = 5
SETTLED = 0.02
"""Seconds after which a wait that another thread has begun is waiting."""

Opener = Callable[[str, str], KVStore]
"""Opens a store of a server by namespace and component."""


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
            openers = {name: stack.enter_context(_server(backend)) for name in (ALONE, BESIDE)}
            _fill(openers[BESIDE], others)
            say(f"{backend}: {others:,} keys of others")
            works = {name: _works(opener, stack) for name, opener in openers.items()}
            for work in works[ALONE]:
                contestants = [Contestant(name, works[name][work]) for name in openers]
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
def _server(backend: str) -> Iterator[Opener]:
    """Run a server, or make a hub, and give what opens stores of it."""
    if backend == "memory":
        hub = MemoryHub()
        yield lambda namespace, component: open_store(backend, namespace=namespace, component=component, hub=hub)
    else:
        with serve(backend) as server:
            options = server.options()
            yield lambda namespace, component: open_store(backend, namespace=namespace, component=component, **options)


def _fill(opener: Opener, others: int) -> None:
    """Write the keys of other jobs, named like those of the job that is timed."""
    jobs = [(NAMESPACE, f"{COMPONENT}{number}") for number in range(OTHERS)]
    jobs += [(f"{NAMESPACE}{number}", COMPONENT) for number in range(OTHERS)]

    def write(job: tuple[str, str]) -> None:
        with opener(*job) as store:
            for key in expand("rank:*/ready", range(others // len(jobs))):
                store.set(key, "1")
            store.close(cleanup=False)

    with ThreadPoolExecutor(FILLERS) as pool:
        list(pool.map(write, jobs))


def _works(opener: Opener, stack: ExitStack) -> dict[str, Block]:
    """Give what is timed on one server, by name."""
    store = stack.enter_context(opener(NAMESPACE, COMPONENT))
    writer = stack.enter_context(opener(NAMESPACE, COMPONENT))
    own = expand("rank:*/ready", range(OWN))
    for key in own:
        store.set(key, "1")
    return {
        "`wait_for_key`, there": repeat(lambda: store.wait_for_key(own[0], 10.0)),
        f"`wait_for_keys`, {OWN} there": repeat(lambda: store.wait_for_keys("rank:*/ready", OWN, "1", 10.0, own)),
        "`set` to wake of `wait_for_keys`": _wake(store, writer),
        f"`list_keys`, {OWN} of its own": repeat(lambda: store.list_keys("rank:*")),
    }


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
