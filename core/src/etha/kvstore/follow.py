"""How a wait follows the store: `Follower`, and the two ready-made ways to be one.

A backend's ``_follow(selector)`` returns a `Follower`. Its first answer is the state now; each later one is what has
changed since, so a wait built on it has no instant in which a write could slip between the look and the watch. A
backend that is told of changes pushes them into a `PushFollower`; one that is not is polled by a `PollingFollower`.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from etha.kvstore.errors import KVStoreError, OperationTimeoutError, StoreClosedError, StoreUnavailableError
from etha.kvstore.patterns import Pattern

if TYPE_CHECKING:
    from etha.kvstore.skeleton import SkeletalStore

__all__ = [
    "LOOK_GRACE",
    "Batch",
    "Bell",
    "Follower",
    "Outage",
    "PollingFollower",
    "PushFollower",
    "Selector",
    "first_look_by",
]

log = logging.getLogger("etha.kvstore")

LOOK_GRACE = 0.5
"""Seconds that a look may take which begins at, or just before, the deadline of its wait."""

LONGEST_SLEEP = 0.5
"""Seconds: a wait sleeps in slices, since Python sees a signal that came just as it fell asleep only when it wakes."""


class Selector(NamedTuple):
    """What is followed. All keys are full keys.

    Attributes
    ----------
    pattern : Pattern
        Which keys.
    candidates : sequence of bytes, optional
        The fitting candidates that the caller gave, without duplicates.
    expected : int, optional
        How many keys are waited for; `None` where every change matters.
    value : bytes, optional
        The value that they must hold; `None` where any will do.
    """

    pattern: Pattern
    candidates: Sequence[bytes] | None = None
    expected: int | None = None
    value: bytes | None = None


class Batch(NamedTuple):
    """What happened at one instant: nothing lies between two changes of one batch.

    Attributes
    ----------
    changes : sequence of (bytes, bytes or None)
        Full keys and their new values, `None` for a deletion.
    restart : bool
        Whether `changes` is the whole state, which replaces all that was said before.
    """

    changes: Sequence[tuple[bytes, bytes | None]]
    restart: bool = False


class Outage(NamedTuple):
    """Since when a follower has had no answer (monotonic clock, seconds), and why."""

    since: float
    cause: KVStoreError


def first_look_by(deadline: float, operation_timeout: float) -> float:
    """Give the time by which the first look of a wait must have its answer.

    A wait that is only to look (``timeout=0``) has the operation timeout for it; any other has its own deadline, and
    enough time for one look however soon that is.

    Parameters
    ----------
    deadline : float
        The wait's deadline, on the monotonic clock, in seconds.
    operation_timeout : float
        The store's operation timeout, in seconds.

    Returns
    -------
    float
        A time on the monotonic clock, in seconds.

    Examples
    --------
    >>> first_look_by(float("inf"), 10.0)
    inf
    """
    now = monotonic()
    return now + operation_timeout if deadline <= now else max(deadline, now + LOOK_GRACE)


class Follower(ABC):
    """The state of a selection, and then its changes.

    Attributes
    ----------
    outage : Outage or None
        Set while the server can't be reached and the follower rides it out.
    enough : int
        So many changes, of one key each, are worth waking the consumer for: with fewer it can't have what it waits for.
        The consumer sets this before it calls `next`. A follower may wake it for less, and one that polls does.
    thorough : bool
        Whether somebody will be told what there is at the deadline, so that it is worth a look then. The consumer sets
        this likewise.
    """

    outage: Outage | None = None
    enough: int = 1
    thorough: bool = True

    @abstractmethod
    def next(self, deadline: float) -> Sequence[Batch]:
        """Wait for news.

        Parameters
        ----------
        deadline : float
            When to return with nothing, on the monotonic clock, in seconds. The first call looks once even where
            the deadline has passed, under `first_look_by`.

        Returns
        -------
        sequence of Batch
            The first answer begins with a batch that restarts the state. Empty where the deadline has passed.

        Raises
        ------
        KVStoreError
            What can't be cured by waiting; `StoreClosedError` after `close`.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; a `next` under way in another thread ends at once with `StoreClosedError`."""


class Bell:
    """What one thread sleeps by until another rings: a lock that is held while there is no news.

    A `threading.Event`, which any number of threads may wait for, takes nearly twice as long to wake one.
    """

    def __init__(self) -> None:
        self._quiet = threading.Lock()
        self._quiet.acquire()

    def set(self) -> None:
        """Wake the sleeper, or the next one."""
        if self._quiet.locked():
            try:  # noqa: SIM105 (suppress() takes longer than all the rest)
                self._quiet.release()
            except RuntimeError:  # another thread was faster
                pass

    def clear(self) -> None:
        """Forget that it rang."""
        self._quiet.acquire(blocking=False)

    def wait(self, timeout: float) -> bool:
        """Sleep, and tell whether it rang; that is forgotten then."""
        return self._quiet.acquire(timeout=timeout)


class PushFollower(Follower):
    """A follower that is fed by whoever learns of the changes.

    One thread consumes; any thread may feed. A consumer that sleeps is left to sleep until `enough` changes have come;
    whatever wakes it, its deadline included, it is given all of them.
    """

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._failure: KVStoreError | None = None
        self._closed = False
        self._news = Bell()

    def push(self, batch: Batch) -> None:
        """Feed one batch."""
        self._batches.append(batch)
        if len(self._batches) >= self.enough or batch.restart or len(batch.changes) > 1:
            self._news.set()

    def fail(self, failure: KVStoreError) -> None:
        """End the follower: once what was fed before is consumed, `next` raises this."""
        self._failure = failure
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    def next(self, deadline: float) -> Sequence[Batch]:
        while True:
            self._news.clear()  # before the look: what is fed after it sets the flag again
            if self._closed:
                raise StoreClosedError("the store was closed during the wait")
            if taken := self._take():
                return taken
            if self._failure is not None:
                raise self._failure
            remaining = deadline - monotonic()
            if remaining <= 0:
                return ()
            self._news.wait(min(remaining, LONGEST_SLEEP))

    def _take(self) -> list[Batch]:
        return [self._batches.popleft() for _ in range(len(self._batches))]


