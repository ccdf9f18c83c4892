"""`SkeletalStore`: all that stores have in common, so that a backend is only what is peculiar to it.

Every call takes three steps. The skeleton checks the arguments, makes the full key and fixes the deadline; the backend
does one small thing to bytes (read, write, remove, enumerate, follow); the skeleton turns the answer into what the
contract promises, errors included.
"""

from __future__ import annotations

import logging
import math
import operator
import os
import threading
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import ClassVar

from etha.kvstore import keys
from etha.kvstore.base import Change, KVStore, Watch
from etha.kvstore.errors import (
    ConfigError,
    ForkedStoreError,
    KVStoreError,
    StoreClosedError,
    UnsupportedOperationError,
    ValueTooLargeError,
    WaitTimeoutError,
)
from etha.kvstore.follow import Batch, Follower, PollingFollower, Selector
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.patterns import Pattern
from etha.kvstore.waiting import Tally

__all__ = ["SkeletalStore"]

log = logging.getLogger("etha.kvstore")

FIRST_REPORT = 30.0
"""Seconds after which a wait that goes on says so; then at doubling intervals."""


class SkeletalStore(KVStore):
    """A `KVStore` in which only the bytes are missing.

    A subclass sets `spec`, calls ``super().__init__``, connects, and writes three small methods: `_read`,
    `_write` and `_remove`. That is a whole backend; its waits poll. The others are better written where the backend can
    do better: `_enumerate` (capabilities ``list_keys``, ``waits_by_pattern``), `_list`, `_follow` (``watch``),
    `_exists`, `_encode` and `_decode`, `_release`, `_where`.

    Each of them is given full keys that are checked, and a deadline on the monotonic clock, never further away than the
    operation timeout, within which it must answer or raise an error of `etha.kvstore.errors`. Each may be called from
    many threads at once. A `_read` that is under way on a silent server when the store is closed ends soon with
    `StoreClosedError`, since a wait may be in it.

    Parameters
    ----------
    namespace, component : str
        As `KVStore`.
    timeout : float
        The operation timeout, in seconds: how long any call but a wait may take.

    Raises
    ------
    ConfigError
        If the timeout is not a positive number of seconds.

    Examples
    --------
    >>> from etha.kvstore.hookspecs import BackendSpec
    >>> class DictStore(SkeletalStore):
    ...     spec = BackendSpec("dict", "__main__:DictStore", "a dict, for one thread", contract=1)
    ...     def __init__(self, namespace, component):
    ...         super().__init__(namespace, component)
    ...         self._kept = {}
    ...     def _read(self, key, deadline):
    ...         return self._kept.get(key)
    ...     def _write(self, key, value, deadline):
    ...         self._kept[key] = value
    ...     def _remove(self, key, deadline):
    ...         return self._kept.pop(key, None) is not None
    >>> with DictStore("job-42", "trainer") as small:
    ...     small.set("ready", "1")
    ...     small.wait_for_value("ready", "1")
    b'1'
    """

    spec: ClassVar[BackendSpec]

    def __init__(self, namespace: str, component: str, *, timeout: float = 10.0) -> None:
        super().__init__(namespace, component)
        self.timeout = _seconds(timeout)
        if not 0 < self.timeout < math.inf:
            raise ConfigError(f"the operation timeout is a positive number of seconds, not {timeout!r}")
        self._prefixes: dict[str | None, bytes] = {None: keys.prefix(namespace, component)}
        self._refusal: KVStoreError | None = None
        self._life = threading.RLock()  # a signal's handler may close the store while its thread holds this
        self._followers: set[Follower] = set()
        _open_stores.add(self)

    # --- what a backend writes ---

    @abstractmethod
    def _read(self, key: bytes, deadline: float) -> bytes | None:
        """Return the stored bytes, or `None` where the key does not exist. Safe to repeat until the deadline."""

    @abstractmethod
    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        """Store the value, and return when the server has acknowledged it.

        Raises `ValueTooLargeError` before anything is sent (`_refuse_size` makes it), and `OutcomeUnknownError` rather
        than send twice what may have taken effect.
        """

    @abstractmethod
    def _remove(self, key: bytes, deadline: float) -> bool:
        """Delete the key, and tell whether it was this call that did."""

    def _exists(self, key: bytes, deadline: float) -> bool:
        """Tell whether the key exists; better than reading the value where the backend can."""
        return self._read(key, deadline) is not None

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        """Give all keys that begin with the prefix, and their values, as they were at one instant."""
        raise self._lacks("list_keys")

    def _list(self, prefix: bytes, deadline: float) -> Iterable[bytes]:
        """Give what `_enumerate` gives, without the values; better than reading them where the backend can."""
        return (key for key, _ in self._enumerate(prefix, deadline))

    def _follow(self, selector: Selector) -> Follower:
        """Follow a selection. This default polls, and sees the latest state only."""
        return PollingFollower(self, selector)

    def _encode(self, data: bytes) -> bytes:
        """Turn what `set_bytes` was given into what is stored."""
        return data

    def _decode(self, key: str, stored: bytes) -> bytes:
        """Undo `_encode`, or raise `ValueDecodeError`, which names the key."""
        return stored

    def _release(self, cleanup: bool, deadline: float) -> None:
        """Let go of the connection. Called once, after every wait was told; a server that is away is logged.

        Calls of other threads may still be under way, or be about to begin: end them with `StoreClosedError`.
        """

    def _where(self) -> str:
        """Say where the store is connected, without secrets."""
        return "this process"

    # --- the contract ---

    def get(self, key: str, *, component: str | None = None) -> bytes | None:
        return self._read(self._full(key, component), monotonic() + self.timeout)

    def set(self, key: str, value: str, *, component: str | None = None) -> None:
        full = self._full(key, component)
        self._write(full, _utf8(value, key, "; set_bytes() takes bytes"), monotonic() + self.timeout)

    def get_bytes(self, key: str, *, component: str | None = None) -> bytes | None:
        stored = self._read(self._full(key, component), monotonic() + self.timeout)
        return None if stored is None else self._decode(key, stored)

    def set_bytes(self, key: str, data: bytes, *, component: str | None = None) -> None:
        full = self._full(key, component)
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"set_bytes({key!r}) takes bytes, not {type(data).__name__}; set() takes a str")
        self._write(full, self._encode(bytes(data)), monotonic() + self.timeout)

    def exists(self, key: str, *, component: str | None = None) -> bool:
        return self._exists(self._full(key, component), monotonic() + self.timeout)

    def delete(self, key: str, *, component: str | None = None) -> bool:
        return self._remove(self._full(key, component), monotonic() + self.timeout)

    def wait_for_key(self, key: str, timeout: float = 3600.0, *, component: str | None = None) -> bytes:
        full = self._full(key, component)
        selector = Selector(Pattern(full, len(full)), expected=1)
        return self._wait(selector, timeout, component, f"key {key!r} to exist").value_of(full)

    def wait_for_value(
        self, key: str, expected: str, timeout: float = 3600.0, *, component: str | None = None
    ) -> bytes:
        full = self._full(key, component)
        selector = Selector(Pattern(full, len(full)), expected=1, value=_utf8(expected, key))
        return self._wait(selector, timeout, component, f"key {key!r} to be {expected!r}").value_of(full)

    def wait_for_keys(
        self,
        key_pattern: str,
        expected_count: int,
        value: str = "1",
        timeout: float = 3600.0,
        candidate_keys: list[str] | None = None,
        *,
        component: str | None = None,
    ) -> list[str]:
        pattern = self._pattern(key_pattern, component)
        count = _count(expected_count)
        wanted_value = _utf8(value, key_pattern)
        candidates = self._fitting(candidate_keys, pattern, component)
        if "waits_by_pattern" not in self.spec.capabilities:
            if candidates is None:
                raise ValueError(
                    f"backend {self.spec.name!r} can't look for keys by pattern: give candidate_keys, for instance "
                    f"etha.kvstore.patterns.expand({key_pattern!r}, range(n))"
                )
            if len(candidates) < count:
                raise ValueError(
                    f"{count} keys are expected, but only {len(candidates)} of candidate_keys fit {key_pattern!r}: "
                    "this wait could never end"
                )
        selector = Selector(pattern, candidates, count, wanted_value)
        wanted = f"{count} keys matching {key_pattern!r} to be {value!r}"
        return self._wait(selector, timeout, component, wanted).matched_keys()

    def list_keys(self, pattern: str = "*", *, component: str | None = None) -> list[str]:
        compiled = self._pattern(pattern, component)
        if "list_keys" not in self.spec.capabilities:
            raise self._lacks("list_keys")
        found = self._list(compiled.literal_prefix, monotonic() + self.timeout)
        begin = len(self._prefix(component))
        return sorted(full[begin:].decode() for full in found if compiled.matches(full))

    def watch(self, pattern: str = "*", *, component: str | None = None) -> Watch:
        compiled = self._pattern(pattern, component)
        if "watch" not in self.spec.capabilities:
            raise self._lacks("watch")
        return _SkeletalWatch(self, Selector(compiled), pattern, component)

    def close(self, cleanup: bool = True) -> None:
        if self._refusal is not None:  # closed already, or a forked child's copy, which must touch nothing
            return
        with self._life:
            if self._refusal is not None:
                return
            self._refusal = StoreClosedError(f"this {type(self).__name__} is closed; open another one")
            followers = list(self._followers)
        for follower in followers:
            follower.close()
        self._release(cleanup, monotonic() + self.timeout)

    def __repr__(self) -> str:
        state = ", closed" if isinstance(self._refusal, StoreClosedError) else ""
        return (
            f"<{type(self).__name__} backend={self.spec.name!r} namespace={self.namespace!r} "
            f"component={self.component!r} at {self._where()}{state}>"
        )

    # --- how it is kept ---

    def _prefix(self, component: str | None) -> bytes:
        """Give the checked prefix of a component's keys."""
        try:
            return self._prefixes[component]
        except (KeyError, TypeError):  # not seen before, or nothing that a dict can hold
            assert component is not None  # the store's own prefix is made at its opening
            made = keys.prefix(self.namespace, component)
            return self._prefixes.setdefault(component, made)

    def _full(self, key: str, component: str | None, what: str = "key") -> bytes:
        """Refuse a call on a store that is gone, and make the full key."""
        if self._refusal is not None:
            raise self._refused()
        return keys.join(self._prefix(component), key, what)

    def _pattern(self, pattern: str, component: str | None) -> Pattern:
        """Compile a caller's pattern; a ``*`` in the namespace or the component means itself."""
        return Pattern(self._full(pattern, component, "pattern"), len(self._prefix(component)))

    def _refused(self) -> KVStoreError:
        """Make a fresh error of the kind that this store refuses all calls with."""
        assert self._refusal is not None
        return type(self._refusal)(*self._refusal.args)

    def _lacks(self, capability: str) -> UnsupportedOperationError:
        return UnsupportedOperationError(f"backend {self.spec.name!r} lacks the capability {capability!r}")

    def _refuse_size(self, key: bytes, size: int, limit: int) -> ValueTooLargeError:
        """Make the error for a value that the backend can't hold."""
        return ValueTooLargeError(
            f"the value for {keys.split(key)[2]!r} takes {size} bytes and backend {self.spec.name!r} holds at most "
            f"{limit}; nothing was sent",
            size=size,
            limit=limit,
        )

    def _fitting(
        self, candidate_keys: Iterable[str] | None, pattern: Pattern, component: str | None
    ) -> list[bytes] | None:
        """Turn candidates into full keys, without duplicates and without those that don't match."""
        if candidate_keys is None:
            return None
        if isinstance(candidate_keys, (str, bytes)):
            raise TypeError(f"candidate_keys is a list of str, not {type(candidate_keys).__name__}")
        full = (self._full(key, component, "candidate key") for key in candidate_keys)
        return list(dict.fromkeys(key for key in full if pattern.matches(key)))

    def _attach(self, selector: Selector) -> Follower:
        """Start following, so that `close` can end it."""
        follower = self._follow(selector)
        with self._life:
            refused = self._refusal is not None
            self._followers.add(follower)
        if refused:
            self._detach(follower)
            raise self._refused()
        return follower

    def _detach(self, follower: Follower) -> None:
        if isinstance(self._refusal, ForkedStoreError):
            return  # both the lock and the follower are the parent's
        with self._life:
            self._followers.discard(follower)
        follower.close()

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        """Follow a selection until enough of it holds the value."""
        started = monotonic()
        deadline = started + _seconds(timeout)
        begin = len(self._prefix(component))
        tally = Tally(selector, lambda full: full[begin:].decode(), wanted)
        report = started + FIRST_REPORT
        follower = self._attach(selector)
        try:
            while True:
                follower.enough = tally.enough
                follower.thorough = deadline <= report or log.isEnabledFor(logging.INFO)
                for batch in follower.next(min(deadline, report)):
                    if tally.apply(batch):
                        return tally
                now = monotonic()
                if now >= deadline:
                    raise tally.timed_out(started, now, follower.outage)
                if now >= report:
                    log.info("still waiting for %s", tally.progress(started, now, follower.outage))
                    report += report - started
        finally:
            self._detach(follower)


