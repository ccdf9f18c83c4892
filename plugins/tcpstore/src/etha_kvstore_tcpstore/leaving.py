"""Who is connected to a server: stores count themselves in and out there, so that the one that hosts it can leave last.

The count is kept on the TCPStore itself, under any prefixes, because its host looks there. A client that crashed stays
counted; the host has a limit to its patience.
"""

from __future__ import annotations

import time
from time import monotonic
from typing import Any

from etha.kvstore.follow import PollingFollower
from etha_kvstore_tcpstore.link import Link

__all__ = ["enter", "find_server", "leave", "leave_last"]

COUNT_KEY = "etha-kvstore:open-stores"
"""Where the count is kept. It has no ``/``, so it is nobody's full key."""


def enter(store: object) -> None:
    """Count a store in, in one round trip; a torch store without a server counts nobody."""
    _count(store, 1)


def leave(store: object) -> int:
    """Count a store out, and return 0: nobody depends on it."""
    _count(store, -1)
    return 0


def leave_last(store: object, deadline: float) -> int:
    """Wait until all who were counted in have counted themselves out.

    Parameters
    ----------
    store : torch.distributed.Store
        The torch store that hosts the server; it is not counted itself.
    deadline : float
        How long to wait, on the monotonic clock, in seconds.

    Returns
    -------
    int
        How many had not left by then.
    """
    started = monotonic()
    while (still_here := _count(store, 0)) > 0 and (now := monotonic()) < deadline:
        pause = max(PollingFollower.SHORTEST_PAUSE, PollingFollower.SHARE * (now - started))
        time.sleep(min(pause, PollingFollower.LONGEST_PAUSE, deadline - now))
    return still_here


def find_server(store: object) -> Any:
    """Find what speaks to a TCPStore: a link, or the `TCPStore` under any number of prefixes; or `None`."""
    if isinstance(store, Link):
        return store
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # a link does without torch

    while isinstance(store, PrefixStore):
        store = store.underlying_store
    return store if isinstance(store, TCPStore) else None


def _count(store: object, change: int) -> int:
    """Change the count, atomically, and return it."""
    server = find_server(store)
    return 0 if server is None else int(server.add(COUNT_KEY, change))
