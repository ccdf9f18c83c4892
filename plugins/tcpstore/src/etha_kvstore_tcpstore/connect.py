"""Connect to a torch store, or host one that listens on the given address and nowhere else."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from time import monotonic
from typing import cast

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types

from etha_kvstore_tcpstore.address import Address

__all__ = ["connect", "find_server", "serve"]

RETRY = 0.05
"""Seconds between two attempts to connect."""

LONGEST = 86_400.0
"""Seconds that one attempt may take, however far the deadline is."""


def connect(address: Address, deadline: float) -> TCPStore:
    """Connect as a client, as soon as there is a server.

    torch's own waiting for a server prints stack traces and overruns its limit, so torch is called when there is
    somebody to talk to.

    Parameters
    ----------
    address : Address
        Where the server is.
    deadline : float
        When to give up, on the monotonic clock, in seconds.

    Returns
    -------
    torch.distributed.TCPStore
        The client.

    Raises
    ------
    OSError
        If nobody listens there.
    RuntimeError
        If somebody does, but does not serve a torch store.
    """
    while True:
        try:
            socket.create_connection(address, timeout=_remaining(deadline)).close()
            break
        except OSError:  # a name that does not resolve yet included
            if monotonic() + RETRY >= deadline:
                raise
            time.sleep(RETRY)
    limit = timedelta(seconds=_remaining(deadline))
    return TCPStore(*address, is_master=False, wait_for_workers=False, timeout=limit)


def serve(address: Address, deadline: float) -> TCPStore:
    """Host a server that listens on exactly one address, and connect to it.

    Told a host, torch's server would listen on every interface all the same; given a socket, it takes that one.

    Parameters
    ----------
    address : Address
        Where to listen; a port of 0 finds a free one.
    deadline : float
        By when to have connected, on the monotonic clock, in seconds.

    Returns
    -------
    torch.distributed.TCPStore
        The server, and a client of it.

    Raises
    ------
    OSError
        If the port is taken or the host is not this machine.
    RuntimeError
        If torch can't serve.
    """
    listener = _listen(address)
    host, port = listener.getsockname()[:2]
    return TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=_remaining(deadline)),
        master_listen_fd=listener.detach(),  # it belongs to the server from here on
    )


def find_server(store: object) -> TCPStore | None:
    """Find the TCPStore that a torch store speaks to, through any number of prefixes."""
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    return store if isinstance(store, TCPStore) else None


def _remaining(deadline: float) -> float:
    """Give the seconds until a deadline, within what sockets and torch take."""
    return min(max(RETRY, deadline - monotonic()), LONGEST)


def _listen(address: Address) -> socket.socket:
    """Listen on an address; a host name means its first one, as it does to those who connect."""
    family, _, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    return socket.create_server(cast("tuple[str, int]", where[:2]), family=family)
