"""The TCPStore store beside torch's own client and beside JAX's coordination service."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter
from typing import Any

from etha.kvstore import open_store
from etha.kvstore.base import KVStore
from harness import Block, Contestant, Result, compare, interleave, repeat
from peers import jax_service, raw_tcpstore
from tcpstore_host import TorchHost

__all__ = ["measure"]

NAMESPACE, COMPONENT = "job-42", "trainer"
KEY, VALUE = "rank:0/address", "10.0.0.1:29500"
FULL_KEY = f"{NAMESPACE}/{COMPONENT}/{KEY}"
SENTINEL = "nobody stores this"

MIB = 1 << 20

STORE, JAX = "etha.kvstore", "JAX coordination service"


def measure(quick: bool) -> Result:
    """Time `get`, `exists`, `set`, and the pair for bytes with 1 MiB."""
    result = Result()
    with ExitStack() as opened:
        host = opened.enter_context(TorchHost())
        store = opened.enter_context(
            open_store("tcpstore", namespace=NAMESPACE, component=COMPONENT, host="127.0.0.1", port=host.port)
        )
        raw = raw_tcpstore(host.endpoint)
        jax = opened.enter_context(jax_service())
        store.set(KEY, VALUE)
        jax.key_value_set(KEY, VALUE, allow_overwrite=True)

        def check_then_get() -> bytes | None:
            return raw.get(FULL_KEY) if raw.check([FULL_KEY]) else None

        def set_then_check() -> None:
            raw.set(FULL_KEY, VALUE)
            raw.check([FULL_KEY])

        def beside(what: str, ours: Callable[[], object], theirs: dict[str, Callable[[], object]]) -> None:
            calls = {STORE: ours, **theirs}
            contestants = [Contestant(name, repeat(call)) for name, call in calls.items()]
            rounds, samples = (30, 20) if quick else (150, 40)
            series = interleave(f"TCPStore {what}", contestants, rounds, samples)
            result.series.append(series)
            result.lines += [
                compare(target, what, series, STORE, name)
                for name in theirs
                for target in TARGETS.get((what, name), ())
            ]

        beside(
            "get",
            lambda: store.get(KEY),
            {
                "check then get": check_then_get,
                "raw compare_set": lambda: raw.compare_set(FULL_KEY, SENTINEL, SENTINEL),
                JAX: lambda: jax.key_value_try_get(KEY),
            },
        )
        beside("exists", lambda: store.exists(KEY), {"raw check": lambda: raw.check([FULL_KEY])})
        beside(
            "set",
            lambda: store.set(KEY, VALUE),
            {"raw set then check": set_then_check, JAX: lambda: jax.key_value_set(KEY, VALUE, allow_overwrite=True)},
        )
        _measure_mib(store, raw, result, quick)
    return result


TARGETS = {
    ("get", "check then get"): ["tcpstore-get"],
    ("get", "raw compare_set"): ["tcpstore-raw"],
    ("get", JAX): ["tcpstore-jax"],
    ("exists", "raw check"): ["tcpstore-raw"],
    ("set", "raw set then check"): ["tcpstore-set"],
    ("set", JAX): ["tcpstore-jax"],
}


def _measure_mib(store: KVStore, raw: Any, result: Result, quick: bool) -> None:
    """Time 1 MiB; the floor is what the specification's base64 costs even where torch's client does the rest."""
    data = os.urandom(MIB)
    mine, theirs, encoded = "shards", f"{NAMESPACE}/{COMPONENT}/raw", f"{NAMESPACE}/{COMPONENT}/encoded"
    rounds, samples = (15, 3) if quick else (60, 4)

    def set_then_check() -> None:
        raw.set(theirs, data)
        raw.check([theirs])

    def set_encoded_then_check() -> None:
        raw.set(encoded, base64.b64encode(data))
        raw.check([encoded])

    writes = interleave(
        "TCPStore set_bytes of 1 MiB",
        [
            Contestant(STORE, repeat(lambda: store.set_bytes(mine, data))),
            Contestant("raw set", _settled(lambda: raw.set(theirs, data), lambda: raw.check([theirs]))),
            Contestant("raw set then check", repeat(set_then_check)),
            Contestant("base64, raw set then check", repeat(set_encoded_then_check)),
        ],
        rounds,
        samples,
    )
    reads = interleave(
        "TCPStore get_bytes of 1 MiB",
        [
            Contestant(STORE, repeat(lambda: store.get_bytes(mine))),
            Contestant("raw get", repeat(lambda: raw.get(theirs))),
            Contestant("raw get, base64", repeat(lambda: base64.b64decode(raw.get(encoded)))),
        ],
        rounds,
        samples,
    )
    result.series += [writes, reads]
    result.lines += [
        compare("tcpstore-mib", "set_bytes", writes, STORE, "raw set"),
        compare("tcpstore-mib", "get_bytes", reads, STORE, "raw get"),
        compare("", "set_bytes of 1 MiB beside raw set then check", writes, STORE, "raw set then check"),
        compare(
            "", "1 MiB: base64, raw set then check, beside raw set", writes, "base64, raw set then check", "raw set"
        ),
        compare("", "1 MiB: raw get, base64, beside raw get", reads, "raw get, base64", "raw get"),
    ]


def _settled(call: Callable[[], object], settle: Callable[[], object]) -> Block:
    """Repeat a call that returns before the server has taken its bytes; what is left is waited for, and not timed."""

    def block(samples: int) -> list[float]:
        taken = []
        for _ in range(samples):
            start = perf_counter()
            call()
            taken.append(perf_counter() - start)
        settle()
        return taken

    return block
