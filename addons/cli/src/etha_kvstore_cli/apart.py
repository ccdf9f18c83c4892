"""Run what uses a store in a thread of its own, so that a signal interrupts nothing half-way.

Python raises `KeyboardInterrupt` between any two steps of the main thread, also where a client library has just taken a
lock that it will then never give back. Here the main thread only waits. A signal makes it close the store, which is
what ends a wait in another thread, and the command leaves its blocks in order.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from etha.kvstore import KVStore

__all__ = ["closing", "is_leaving", "restoring", "run_apart"]

GRACE = 1.0
"""Seconds for a command to leave when its store is closed. What it does then, such as an opening, can't be ended."""

SLICE = 0.2
"""Seconds after which the main thread sees a signal that the system has given to another thread."""

_Answer = TypeVar("_Answer")

_leaving = threading.Event()
_stores: list[KVStore] = []
_restore: list[Callable[[], object]] = []


def is_leaving() -> bool:
    """Tell whether a signal has come."""
    return _leaving.is_set()


@contextmanager
def closing(store: KVStore) -> Iterator[KVStore]:
    """Close a store when the block is left, or as soon as a signal comes; what was written stays.

    Parameters
    ----------
    store : KVStore
        The open store.
    """
    _stores.append(store)
    try:
        if is_leaving():  # it came during the opening
            store.close(cleanup=False)
        yield store
    finally:
        store.close(cleanup=False)
        _stores.remove(store)


@contextmanager
def restoring(restore: Callable[[], object]) -> Iterator[None]:
    """Give the terminal back when the block is left, or when the process ends without leaving it.

    Parameters
    ----------
    restore : callable
        What does so. It may be called twice.
    """
    _restore.append(restore)
    try:
        yield
    finally:
        restore()
        _restore.remove(restore)


def run_apart(function: Callable[[], _Answer]) -> _Answer:
    """Run a function in another thread, and give what it returns or raise what it raises.

    Parameters
    ----------
    function : callable
        What may use `closing` and `restoring`.

    Returns
    -------
    object
        Its answer.
    """
    answers: list[_Answer] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            answers.append(function())
        except BaseException as error:  # noqa: BLE001 (raised again, in the main thread)
            errors.append(error)
        finally:
            ended.set()

    _leaving.clear()
    worker = threading.Thread(target=work, name="command", daemon=True)
    try:
        worker.start()
        while not ended.wait(SLICE):
            pass
    except (KeyboardInterrupt, SystemExit) as reason:
        _leave(ended, 128 + signal.SIGINT if isinstance(reason, KeyboardInterrupt) else int(reason.code or 0))
        raise
    if errors:
        raise errors[0]
    return answers[0]


def _leave(ended: threading.Event, code: int) -> None:
    """Have the command leave; end the process where it does not."""
    _leaving.set()
    for store in _stores:
        store.close(cleanup=False)
    if not ended.wait(GRACE):
        for restore in reversed(_restore):
            restore()
        sys.stdout.flush()
        os._exit(code)
