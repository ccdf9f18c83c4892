"""Small stores over a dict, and what is called on them, for the tests of the skeleton."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from etha.kvstore.follow import Batch, Follower, Outage, Selector
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.skeleton import SkeletalStore

InBackground = Callable[..., "Future[Any]"]


class DictStore(SkeletalStore):
    """The smallest backend: three methods over a dict. It notes what reaches it."""

    spec = BackendSpec("dict", "small_stores:DictStore", "a dict", contract=1)

    def __init__(self, namespace: str = "job-42", component: str = "trainer", *, timeout: float = 10.0) -> None:
        super().__init__(namespace, component, timeout=timeout)
        self.kept: dict[bytes, bytes] = {}
        self.deadlines: list[float] = []
        self.released: list[bool] = []

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        self.deadlines.append(deadline)
        return self.kept.get(key)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        self.deadlines.append(deadline)
        self.kept[key] = value

    def _remove(self, key: bytes, deadline: float) -> bool:
        self.deadlines.append(deadline)
        return self.kept.pop(key, None) is not None

    def _release(self, cleanup: bool, deadline: float) -> None:
        self.deadlines.append(deadline)
        self.released.append(cleanup)


class ListingStore(DictStore):
    """One that can look by pattern, and stores what `set_bytes` is given as hexadecimal text."""

    spec = BackendSpec(
        "listing",
        "small_stores:ListingStore",
        "a dict that lists",
        contract=1,
        capabilities=frozenset({"list_keys", "waits_by_pattern"}),
    )

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        self.deadlines.append(deadline)
        return [(key, value) for key, value in self.kept.items() if key.startswith(prefix)]

    def _encode(self, data: bytes) -> bytes:
        return data.hex().encode()

    def _decode(self, key: str, stored: bytes) -> bytes:
        return bytes.fromhex(stored.decode())


class FedStore(ListingStore):
    """One whose followers are the test's to feed."""

    spec = BackendSpec(
        "fed",
        "small_stores:FedStore",
        "followers fed by hand",
        contract=1,
        capabilities=frozenset({"list_keys", "watch", "waits_by_pattern"}),
    )

    def __init__(self, follower: Follower) -> None:
        super().__init__()
        self.follower = follower

    def _follow(self, selector: Selector) -> Follower:
        return self.follower


class SilentFollower(Follower):
    """A follower that says once what is there, and then lets a clock of its own run on."""

    def __init__(self, first: Sequence[Batch] = (), outage: Outage | None = None) -> None:
        self.first = first
        self.outage = outage
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def next(self, deadline: float) -> Sequence[Batch]:
        first, self.first = self.first, ()
        if not first:
            self.now = max(deadline, self.now)
        return first

    def close(self) -> None: ...


CALLS: dict[str, Callable[[DictStore, Any], object]] = {
    "get": lambda store, key: store.get(key),
    "set": lambda store, key: store.set(key, "1"),
    "get_bytes": lambda store, key: store.get_bytes(key),
    "set_bytes": lambda store, key: store.set_bytes(key, b"1"),
    "exists": lambda store, key: store.exists(key),
    "delete": lambda store, key: store.delete(key),
    "wait_for_key": lambda store, key: store.wait_for_key(key, timeout=0),
    "wait_for_value": lambda store, key: store.wait_for_value(key, "1", timeout=0),
    "wait_for_keys": lambda store, key: store.wait_for_keys(key, 0, timeout=0, candidate_keys=[]),
    "candidate_keys": lambda store, key: store.wait_for_keys("*", 0, timeout=0, candidate_keys=[key]),
    "list_keys": lambda store, key: store.list_keys(key),
    "watch": lambda store, key: store.watch(key),
}
"""Every method that takes a key or a pattern."""

WAITS: dict[str, Callable[[DictStore, Any], object]] = {
    "wait_for_key": lambda store, timeout: store.wait_for_key("k", timeout),
    "wait_for_value": lambda store, timeout: store.wait_for_value("k", "1", timeout),
    "wait_for_keys": lambda store, timeout: store.wait_for_keys("k*", 1, "1", timeout, ["k"]),
}

PREFIX = b"job-42/trainer/"


def batch(restart: bool = False, **changes: bytes | None) -> Batch:
    return Batch([(PREFIX + key.encode(), value) for key, value in changes.items()], restart=restart)
