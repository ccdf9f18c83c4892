"""The memory store beside a dict under a lock and beside ``py-key-value-aio``."""

from __future__ import annotations

import threading
from contextlib import closing
from time import perf_counter

from etha.kvstore import open_store
from etha.kvstore.base import KVStore
from harness import Block, Contestant, Result, compare, interleave
from peers import LockedDict, PyKeyValue

__all__ = ["measure"]

BATCH = 200
"""Calls in a sample: one alone is not much longer than reading the clock. The loops are written out, so that no
contestant pays for a call that another does not make."""

PEER_BATCH = 20

KEY, VALUE = "rank:0/ready", "10.0.0.1:29500"

STORE, DICT, CLASS, PEER = "etha.kvstore", "dict under a lock", "dict under a lock, in a class", "py-key-value-aio"


def measure(quick: bool) -> Result:
    """Time `set` and `get`."""
    result = Result()
    rounds, samples = (25, 8) if quick else (100, 10)
    with open_store("memory", namespace="job-42", component="trainer") as store, closing(PyKeyValue()) as peer:
        own = LockedDict("job-42", "trainer")
        get_inline, set_inline = _written_inline("job-42", "trainer")
        blocks = {
            "set": (_sets(store), set_inline, _sets(own), peer.set(KEY, VALUE, "trainer", PEER_BATCH)),
            "get": (_gets(store), get_inline, _gets(own), peer.get(KEY, "trainer", PEER_BATCH)),
        }
        for what, four in blocks.items():
            contestants = [
                Contestant(name, block) for name, block in zip((STORE, DICT, CLASS, PEER), four, strict=True)
            ]
            series = interleave(f"memory {what}", contestants, rounds, samples)
            result.series.append(series)
            result.lines += [
                compare("memory-dict", what, series, STORE, DICT),
                compare("", f"memory {what}, the dict's calls wrapped in a class", series, STORE, CLASS),
                compare("memory-peer", what, series, STORE, PEER),
            ]
    return result


def _gets(store: KVStore | LockedDict) -> Block:
    def block(samples: int) -> list[float]:
        taken = []
        for _ in range(samples):
            start = perf_counter()
            for _ in range(BATCH):
                store.get(KEY)
            taken.append((perf_counter() - start) / BATCH)
        return taken

    return block


def _sets(store: KVStore | LockedDict) -> Block:
    def block(samples: int) -> list[float]:
        taken = []
        for _ in range(samples):
            start = perf_counter()
            for _ in range(BATCH):
                store.set(KEY, VALUE)
            taken.append((perf_counter() - start) / BATCH)
        return taken

    return block


def _written_inline(namespace: str, component: str) -> tuple[Block, Block]:
    """Make the blocks of a user who writes the three lines on the spot."""
    lock = threading.Lock()
    values: dict[str, str] = {}
    key = KEY

    def gets(samples: int) -> list[float]:
        taken = []
        for _ in range(samples):
            start = perf_counter()
            for _ in range(BATCH):
                with lock:
                    values.get(f"{namespace}/{component}/{key}")
            taken.append((perf_counter() - start) / BATCH)
        return taken

    def sets(samples: int) -> list[float]:
        taken = []
        for _ in range(samples):
            start = perf_counter()
            for _ in range(BATCH):
                with lock:
                    values[f"{namespace}/{component}/{key}"] = VALUE
            taken.append((perf_counter() - start) / BATCH)
        return taken

    return gets, sets
