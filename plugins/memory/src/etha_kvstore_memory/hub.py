"""`MemoryHub`: the keys that stores of one process share, and who is told when one changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from etha.kvstore.follow import Batch, PushFollower, Selector

__all__ = ["MemoryHub", "join_default_hub", "leave_default_hub"]


class MemoryHub:
    """A place where the memory stores of one process meet.

    Its keys last as long as it does, and it belongs to the process that made it: a forked child makes its own. Pass one
    as ``hub=`` to keep a test's keys from another's.

    Examples
    --------
    >>> hub = MemoryHub()
    >>> with open_store("memory", namespace="n", component="c", hub=hub) as one:
    ...     one.set("ready", "1")
    ...     with open_store("memory", namespace="n", component="c", hub=hub) as other:
    ...         other.get("ready")
    b'1'
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may close a store while its thread holds this
        self._values: dict[bytes, bytes] = {}
        self._keys: dict[bytes, dict[bytes, None]] = {}
        """The keys of each component, so that a wait looks at no other component's."""
        self._by_key: dict[bytes, set[HubFollower]] = {}
        self._by_pattern: set[HubFollower] = set()

    def read(self, key: bytes) -> bytes | None:
        """Give the value of a key, or `None`."""
        return self._values.get(key)  # one look into a dict is atomic

    def write(self, key: bytes, value: bytes) -> None:
        """Set a key, and tell those who follow it."""
        with self._lock:
            if key not in self._values:
                self._keys.setdefault(_component(key), {})[key] = None
            self._values[key] = value
            self._tell(key, value)

    def remove(self, key: bytes) -> bool:
        """Delete a key, tell those who follow it, and say whether it was there."""
        with self._lock:
            if self._values.pop(key, None) is None:
                return False
            component = _component(key)
            del self._keys[component][key]
            if not self._keys[component]:
                del self._keys[component]
            self._tell(key, None)
            return True

    def snapshot(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Give all keys that begin with a prefix, and their values, at one instant."""
        with self._lock:
            return [(key, self._values[key]) for key in self._beside(prefix) if key.startswith(prefix)]

    def follow(self, selector: Selector) -> HubFollower:
        """Start a follower with the state now; the lock leaves no instant between that and the first change."""
        follower = HubFollower(self, selector)
        pattern = selector.pattern
        with self._lock:
            if pattern.is_literal:
                key = pattern.literal_prefix
                value = self._values.get(key)
                state = [] if value is None else [(key, value)]
                self._by_key.setdefault(key, set()).add(follower)
            else:
                beside = self._beside(pattern.literal_prefix)
                state = [(key, self._values[key]) for key in beside if pattern.matches(key)]
                self._by_pattern.add(follower)
            follower.push(Batch(state, restart=True))
        return follower

    def forget(self, follower: HubFollower) -> None:
        """Tell a follower nothing more."""
        key = follower.pattern.literal_prefix
        with self._lock:
            self._by_pattern.discard(follower)
            if (followers := self._by_key.get(key)) is not None:
                followers.discard(follower)
                if not followers:
                    del self._by_key[key]

    def _beside(self, prefix: bytes) -> Iterable[bytes]:
        """Give the keys of the component that a prefix is in; all keys, where it does not name one."""
        return self._values if prefix.count(b"/") < 2 else self._keys.get(_component(prefix), ())

    def _tell(self, key: bytes, value: bytes | None) -> None:
        """Tell the followers whose selection a key touches, and no others."""
        if not self._by_pattern and key not in self._by_key:
            return
        batch = Batch(((key, value),))
        for follower in tuple(self._by_key.get(key, ())):
            follower.push(batch)
        for follower in tuple(self._by_pattern):
            if follower.pattern.matches(key):
                follower.push(batch)


def _component(full: bytes) -> bytes:
    """Give the part of a full key, or of the beginning of one, that names the namespace and the component."""
    return b"/".join(full.split(b"/", 2)[:2])


class HubFollower(PushFollower):
    """A follower that a `MemoryHub` feeds."""

    def __init__(self, hub: MemoryHub, selector: Selector) -> None:
        super().__init__()
        self._hub = hub
        self.pattern = selector.pattern

    def close(self) -> None:
        self._hub.forget(self)
        super().close()


class _Default:
    """The process-wide hub, and how many open stores hold it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.hub = MemoryHub()
        self.stores = 0


_default = _Default()


def join_default_hub() -> MemoryHub:
    """Enter the process-wide hub."""
    with _default.lock:
        _default.stores += 1
        return _default.hub


def leave_default_hub() -> None:
    """Leave it; with its last open store the hub and its keys end."""
    with _default.lock:
        _default.stores -= 1
        if _default.stores == 0:
            _default.hub = MemoryHub()


def _start_afresh() -> None:
    """Give a forked child a hub of its own; the parent's may have been locked at the moment of the fork."""
    global _default
    _default = _Default()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
