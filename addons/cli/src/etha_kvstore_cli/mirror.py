"""A copy of a component's keys, read once or kept up to date beside whatever else a command does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from etha.kvstore import Change, KVStore, Watch
from etha.kvstore.errors import (
    KVStoreError,
    OperationTimeoutError,
    StoreClosedError,
    UnsupportedOperationError,
    WaitTimeoutError,
)

__all__ = ["TICK", "Mirror", "View", "snapshot"]

PAUSE = 1.0
"""Seconds between two looks, on a backend that does not tell of changes."""

SHARE = 20
"""A pause is at least so many times as long as the look before it, so that looking never keeps a server busy."""

TICK = 0.25
"""Seconds after which one to whom nothing happens sees whether the store still answers."""


@dataclass(frozen=True)
class View:
    """What a mirror holds at one moment.

    Attributes
    ----------
    state : mapping
        Keys and values.
    changed : mapping
        When each key changed last, by the clock on the wall; only those that did since the mirror was begun.
    last : tuple of float and Change, optional
        The latest change, and when it was seen.
    silent : bool
        Whether the store does not answer at present.
    """

    state: Mapping[str, bytes] = field(default_factory=dict)
    changed: Mapping[str, float] = field(default_factory=dict)
    last: tuple[float, Change] | None = None
    silent: bool = False


def snapshot(store: KVStore, pattern: str, component: str | None = None) -> dict[str, bytes]:
    """Read all keys that match a pattern: at one moment where the backend has a watch, else one after another.

    Parameters
    ----------
    store : KVStore
        Where.
    pattern : str
        Which keys.
    component : str, optional
        Another component than the store's own.

    Returns
    -------
    dict of str to bytes
        Keys and values.
    """
    try:
        with store.watch(pattern, component=component) as watch:
            return dict(watch.state)
    except UnsupportedOperationError:
        return _read(store, store.list_keys(pattern, component=component), component)


def _read(store: KVStore, keys: Iterable[str], component: str | None) -> dict[str, bytes]:
    values = ((key, store.get(key, component=component)) for key in keys)
    return {key: value for key, value in values if value is not None}


class Mirror(threading.Thread):
    """Keeps a copy of the keys that match a pattern, until the store is closed.

    Parameters
    ----------
    store : KVStore
        Where. Closing it ends the mirror.
    pattern : str
        Which keys.
    component : str, optional
        Another component than the store's own.
    candidates : sequence of str, optional
        The keys that may match, for a backend that can't list its keys.
    on_look : callable, optional
        Called in the mirror's thread after each change, and a few times a second.

    Attributes
    ----------
    moved : threading.Event
        Set when there is something new to see.
    error : KVStoreError or None
        What ended the mirror.
    """

    def __init__(
        self,
        store: KVStore,
        pattern: str,
        component: str | None = None,
        candidates: Sequence[str] | None = None,
        on_look: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(name=f"mirror of {pattern}")
        self.moved = threading.Event()
        self.error: KVStoreError | None = None
        self._store = store
        self._pattern = pattern
        self._component = component
        self._candidates = candidates
        self._on_look = on_look
        self._lock = threading.Lock()
        self._pause = threading.Event()
        self._state: dict[str, bytes] = {}
        self._changed: dict[str, float] = {}
        self._last: tuple[float, Change] | None = None
        self._silent = False

    def view(self) -> View:
        """Give a copy of what is there now."""
        with self._lock:
            return View(dict(self._state), dict(self._changed), self._last, self._silent)

    def stop(self) -> None:
        """Ask it to end soon; closing the store ends it at once."""
        self._pause.set()

    def run(self) -> None:
        """Follow, in this thread."""
        try:
            try:
                watch = self._store.watch(self._pattern, component=self._component)
            except UnsupportedOperationError:
                self._poll()
            else:
                self._follow(watch)
        except StoreClosedError:
            pass  # the way in which a mirror ends
        except KVStoreError as error:
            self.error = error
        finally:
            self.moved.set()

    def _follow(self, watch: Watch) -> None:
        with watch:
            with self._lock:
                self._state.update(watch.state)
            self._looked(silent=False)
            while not self._pause.is_set():
                try:
                    change = watch.next(TICK)
                except WaitTimeoutError as nothing:  # its cause is what keeps the store from answering
                    self._looked(silent=nothing.__cause__ is not None)
                else:
                    self._take([change])
                    self._looked(silent=False)

    def _poll(self) -> None:
        first, pause = True, 0.0
        while not self._pause.wait(pause):
            began = time.monotonic()
            try:
                now = self._read_all()
            except OperationTimeoutError:
                self._looked(silent=True)
            else:
                if first:
                    with self._lock:
                        self._state.update(now)
                    first = False
                else:
                    self._take(self._difference(now))
                self._looked(silent=False)
            pause = max(PAUSE, SHARE * (time.monotonic() - began))

    def _read_all(self) -> dict[str, bytes]:
        keys = self._candidates
        if keys is None:
            keys = self._store.list_keys(self._pattern, component=self._component)
        return _read(self._store, keys, self._component)

    def _difference(self, now: Mapping[str, bytes]) -> list[Change]:
        changes = [Change(key, value) for key, value in now.items() if self._state.get(key) != value]
        return changes + [Change(key, None) for key in self._state if key not in now]

    def _take(self, changes: Iterable[Change]) -> None:
        at = time.time()
        with self._lock:
            for change in changes:
                if change.value is None:
                    self._state.pop(change.key, None)
                    self._changed.pop(change.key, None)
                else:
                    self._state[change.key] = change.value
                    self._changed[change.key] = at
                self._last = (at, change)

    def _looked(self, *, silent: bool) -> None:
        self._silent = silent
        self.moved.set()
        if self._on_look is not None:
            self._on_look()
