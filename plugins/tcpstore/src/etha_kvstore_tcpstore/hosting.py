"""Host a TCPStore that listens on the given address and nowhere else."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import cast

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types

from etha_kvstore_tcpstore.address import Address
from etha_kvstore_tcpstore.link import remaining

__all__ = ["serve"]


def serve(address: Address, deadline: float) -> TCPStore:
    """Host a server that listens on exactly one address.

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
        The server, with a client of it, which torch can't do without.

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
        timeout=timedelta(seconds=remaining(deadline)),
        master_listen_fd=listener.detach(),  # it belongs to the server from here on
    )


def _listen(address: Address) -> socket.socket:
    """Listen on an address; a host name means its first one, as it does to those who connect."""
    family, _, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    return socket.create_server(cast("tuple[str, int]", where[:2]), family=family)
