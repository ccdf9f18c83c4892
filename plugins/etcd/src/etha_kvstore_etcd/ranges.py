"""Ranges of keys: where one ends, how it is read at one revision, and which of its keys are this project's."""

from __future__ import annotations

from typing import Any

from etha.kvstore.keys import MAX_KEY_BYTES
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.connection import Cancellation, Connection
from etha_kvstore_etcd.failures import CompactedError

__all__ = ["is_key", "list_range", "prefix_end"]

PAGE = 1000
"""How many keys one request for a listing asks for."""


def prefix_end(prefix: bytes) -> bytes:
    r"""Give the end of the range of all keys that begin with a prefix.

    Parameters
    ----------
    prefix : bytes
        The prefix.

    Returns
    -------
    bytes
        The first key after all of them; a NUL byte, etcd's word for no end, where there is none.

    Examples
    --------
    >>> prefix_end(b"job/"), prefix_end(b"a\xff"), prefix_end(b"\xff")
    (b'job0', b'b', b'\x00')
    """
    carried = prefix.rstrip(b"\xff")
    return carried[:-1] + bytes([carried[-1] + 1]) if carried else b"\0"


def list_range(
    connection: Connection,
    prefix: bytes,
    deadline: float,
    cancellation: Cancellation | None = None,
    *,
    keys_only: bool = False,
) -> tuple[list[Any], Any]:
    """Read all keys that begin with a prefix, as they were at one revision.

    Parameters
    ----------
    connection : Connection
        The cluster.
    prefix : bytes
        The prefix.
    deadline : float
        On the monotonic clock, in seconds.
    cancellation : Cancellation, optional
        As `Connection.call`.
    keys_only : bool
        Whether the values are left out.

    Returns
    -------
    kvs : list of KeyValue
        The keys, in order.
    header : ResponseHeader
        The header of the first page, whose revision all pages share.
    """
    while True:
        request = pb.RangeRequest(key=prefix, range_end=prefix_end(prefix), limit=PAGE, keys_only=keys_only)
        reply = connection.call("range", request, deadline, cancellation=cancellation)
        header, kvs = reply.header, list(reply.kvs)
        try:
            while reply.more:
                request.key = kvs[-1].key + b"\0"
                request.revision = header.revision
                reply = connection.call("range", request, deadline, cancellation=cancellation)
                kvs += reply.kvs
        except CompactedError:
            continue  # the revision was compacted away between two pages
        return kvs, header


def is_key(full: bytes) -> bool:
    """Tell whether a key in a component's range is one that this project can name.

    Others may write anything into an etcd: what is not UTF-8, holds a NUL, or is nothing but a prefix, is left aside.

    Parameters
    ----------
    full : bytes
        A full key.

    Returns
    -------
    bool
        Whether it is.

    Examples
    --------
    >>> is_key(b"job/trainer/ready"), is_key(b"job/trainer/")
    (True, False)
    """
    try:
        full.decode()
    except UnicodeDecodeError:
        return False
    return len(full) <= MAX_KEY_BYTES and 0 not in full and not (full.endswith(b"/") and full.count(b"/") == 2)