class _SkeletalWatch(Watch):
    """A `Watch` over a follower that sees every change."""

    def __init__(self, store: SkeletalStore, selector: Selector, pattern: str, component: str | None) -> None:
        self._store = store
        self._selector = selector
        self._pattern = pattern
        self._begin = len(store._prefix(component))
        self._follower: Follower | None = None
        self._left = False
        self._now: dict[bytes, bytes] = {}
        self._pending: Iterator[Change] = iter(())

    def __enter__(self) -> _SkeletalWatch:
        if self._follower is not None:
            raise RuntimeError("this watch was entered before; call watch() again")
        self._follower = self._store._attach(self._selector)
        try:
            batches = self._follower.next(0.0)  # looks once, under the operation timeout
            if not batches:
                assert self._follower.outage is not None  # why else would a first look find nothing
                raise self._follower.outage.cause
        except BaseException:
            self._store._detach(self._follower)
            raise
        first, *more = batches
        self._now = {key: value for key, value in first.changes if value is not None}
        self.state = {key[self._begin :].decode(): value for key, value in self._now.items()}
        self._pending = self._changes(more)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._left = True
        if self._follower is not None:
            self._store._detach(self._follower)

    def next(self, timeout: float = math.inf) -> Change:
        if self._follower is None:
            raise RuntimeError("a watch starts where its block does: with store.watch(...) as changes")
        deadline = monotonic() + _seconds(timeout)
        while True:
            if self._store._refusal is not None:
                raise self._store._refused()
            if self._left:
                raise StoreClosedError("the block of this watch was left")
            for change in self._pending:
                return change
            batches = self._follower.next(deadline)
            if not batches and monotonic() >= deadline:
                outage = self._follower.outage
                silent = f"; the store has not answered for {monotonic() - outage.since:.1f} s" if outage else ""
                raise WaitTimeoutError(
                    f"no change to a key matching {self._pattern!r} in {timeout} s{silent}", waited=timeout
                ) from outage and outage.cause
            self._pending = self._changes(batches)

    def __iter__(self) -> Iterator[Change]:
        while True:
            try:
                change = self.next()
            except StoreClosedError:
                return
            yield change

    def _changes(self, batches: Iterable[Batch]) -> Iterator[Change]:
        """Turn batches into changes; a batch that restarts the state, into the net difference."""
        for batch in batches:
            changes = list(batch.changes)
            if batch.restart:
                known = dict(changes)
                changes = [(key, value) for key, value in changes if self._now.get(key) != value]
                changes += [(key, None) for key in self._now if key not in known]
            for key, value in changes:
                if value is None:
                    self._now.pop(key, None)
                else:
                    self._now[key] = value
                yield Change(key[self._begin :].decode(), value)


