"""Do once, on a store that is open, what a job does all the time, on a key that nobody else has."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import monotonic
from typing import NamedTuple
from uuid import uuid4

from etha.kvstore import KVStore
from etha.kvstore.errors import AuthenticationError, OutcomeUnknownError
from etha.kvstore.hookspecs import BackendSpec
from etha_kvstore_cli.report import Report

__all__ = ["probe"]

SLOW = 0.1
"""Seconds: a median round trip that is worth a word."""

ROUND_TRIPS = 9

MEASURING_SECONDS = 2.0
"""After how long no further round trip is measured."""

WAKING_SECONDS = 5.0
"""How long a watch may take to tell of a change."""


class Told(NamedTuple):
    """What is said of a call, where that is more than that it works."""

    level: str
    text: str


WORKS = Told("good", "works")


def probe(store: KVStore, spec: BackendSpec, report: Report, *, read_only: bool) -> None:
    """Read, list, write, watch and delete, and say which of them is allowed.

    Parameters
    ----------
    store : KVStore
        The store.
    spec : BackendSpec
        What its backend can do.
    report : Report
        Where it is said.
    read_only : bool
        Whether nothing is to be written.
    """
    key = f"etha-kv-doctor/{uuid4().hex}"
    _try(report, "read", lambda: _measure(store, key))
    if "list_keys" in spec.capabilities:
        _try(report, "list", lambda: store.list_keys(f"{key}*"))
    watches = "watch" in spec.capabilities
    if read_only:
        if watches:
            _try(report, "watch", lambda: _watch(store, key))
        report.found("good", "write and delete: not tried (--read-only)")
        return
    failure = _try(report, "write", lambda: store.set(key, "1"))
    if failure is None:
        _try(report, "read back", lambda: _read_back(store, key))
        if watches:
            _try(report, "watch", lambda: _wake(store, key))
    if failure is None or isinstance(failure, OutcomeUnknownError):
        _try(report, "delete", lambda: store.delete(key))


def _try(report: Report, what: str, call: Callable[[], object]) -> Exception | None:
    """Make a call, say whether it works, and give what it failed with; where it gives a `Told`, that is said."""
    report.step(what)
    try:
        answer = call()
    except Exception as error:  # noqa: BLE001 (a stranger's store may fail with anything)
        report.failed(f"{what}: refused" if isinstance(error, AuthenticationError) else f"{what}: failed", error)
        return error
    told = answer if isinstance(answer, Told) else WORKS
    report.found(told.level, f"{what}: {told.text}")
    return None


def _measure(store: KVStore, key: str) -> Told:
    took: list[float] = []
    while len(took) < ROUND_TRIPS and sum(took) < MEASURING_SECONDS:
        began = monotonic()
        store.exists(key)
        took.append(monotonic() - began)
    told = f"a round trip takes {median(took) * 1000:.2f} ms (median of {len(took)})"
    if median(took) > SLOW:
        return Told("doubtful", f"works slowly; {told} -> bring the server nearer, or see what keeps it busy")
    return Told("good", f"works; {told}")


def _read_back(store: KVStore, key: str) -> Told:
    if (found := store.get(key)) != b"1":
        return Told("bad", f"b'1' was written and {found!r} read -> report it to who makes that backend")
    return WORKS


def _watch(store: KVStore, key: str) -> None:
    with store.watch(key):
        pass


def _wake(store: KVStore, key: str) -> Told:
    with store.watch(key) as changes:
        # The first change may have been made before the server watched, and such a one comes late.
        for value in ("2", "3"):
            began = monotonic()
            store.set(key, value)
            changes.next(WAKING_SECONDS)
        return Told("good", f"works; one who waits hears of a write after {(monotonic() - began) * 1000:.1f} ms")
