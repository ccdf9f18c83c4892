"""Clients that are broken on purpose, in ways in which such clients have been: fault schedules must catch each."""

from __future__ import annotations

from etha.kvstore import KVStore
from etha.kvstore.errors import StoreUnavailableError

__all__ = ["BROKEN"]


class Broken:
    """A store, but for what a subclass breaks.

    Parameters
    ----------
    store : KVStore
        One that works.
    """

    def __init__(self, store: KVStore) -> None:
        self.store = store
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def every(self, number: int) -> bool:
        """Whether this call is one of so many that go wrong."""
        self.calls += 1
        return self.calls % number == 0


class CachedReads(Broken):
    """Answers some reads with what it read before, as one does that asks a member which lags behind."""

    def __init__(self, store: KVStore) -> None:
        super().__init__(store)
        self.seen: dict[str, bytes | None] = {}

    def get(self, key: str) -> bytes | None:
        if key not in self.seen or not self.every(5):
            self.seen[key] = self.store.get(key)
        return self.seen[key]


class WritesTwice(Broken):
    """Sends each write once more before the next, as one does that repeats what it can't be sure of."""

    def __init__(self, store: KVStore) -> None:
        super().__init__(store)
        self.again: list[tuple[str, str]] = []

    def set(self, key: str, value: str) -> None:
        while self.again:
            self.store.set(*self.again.pop())
        self.store.set(key, value)
        self.again.append((key, value))


class LostWrites(Broken):
    """Acknowledges some writes before they are made, and never makes them."""

    def set(self, key: str, value: str) -> None:
        if not self.every(5):
            self.store.set(key, value)


class ClaimsDeletions(Broken):
    """Takes the absence of a key for proof that it was deleted by this call."""

    def delete(self, key: str) -> bool:
        return self.store.delete(key) or not self.store.exists(key)


class EmptyIsAbsent(Broken):
    """Takes an empty value for none."""

    def exists(self, key: str) -> bool:
        return bool(self.store.get(key))


class DeniesWrites(Broken):
    """Says of some writes that nothing was done, although they were made."""

    def set(self, key: str, value: str) -> None:
        self.store.set(key, value)
        if self.every(5):
            raise StoreUnavailableError("the connection was lost")


BROKEN = (CachedReads, WritesTwice, LostWrites, ClaimsDeletions, EmptyIsAbsent, DeniesWrites)