def _seconds(timeout: float) -> float:
    """Check a timeout, in seconds."""
    if isinstance(timeout, (bool, str, bytes)) or not hasattr(timeout, "__float__"):
        raise TypeError(f"a timeout is a number of seconds, not {type(timeout).__name__}")
    try:
        seconds = float(timeout)
    except OverflowError:  # an int beyond all floats
        seconds = math.inf if timeout > 0 else -1.0
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"a timeout is a number of seconds that is not negative, not {timeout!r}")
    return seconds


def _count(expected_count: int) -> int:
    """Check an expected count."""
    if isinstance(expected_count, bool):
        raise TypeError("expected_count is an int, not bool")
    try:
        count = operator.index(expected_count)
    except TypeError:
        raise TypeError(f"expected_count is an int, not {type(expected_count).__name__}") from None
    if count < 0:
        raise ValueError(f"expected_count is not negative, but {count} was given")
    return count


def _utf8(value: str, key: str, advice: str = "") -> bytes:
    """Encode a text value."""
    if not isinstance(value, str):
        raise TypeError(f"the value for {key!r} is a str, not {type(value).__name__}{advice}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the value for {key!r} can't be said in UTF-8: {error.reason}{advice}") from None


_open_stores: weakref.WeakSet[SkeletalStore] = weakref.WeakSet()


def _disown_stores() -> None:
    """In a forked child, make every store of the parent refuse its calls and never be torn down.

    A connection belongs to the process that opened it: destroying the child's copy would join threads that do not exist
    there, or say goodbye on the parent's behalf. The extra reference keeps each copy alive until the child is gone.
    """
    stores = list(_open_stores)
    if not stores:
        return
    for store in stores:
        store._refusal = ForkedStoreError(
            f"this {type(store).__name__} was opened in another process, of which this one is a fork; open one here"
        )
    import ctypes

    for store in stores:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(store))
    _open_stores.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_stores)