class PollingFollower(Follower):
    """A follower that looks again and again through the store's ``_read`` and ``_enumerate``.

    The pause between two looks is 2 % of the time waited so far, at least 0.5 ms and at most 50 ms, so a wait is
    late by no more than 2 % of itself. In a wait older than a second, looking takes at most 2 % of the time:
    a look that has become slow is the sign to look less.

    It sees the latest state only. A condition on several keys is confirmed by reading all of them twice.

    Parameters
    ----------
    store : SkeletalStore
        The store to look through.
    selector : Selector
        What to look at.
    """

    SHARE = 0.02
    SHORTEST_PAUSE = 0.0005
    LONGEST_PAUSE = 0.05

    def __init__(self, store: SkeletalStore, selector: Selector) -> None:
        self._store = store
        self._selector = selector
        self._closed = False
        self._end = Bell()
        self._seen: dict[bytes, bytes] = {}
        self._tried = False
        self._outage_is_logged = False
        self._answered = False
        self._started = monotonic()
        self._look_took = self._look_before_took = 0.0
        self._ridden_out: tuple[type[KVStoreError], ...] = (OperationTimeoutError,)
        if "outlives_server" in store.spec.capabilities:
            self._ridden_out += (StoreUnavailableError,)

    def close(self) -> None:
        self._closed = True
        self._end.set()

    def next(self, deadline: float) -> Sequence[Batch]:
        while True:
            if self._tried:
                self._end.wait(max(0.0, min(self._pause(), deadline - monotonic())))
            if self._closed:
                raise StoreClosedError("the store was closed during the wait")
            now = monotonic()
            final = now >= deadline
            by = max(deadline, now + LOOK_GRACE) if self._tried else first_look_by(deadline, self._store.timeout)
            self._tried = True
            try:
                changes = self._look(by, thorough=final and self.thorough)
            except self._ridden_out as error:  # a silent server may speak again, and the deadline is the wait's own
                self.outage = self.outage or Outage(now, error)
                if final or monotonic() >= deadline:
                    return ()
                if not self._outage_is_logged:
                    self._outage_is_logged = True
                    log.warning("the store does not answer, and a wait rides it out: %s", error)
                continue
            self.outage = None
            if self._outage_is_logged:
                self._outage_is_logged = False
                log.info("the store answers again, and the wait goes on")
            self._look_before_took, self._look_took = self._look_took, monotonic() - now
            if changes or not self._answered:
                batch = Batch(changes, restart=not self._answered)
                self._answered = True
                return (batch,)
            if final:
                return ()

    def _pause(self) -> float:
        waited = monotonic() - self._started
        pause = min(max(self.SHARE * waited, self.SHORTEST_PAUSE), self.LONGEST_PAUSE)
        if waited > 1.0:  # the shorter of two looks: one that was held up once says nothing of the next
            took = min(self._look_took, self._look_before_took)
            pause = max(pause, took * (1.0 - self.SHARE) / self.SHARE)
        return pause

    def _look(self, deadline: float, *, thorough: bool) -> list[tuple[bytes, bytes | None]]:
        """Look once and return what differs from the last look.

        Parameters
        ----------
        deadline : float
            By when to have looked.
        thorough : bool
            Whether somebody will be told what there is.
        """
        selector = self._selector
        if selector.pattern.is_literal:
            now = self._read_all([selector.pattern.literal_prefix], deadline)
        elif "waits_by_pattern" in self._store.spec.capabilities:
            now = self._enumerate(deadline)
        else:
            now = self._read_candidates(deadline, thorough)
        changes: list[tuple[bytes, bytes | None]] = [(k, v) for k, v in now.items() if self._seen.get(k) != v]
        changes += [(key, None) for key in self._seen if key not in now]
        self._seen = now
        return changes

    def _read_all(self, keys: Iterable[bytes], deadline: float) -> dict[bytes, bytes]:
        """Read keys one by one; those that are absent are left out. No single read outlasts the operation timeout."""
        store = self._store
        found = ((key, store._read(key, min(deadline, monotonic() + store.timeout))) for key in keys)
        return {key: value for key, value in found if value is not None}

    def _enumerate(self, deadline: float) -> dict[bytes, bytes]:
        pattern, store = self._selector.pattern, self._store
        found = store._enumerate(pattern.literal_prefix, min(deadline, monotonic() + store.timeout))
        return {key: value for key, value in found if pattern.matches(key)}

    def _read_candidates(self, deadline: float, thorough: bool) -> dict[bytes, bytes]:
        """Read the candidates that are not settled yet; read the settled ones again when there are enough.

        Two readings of the same keys that agree show that there was an instant between them at which all held
        (unless a key left its value and came back to it in between, which no reading can tell).
        """
        candidates, value = self._selector.candidates or (), self._selector.value
        settled = {} if thorough else {key: held for key, held in self._seen.items() if held == value}
        now = settled | self._read_all((key for key in candidates if key not in settled), deadline)
        holders = [key for key in candidates if now.get(key) == value]
        if len(holders) > 1 and len(holders) >= (self._selector.expected or 0):
            again = self._read_all(holders, deadline)
            now = {key: held for key, held in now.items() if held != value} | again
        return now
