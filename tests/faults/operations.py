"""The operations of the matrix: what each does to a key of its own, and what it gives where nothing is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from etha.kvstore import Change, KVStore
from etha.kvstore import errors as contract

__all__ = ["OPERATIONS", "RETURNED", "Call", "Kind", "Operation", "Outcome", "call"]

RETURNED = "returned"
"""How a call ended that raised nothing."""

BINARY = b"\x00new\xff"


class Kind(Enum):
    """What an operation is to the contract's rules."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    """A write that reading can't confirm."""
    WAIT = "wait"
    CLOSE = "close"
    OPEN = "open"


class Outcome(NamedTuple):
    """How a call ended: what it returned, or the name of an error's class and its text. Times are monotonic."""

    ended_with: str
    value: object
    text: str
    began: float
    ended: float

    def __str__(self) -> str:
        said = repr(self.value) if self.ended_with == RETURNED else self.text
        return f"{self.ended_with} after {self.ended - self.began:.2f} s: {said}"


Call = Future[Outcome]


def call(function: Callable[..., object], *arguments: object) -> Outcome:
    """Make a call and say how it ended."""
    began = time.monotonic()
    try:
        value = function(*arguments)
    except Exception as error:  # noqa: BLE001 (which it is, is the question)
        kind = type(error)
        name = kind.__name__ if kind.__module__ == contract.__name__ else f"{kind.__module__}.{kind.__name__}"
        return Outcome(name, None, str(error), began, time.monotonic())
    return Outcome(RETURNED, value, "", began, time.monotonic())


@dataclass(frozen=True)
class Operation:
    """One method of a store.

    Attributes
    ----------
    name : str
        The method.
    kind : Kind
        What the contract's rules take it for.
    run : callable
        Is given a store, a key and for how long a wait may go on.
    result : callable
        Is given the key, and tells what `run` returns where nothing is wrong.
    prepare : callable
        Makes the state that it starts from, through a store that works.
    nothing : object
        What a read gives where the data are gone.
    before, after : bytes, optional
        What the key holds where a write did not take effect, and where it did.
    fulfil : callable, optional
        Makes the condition of a wait true.
    """

    name: str
    kind: Kind
    run: Callable[[KVStore, str, float], object]
    result: Callable[[str], object]
    prepare: Callable[[KVStore, str], None] = lambda store, key: store.set(key, "old")
    nothing: object = None
    before: bytes | None = b"old"
    after: bytes | None = None
    fulfil: Callable[[KVStore, str], None] | None = None

    def __str__(self) -> str:
        return self.name


def _nothing(store: KVStore, key: str) -> None:
    """Prepare nothing."""


def _one(store: KVStore, key: str) -> None:
    store.set(key, "1")


def _both(store: KVStore, key: str) -> None:
    for rank in range(2):
        store.set(f"{key}/{rank}", "1")


def _wait_for_key(store: KVStore, key: str, seconds: float) -> object:
    return store.wait_for_key(key, seconds)


def _wait_for_keys(store: KVStore, key: str, seconds: float) -> object:
    return store.wait_for_keys(f"{key}/*", 2, "1", seconds, [f"{key}/0", f"{key}/1"])


def _watch(store: KVStore, key: str, seconds: float) -> object:
    with store.watch(f"{key}*") as changes:
        return changes.next(seconds)


_ALL = (
    Operation("get", Kind.READ, lambda store, key, _: store.get(key), lambda _: b"old"),
    Operation("exists", Kind.READ, lambda store, key, _: store.exists(key), lambda _: True, nothing=False),
    Operation("list_keys", Kind.READ, lambda store, key, _: store.list_keys(f"{key}*"), lambda key: [key], nothing=[]),
    Operation("set", Kind.WRITE, lambda store, key, _: store.set(key, "new"), lambda _: None, after=b"new"),
    Operation(
        "set_bytes",
        Kind.WRITE,
        lambda store, key, _: store.set_bytes(key, BINARY),
        lambda _: None,
        lambda store, key: store.set_bytes(key, b"old"),
        after=BINARY,
    ),
    Operation("delete", Kind.DELETE, lambda store, key, _: store.delete(key), lambda _: True),
    Operation("wait_for_key", Kind.WAIT, _wait_for_key, lambda _: b"1", _nothing, fulfil=_one),
    Operation(
        "wait_for_value",
        Kind.WAIT,
        lambda store, key, seconds: store.wait_for_value(key, "1", seconds),
        lambda _: b"1",
        fulfil=_one,
    ),
    Operation("wait_for_keys", Kind.WAIT, _wait_for_keys, lambda key: [f"{key}/0", f"{key}/1"], _nothing, fulfil=_both),
    Operation("watch", Kind.WAIT, _watch, lambda key: Change(key, b"1"), _nothing, fulfil=_one),
    Operation("close", Kind.CLOSE, lambda store, *_: store.close(cleanup=True), lambda _: None, after=b"new"),
    Operation("open", Kind.OPEN, lambda *_: None, lambda _: None),
)

OPERATIONS = {operation.name: operation for operation in _ALL}
