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

__all__ = ["UnansweredError", "Worker", "WorkerEndedError"]

Owned = TypeVar("Owned")
Answer = TypeVar("Answer")


class UnansweredError(Exception):
    """The deadline came before the answer.

    Parameters
    ----------
    begun : bool
        Whether the request may have been sent. One that had not begun never will be.
    """

    def __init__(self, *, begun: bool) -> None:
        super().__init__("no answer in time" if begun else "not sent: earlier requests are still unanswered")
        self.begun = begun


class WorkerEndedError(Exception):
    """The worker was ended before it answered."""


class Worker(Generic[Owned]):
    """A thread that makes an object, uses it for its callers one after another, and lets go of it.

    Parameters
    ----------
    deadline : float
        By when the object must have been made, on the monotonic clock, in seconds.
    make : callable
        Makes it.

    Raises
    ------
    UnansweredError
        If it took longer.
    Exception
        Whatever `make` raises.

    Examples
    --------
    >>> worker = Worker(monotonic() + 10, dict)
    >>> worker.call(monotonic() + 10, lambda owned: owned.get("key", "absent"))
    'absent'
    >>> worker.end(monotonic() + 10, lambda owned: None)
    """

    def __init__(self, deadline: float, make: Callable[[], Owned]) -> None:
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._waiting: set[_Request] = set()
        self._ended = False
        self._owned: list[Owned] = []  # held here as well as by the thread, which a forked child does not have
        self._thread = threading.Thread(
            target=_serve, args=(self._requests, self._owned), name="etha-kvstore-tcpstore", daemon=True
        )
        # A worker that nobody ended goes with its last user. At exit it is left alone: it may be in C++ just then.
        weakref.finalize(self, self._requests.put, None).atexit = False
        self._thread.start()
        owned = self._owned
        try:
            self._submit(deadline, lambda: owned.append(make()))
        except BaseException:
            self._requests.put(None)
            raise

    def call(self, deadline: float, function: Callable[[Owned], Answer]) -> Answer:
        """Have a function called with the object, and wait for what it returns.

        Parameters
        ----------
        deadline : float
            How long to wait, on the monotonic clock, in seconds.
        function : callable
            Is given the object, on the worker's thread.

        Returns
        -------
        object
            What the function returns.

        Raises
        ------
        UnansweredError
            If the deadline came first.
        WorkerEndedError
            If the worker was ended before or during the call.
        Exception
            Whatever the function raises.
        """
        return cast("Answer", self._submit(deadline, function))

    def end(self, deadline: float, goodbye: Callable[[Owned], Answer]) -> Answer:
        """End every waiting call with `WorkerEndedError`, make one last call, and let go of the object.

        Parameters
        ----------
        deadline : float
            How long to wait, on the monotonic clock, in seconds. A thread that is busy for longer is left to itself.
        goodbye : callable
            The last call; it is given the object.

        Returns
        -------
        object
            What `goodbye` returns.

        Raises
        ------
        UnansweredError
            If the deadline came first.
        Exception
            Whatever `goodbye` raises.
        """
        self._ended = True
        for request in list(self._waiting):
            request.withdraw()
            request.answers.put((None, WorkerEndedError()))
        try:
            answer = self._submit(deadline, goodbye, last=True)
        finally:
            self._requests.put(None)
        self._thread.join(max(0.0, deadline - monotonic()))
        return cast("Answer", answer)

    def _submit(self, deadline: float, function: Callable[..., object], *, last: bool = False) -> object:
        request = _Request(function)
        remaining = deadline - monotonic()
        timeout = max(0.0, remaining) if remaining < threading.TIMEOUT_MAX else None
        self._waiting.add(request)
        try:
            if self._ended and not last:  # looked at after joining `_waiting`, so that `end` misses nobody
                raise WorkerEndedError
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

    def run(self, owned: list[Any]) -> None:
        """Make the call and answer, unless it was withdrawn."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            answer = self._function(*owned)
        except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
            self.answers.put((None, error))
        else:
            self.answers.put((answer, None))

    def withdraw(self) -> bool:
        """Keep the call from being made; `False` where that is too late."""
        return self._claim.acquire(blocking=False)


def _serve(requests: SimpleQueue[_Request | None], owned: list[Any]) -> None:
    """Make calls until there are no more to come, then let go of the object."""
    while (request := requests.get()) is not None:
        request.run(owned)
        del request  # and the value that it may carry, while waiting for the next
    owned.clear()
