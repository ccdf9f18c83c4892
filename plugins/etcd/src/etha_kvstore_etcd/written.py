"""What a store wrote and nobody has overwritten, as far as it knows; and the deletion of that at the close."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.connection import Connection

__all__ = ["Write", "Written", "delete_unchanged"]

CLEANUP_BATCH = 60
"""Keys a transaction of `delete_unchanged`; etcd takes 128 comparisons, and each key may need two."""

REMEMBERED = 1024
"""The largest value, in bytes, that is kept for the clean-up to compare."""


class Write(NamedTuple):
    """The last write of a key.

    Attributes
    ----------
    revision : int
        Its revision.
    value : bytes or None
        What was written; `None` where it was too large to keep.
    lease : int
        The id of the lease that it is tied to, or zero.
    """

    revision: int
    value: bytes | None
    lease: int = 0


class Written:
    """The keys that a store wrote, each with its last write. For many threads.

    Parameters
    ----------
    whole : bool
        Whether values of any size are kept.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._writes: dict[bytes, Write] = {}
        self._lock = threading.Lock()

    def record(self, key: bytes, revision: int, value: bytes, lease: int = 0) -> None:
        """Note a write, unless a later one of that key is known."""
        write = Write(revision, value if self._whole or len(value) <= REMEMBERED else None, lease)
        with self._lock:
            known = self._writes.get(key)
            if known is None or known.revision <= revision:
                self._writes[key] = write

    def forget(self, key: bytes, revision: float) -> None:
        """Note that the key is no longer this store's, if it was last written before that revision."""
        with self._lock:
            if key in self._writes and self._writes[key].revision < revision:
                del self._writes[key]

    def get(self, key: bytes) -> Write | None:
        """Give a key's last write."""
        return self._writes.get(key)

    def items(self) -> list[tuple[bytes, Write]]:
        """List all keys with their last writes."""
        with self._lock:
            return list(self._writes.items())


def delete_unchanged(connection: Connection, written: Sequence[tuple[bytes, Write]], deadline: float) -> None:
    """Delete keys, each only if its last write is still the one that is given.

    Parameters
    ----------
    connection : Connection
        The cluster.
    written : sequence of pairs
        The keys and their writes.
    deadline : float
        On the monotonic clock, in seconds.

    Raises
    ------
    KVStoreError
        If the cluster did not answer, or refused.
    """
    for start in range(0, len(written), CLEANUP_BATCH):
        batch = written[start : start + CLEANUP_BATCH]
        if not _delete_all_or_none(connection, batch, deadline):  # one of them was overwritten: find out which
            for item in batch:
                _delete_all_or_none(connection, [item], deadline)


def _delete_all_or_none(connection: Connection, written: Sequence[tuple[bytes, Write]], deadline: float) -> bool:
    """Delete keys at once, if each still has its revision and its value.

    A revision never returns, so this may be repeated; but a cluster whose data were wiped counts from the beginning
    again, and there the value may tell a stranger's write.
    """
    compare = []
    for key, (revision, value, _) in written:
        compare.append(pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision))
        if value is not None:
            compare.append(pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.VALUE, key=key, value=value))
    delete = [pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key)) for key, _ in written]
    request = pb.TxnRequest(compare=compare, success=delete)
    return bool(connection.call("txn", request, deadline).succeeded)
