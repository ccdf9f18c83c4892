"""`CandidatesFollower`: the core's polling, with fewer requests where a torch store can answer more in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from etha.kvstore.follow import PollingFollower, Selector

if TYPE_CHECKING:
    from etha_kvstore_tcpstore.store import TCPKVStore

__all__ = ["CandidatesFollower"]


class CandidatesFollower(PollingFollower):
    """A follower that first asks whether all candidates exist, where all of them are expected.

    As long as one is absent the wait can't end, so one request is a look, and the rest is read when that says yes. What
    is there meanwhile is read only when somebody is to be told: when the wait reports, and when its time is over.

    Parameters
    ----------
    store : TCPKVStore
        The store to look through.
    selector : Selector
        What to look at.
    """

    _store: TCPKVStore

    def __init__(self, store: TCPKVStore, selector: Selector) -> None:
        super().__init__(store, selector)
        candidates = selector.candidates or ()
        self._needs_all = len(candidates) > 1 and len(candidates) == selector.expected

    def _look(self, deadline: float, *, thorough: bool) -> list[tuple[bytes, bytes | None]]:
        if self._needs_all and not thorough:
            unsettled = [key for key in self._selector.candidates or () if self._seen.get(key) != self._selector.value]
            if not self._store._all_exist(unsettled, deadline):
                return []
        return super()._look(deadline, thorough=thorough)

    def _read_all(self, keys: Iterable[bytes], deadline: float) -> dict[bytes, bytes]:
        return self._store._read_many(list(keys), deadline)
