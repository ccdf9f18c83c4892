"""How a test watches what takes time: calls in the background, waits under way, time limits, signals."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import StoreClosedError, WaitTimeoutError

__all__ = ["GRACE", "PATIENCE", "call_with_a_signal", "ctrl_c_after", "in_background", "see_under_way", "takes"]

GRACE = 1.0
"""Seconds within which the contract lets a call end after its deadline, after `close` or after Ctrl-C."""

PATIENCE = 10.0
"""Seconds after which a test takes what should have happened, and has no limit of its own, for lost."""

_Result = TypeVar("_Result")


def in_background(call: Callable[..., _Result], *arguments: Any, **named: Any) -> Future[_Result]:
    """Make a call in a thread of its own.

    Parameters
    ----------
    call : callable
        What to call.
    *arguments, **named
        What with.

    Returns
    -------
    Future
        Its outcome. ``result(seconds)`` and ``exception(seconds)`` fail where the call takes longer. The thread is a
        daemon, so that a call that hangs fails its test and no more.

    Examples
    --------
    >>> in_background(store.wait_for_key, "ready", timeout=60).result(1.0)
    b'1'
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            result = call(*arguments, **named)
        except BaseException as error:  # noqa: BLE001  the future hands it to whoever asks
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=f"in_background({call!r})", daemon=True).start()
    return future


def see_under_way(beside: KVStore, *waits: Future[Any]) -> None:
    """See that waits in the background go on, after the time that they need to be under way.

    Nothing tells from outside that a wait has looked and sleeps now. So whole waits, which look and sleep as well, are
    made beside them: on a slow machine they take longer, as the others do.

    Parameters
    ----------
    beside : KVStore
        The store to make the other waits on.
    *waits : Future
        The waits, from `in_background`.
    """
    for _ in range(3):
        with pytest.raises(WaitTimeoutError):
            beside.wait_for_key("nobody-writes-this", timeout=0.03)
    for waiting in waits:
        assert not waiting.done(), f"the wait should go on, but ended: {waiting.exception() or waiting.result()!r}"


@contextmanager
def takes(*, at_least: float = 0.0, at_most: float) -> Iterator[None]:
    """See that a block takes so many seconds.

    Parameters
    ----------
    at_least, at_most : float
        The limits, in seconds.
    """
    started = monotonic()
    yield
    took = monotonic() - started
    assert at_least <= took <= at_most, f"it took {took:.3f} s, not {at_least} to {at_most} s"


def call_with_a_signal(call: Callable[[], object], line: int, handler: Callable[[], object]) -> int:
    """Make a call, and run the handler of a signal in the middle of it.

    Python runs such a handler in between whatever the main thread does. Here any thread will do, and one says where.

    Parameters
    ----------
    call : callable
        What to interrupt. It may raise what a store raises that was closed meanwhile, or whose wait is over.
    line : int
        Before which line of the call, all that it calls included, the handler is run; the first is 1.
    handler : callable
        The handler.

    Returns
    -------
    int
        How many lines the call had: fewer than `line` where the handler was not run.
    """
    lines = 0

    def trace(frame: object, event: str, argument: object) -> Any:
        nonlocal lines
        lines += 1
        if lines == line:
            handler()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except (StoreClosedError, WaitTimeoutError):
        pass
    finally:
        sys.settrace(before)
    return lines


@contextmanager
def ctrl_c_after(seconds: float) -> Iterator[None]:
    """Press Ctrl-C while a block runs, and see that it ends the block within `GRACE`.

    Parameters
    ----------
    seconds : float
        When, after the beginning of the block.
    """
    main = threading.main_thread()
    assert threading.current_thread() is main, "Ctrl-C interrupts the main thread, so this test must run in it"
    pressed: list[float] = []

    def press() -> None:
        pressed.append(monotonic())
        assert main.ident is not None
        signal.pthread_kill(main.ident, signal.SIGINT)

    # Python swallows a Ctrl-C that strikes in a finalizer, so none may be left to run for what former tests have used.
    gc.collect()
    # A process that was started in the background may ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, press)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
        took = monotonic() - pressed[0]
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert took <= GRACE, f"it took {took:.3f} s from Ctrl-C to the end of the wait"
