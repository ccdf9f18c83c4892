"""`Worker`: a thread that owns a client library's object, so that no call on it can outlast the caller's deadline.

A call into torch can't be interrupted and has no limit of its own: where the server is frozen it stays in C++ for ever.
So it is made on a daemon thread, and the caller waits for the answer as long as it chooses to. The connection is never
abandoned in mid-reply: a late answer is read and thrown away, and then the next request goes out.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from etha_kvstore_tcpstore.carrier import CarrierEndedError, UnansweredError

__all__ = ["Worker"]

Owned = TypeVar("Owned")
Answer = TypeVar("Answer")


class Worker(Generic[Owned]):
    """A thread that uses an object for its callers, one after another; a `Carrier`, where that is a torch store.

    A thread that is busy when the worker is ended, and for longer than that waits, is left to itself.

    Parameters
    ----------
    owned : object
        The object.

    Examples
    --------
    >>> worker = Worker({"key": "value"})
    >>> worker.call(monotonic() + 10, lambda owned: owned.get("key", "absent"))
    'value'
    >>> worker.end(monotonic() + 10, lambda owned: None)
    """

    def __init__(self, owned: Owned) -> None:
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._waiting: set[_Request] = set()
        self._ended = False
        self._owned = owned  # held here as well as by the thread, which a forked child does not have
        self._thread = threading.Thread(
            target=_serve, args=(self._requests, owned), name="etha-kvstore-tcpstore", daemon=True
        )
        # A worker that nobody ended goes with its last user. At exit it is left alone: it may be in C++ just then.
        weakref.finalize(self, self._requests.put, None).atexit = False
        self._thread.start()

    def call(self, deadline: float, function: Callable[[Owned], Answer]) -> Answer:
        return cast("Answer", self._submit(deadline, function))

    def end(self, deadline: float, goodbye: Callable[[Owned], Answer]) -> Answer:
        self._ended = True
        for request in list(self._waiting):
            request.withdraw()
            request.answers.put((None, CarrierEndedError()))
        try:
            answer = self._submit(deadline, goodbye, last=True)
        finally:
            self._requests.put(None)
            del self._owned
        self._thread.join(max(0.0, deadline - monotonic()))
        return cast("Answer", answer)

    def _submit(self, deadline: float, function: Callable[..., object], *, last: bool = False) -> object:
        request = _Request(function)
        remaining = deadline - monotonic()
        timeout = max(0.0, remaining) if remaining < threading.TIMEOUT_MAX else None
        self._waiting.add(request)
        try:
            if self._ended and not last:  # looked at after joining `_waiting`, so that `end` misses nobody
                raise CarrierEndedError
            self._requests.put(request)  # the thread wakes now; whatever is done before `get` keeps it from running
            answer, error = request.answers.get(timeout=timeout)
        except Empty:
            raise UnansweredError(begun=not request.withdraw()) from None
        except BaseException:  # Ctrl-C
            request.withdraw()
            raise
        finally:
            self._waiting.discard(request)
        if error is not None:
            raise error
        return answer


class _Request:
    """One call, from its submission to its answer."""

    __slots__ = ("_claim", "_function", "answers")

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._claim = threading.Lock()
        self.answers: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()

    def run(self, owned: Any) -> None:
        """Make the call and answer, unless it was withdrawn."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            answer = self._function(owned)
        except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
            self.answers.put((None, error))
        else:
            self.answers.put((answer, None))

    def withdraw(self) -> bool:
        """Keep the call from being made; `False` where that is too late."""
        return self._claim.acquire(blocking=False)


def _serve(requests: SimpleQueue[_Request | None], owned: Any) -> None:
    """Make calls until there are no more to come."""
    while (request := requests.get()) is not None:
        request.run(owned)
        del request  # and the value that it may carry, while waiting for the next
