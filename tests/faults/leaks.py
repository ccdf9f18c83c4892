"""What stays behind in a process that opens, uses and closes many stores, and waits many times.

Run as a program, in a process that nothing else disturbs: it does a part of its work to warm up, looks at itself, does
all of it, looks again, and prints the two looks as JSON. Half of the waits end at their deadline.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from etha.kvstore import KVStore, open_store
from etha.kvstore.errors import UnsupportedOperationError, WaitTimeoutError
from etha.kvstore.follow import Follower
from etha_kvstore_memory import MemoryStore

__all__ = ["Growth", "Plan", "Trace", "measure"]

WORKERS, WRITERS = 16, 4
"""Threads that open stores, or wait, at the same time; and those that write what is waited for."""

SHORT, LONG = 0.005, 30.0
"""Seconds: how long a wait lasts that nobody ends, and one that somebody does end may last."""

WARM_UP = 0.25
"""Which part of the work is done before the first look."""

RESTING = 5
"""How many looks at the same show that a process has come to rest."""

LEAK_SHARE = 50
"""Of so many stores, one leaves its thread or its file behind."""


class Plan(NamedTuple):
    """What is done between the two looks.

    Attributes
    ----------
    backend : str
        On what.
    options : dict
        What a store is opened with.
    leak : str
        What the stores are to leave behind, a name in `LEAKY`; nothing where it is empty.
    cycles, waits : int
        How often a store is opened, used and closed, and how often one that stays open is waited on.
    settling : float
        Seconds within which what C libraries let go of in threads of their own is gone.
    """

    backend: str
    options: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)
    leak: str = ""
    cycles: int = 1_000
    waits: int = 10_000
    settling: float = 10.0


class Trace(NamedTuple):
    """What a process holds.

    Attributes
    ----------
    threads : int
        As the system counts them; while a store is open, as Python does, since those of gRPC's own pool come and go.
    files : int
        File descriptors.
    memory : int
        Resident memory, in bytes, after all that is free was given back.
    """

    threads: int
    files: int
    memory: int


class Growth(NamedTuple):
    """What a process held before and after, at two times of the same kind."""

    when: str
    before: Trace
    after: Trace

    @property
    def grown(self) -> list[str]:
        """What there is more of; memory may have grown by 5 %."""
        allowed = self.before._replace(memory=int(self.before.memory * 1.05))
        return [what for what, limit, now in zip(Trace._fields, allowed, self.after, strict=True) if now > limit]

    def __str__(self) -> str:
        return f"{self.when}: {self.before} before, {self.after} after"


def measure(plan: Plan) -> list[Growth]:
    """Carry out a plan in a process of its own, and give what it held before and after.

    The allocator is given one arena, so that memory grows by what is held and not by how threads came to share several.
    The resolver is told not to try for long: torch asks it for the name of every peer, and waits for the answer.
    """
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "RES_OPTIONS": "timeout:1 attempts:1"}
    command = [sys.executable, __file__, json.dumps(plan)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise RuntimeError(f"the measuring process failed:\n{ended.stderr}")
    return [Growth(when, Trace(*before), Trace(*after)) for when, before, after in json.loads(ended.stdout)]


def carry_out(plan: Plan) -> list[Growth]:
    """Warm up, look, do the work and look again: when all stores are closed, and while one is open all the time."""
    with _open(plan) as store:
        _work(plan, store, WARM_UP)
    closed = _look(plan)
    with _open(plan) as store:
        _work(plan, store, WARM_UP / 10)
        opened = _look(plan, count_threads=threading.active_count)
        _work(plan, store, 1.0)
        still_open = _look(plan, opened, count_threads=threading.active_count)
    return [Growth("while a store is open", opened, still_open), Growth("all closed", closed, _look(plan, closed))]


def _work(plan: Plan, store: KVStore, share: float) -> None:
    """Do a share of what is planned."""

    def some_of(run: Callable[[int], None], count: int, worker: int) -> None:
        for number in range(worker, int(count * share), WORKERS):
            run(number)

    with ThreadPoolExecutor(WORKERS) as workers, ThreadPoolExecutor(WRITERS) as writers:
        for run, count in ((partial(_cycle, plan), plan.cycles), (partial(_wait, store, writers), plan.waits)):
            list(workers.map(partial(some_of, run, count), range(WORKERS)))


def _open(plan: Plan, number: int = 1) -> KVStore:
    """Open a store. On TCPStore, every fifth hosts the server."""
    if plan.leak:
        return LEAKY[plan.leak]("leaks", "trainer")
    options = plan.options
    if plan.backend == "tcpstore" and number % 5 == 0:
        options = {"host": "127.0.0.1", "port": 0, "is_master": True}
    return open_store(plan.backend, namespace="leaks", component="trainer", **options)


def _cycle(plan: Plan, number: int) -> None:
    """Open a store, use it and close it."""
    key = f"cycle-{threading.get_ident()}"
    with _open(plan, number) as store:
        store.set(key, "1")
        assert store.wait_for_value(key, "1", LONG) == b"1"
        with suppress(WaitTimeoutError):
            store.wait_for_key("nobody", SHORT)
        assert store.delete(key)


def _wait(store: KVStore, writers: ThreadPoolExecutor, number: int) -> None:
    """Wait for a write that comes, or for one that does not, in one of the four ways."""
    way = WAYS[number // 2 % len(WAYS)]
    group = f"wait-{threading.get_ident()}"
    if number % 2:
        written = writers.submit(store.set, f"{group}/0", "1")
        way(store, group, LONG)
        written.result()
        assert store.delete(f"{group}/0")
        return
    try:
        way(store, group, SHORT)
    except WaitTimeoutError:
        return
    raise AssertionError("a wait ended for which nobody wrote")


def _watch(store: KVStore, group: str, limit: float) -> None:
    try:
        with store.watch(f"{group}/*") as changes:
            if not changes.state:
                changes.next(limit)
    except UnsupportedOperationError:
        store.wait_for_key(f"{group}/0", limit)


WAYS: tuple[Callable[[KVStore, str, float], object], ...] = (
    lambda store, group, limit: store.wait_for_key(f"{group}/0", limit),
    lambda store, group, limit: store.wait_for_value(f"{group}/0", "1", limit),
    lambda store, group, limit: store.wait_for_keys(f"{group}/*", 1, "1", limit, [f"{group}/0"]),
    _watch,
)


def _all_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _look(plan: Plan, before: Trace | None = None, count_threads: Callable[[], int] = _all_threads) -> Trace:
    """Look at this process, once it has come to rest: as it was before, or else as it stays for a while."""
    deadline = monotonic() + plan.settling
    seen: list[Trace] = []
    while True:
        while gc.collect():
            pass
        ctypes.CDLL(None).malloc_trim(0)
        files = len(list(Path("/proc/self/fd").iterdir()))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append(Trace(count_threads(), files, pages * os.sysconf("SC_PAGE_SIZE")))
        rests = len(seen) >= RESTING and len({(each.threads, each.files) for each in seen[-RESTING:]}) == 1
        if monotonic() > deadline or (rests and (before is None or not Growth("", before, seen[-1]).grown)):
            return seen[-1]
        time.sleep(0.05)


_closed = itertools.count()
_kept: list[object] = []


class _ThreadLeaker(MemoryStore):
    def close(self, cleanup: bool = True) -> None:
        super().close(cleanup)
        if next(_closed) % LEAK_SHARE == 0:
            threading.Thread(target=threading.Event().wait, daemon=True).start()


class _FileLeaker(MemoryStore):
    def close(self, cleanup: bool = True) -> None:
        super().close(cleanup)
        if next(_closed) % LEAK_SHARE == 0:
            _kept.append(os.open(os.devnull, os.O_RDONLY))


class _FollowerLeaker(MemoryStore):
    def _detach(self, follower: Follower) -> None:
        super()._detach(follower)
        _kept.append(follower)


LEAKY = {"thread": _ThreadLeaker, "file": _FileLeaker, "follower": _FollowerLeaker}
"""Stores that leave something behind, by what it is."""


if __name__ == "__main__":
    print(json.dumps(carry_out(Plan(*json.loads(sys.argv[1])))))
