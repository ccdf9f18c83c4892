"""Leases: the keys of a store that go with its process.

Every key is tied to a lease that a thread renews at a third of its time. When the process is killed, etcd deletes the
keys as the time runs out. When the process lives and a lease was lost all the same (it stood still, or was cut off),
the keys that were still this store's are written again under a new lease. `Connection.call` asks `Leases.assure` first,
so nothing is said on behalf of a store whose keys may be gone.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter
from time import monotonic
from typing import Any

from etha.kvstore.errors import KVStoreError, OperationTimeoutError, StoreClosedError
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.connection import Cancellation, Connection
from etha_kvstore_etcd.failures import CompactedError, LeaseLostError
from etha_kvstore_etcd.written import Write, Written

__all__ = ["LONGEST_TTL", "Leases"]

log = logging.getLogger("etha.kvstore")

LONGEST_TTL = 9_000_000_000
"""Seconds: the longest time that etcd grants (``MaxLeaseTTL`` in its ``lessor.go``)."""

KEYS_A_LEASE = 1000
"""Keys that one lease holds at the most: etcd deletes them in one transaction when it ends."""

RENEWALS = 3
"""How often a lease is renewed in its time."""

ATTEMPT_SHARE = 1 / 3
"""Which part of the remaining time one attempt to renew may take, so that another member can be asked after it."""


def _now() -> float:
    """Read the clock that a lease runs on: where there is one, a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else monotonic()


class Lease:
    """One lease, as this process knows it.

    Parameters
    ----------
    asked : float
        When it was asked for.
    granted : message
        The answer.
    """

    def __init__(self, asked: float, granted: Any) -> None:
        self.id: int = granted.ID
        self.keys: set[bytes] = set()
        self.lost = False
        self.alive_at = 0
        """A revision at which the lease was alive for certain."""
        self.renewed(asked, granted)

    def renewed(self, asked: float, answer: Any) -> None:
        """Note an answer. The time runs from when it was asked for, so that the server's never ends earlier."""
        self.lapses = asked + answer.TTL
        self.renew_at = asked + answer.TTL / RENEWALS
        self.alive_at = max(self.alive_at, answer.header.revision)


class Leases:
    """The leases of one store.

    Parameters
    ----------
    connection : Connection
        The cluster.
    ttl : int
        How long a lease lives without a renewal, in seconds.
    written : Written
        What the store wrote, with its values.
    """

    def __init__(self, connection: Connection, ttl: int, written: Written) -> None:
        self._connection = connection
        self._ttl = ttl
        self._written = written
        self._state = threading.Condition()
        self._leases: list[Lease] = []
        self._lapse = math.inf
        """When the first lease runs out; in the past where one is lost."""
        self._busy = False
        self._changes = 0
        self._losses = 0
        self._keeper: threading.Thread | None = None
        self._cancellation = Cancellation()
        self._stopped = self._cancellation.cancelled

    def claim(self, key: bytes, deadline: float) -> int:
        """Give the id of the lease to write a key under: the one that it is on, one with room, or a new one.

        As `assure`, it comes before every write.
        """
        self.assure(deadline)
        lease = self._with_room(key)
        while lease is None:
            with self._alone(deadline):
                lease = self._with_room(key)
                if lease is None:  # nobody was faster
                    self._refuse_if_stopped()
                    self._grant(deadline)
        return lease.id

    def release(self, key: bytes) -> None:
        """Note that a key is gone, and leaves room for another."""
        with self._state:
            for lease in self._leases:
                lease.keys.discard(key)

    def lose(self, lease_id: int) -> None:
        """Note that the servers do not know a lease any more."""
        with self._state:
            for lease in self._leases:
                if lease.id == lease_id and not lease.lost:
                    lease.lost = True
                    self._losses += 1
            self._look_ahead()

    def assure(self, deadline: float) -> int:
        """See to it that the keys are there, where a lease may have run out, before anything is asked or told.

        Parameters
        ----------
        deadline : float
            On the monotonic clock, in seconds.

        Returns
        -------
        int
            How many leases have been lost so far. What was read since it was less may be wrong.

        Raises
        ------
        KVStoreError
            If it could not be found out, or keys were lost and could not be written again.
        """
        if _now() >= self._lapse:
            for lease in list(self._leases):
                if lease.lost or _now() >= lease.lapses:
                    self._renew(lease, deadline)
        return self._losses

    @contextmanager
    def changing(self, deadline: float) -> Iterator[None]:
        """Keep lost keys from being written again while one of them is set or deleted, until that is noted."""
        with self._state:
            self._await(lambda: not self._busy, deadline)
            self._changes += 1
        try:
            yield
        finally:
            with self._state:
                self._changes -= 1
                self._state.notify_all()

    def stop(self) -> None:
        """Renew no more."""
        self._cancellation.cancel()

    def revoke(self, deadline: float) -> None:
        """End every lease, and with it the keys that are on it: those that this store wrote last."""
        for lease in list(self._leases):
            with suppress(LeaseLostError):  # it has ended already
                request = pb.LeaseRevokeRequest(ID=lease.id)
                self._connection.call("lease_revoke", request, deadline, assured=False)

    def _with_room(self, key: bytes) -> Lease | None:
        """Find the living lease that a key is on, or one that has room, and put the key on it."""
        with self._state:
            living = [lease for lease in self._leases if not lease.lost]
            fitting = [lease for lease in living if key in lease.keys] or [
                lease for lease in living if len(lease.keys) < KEYS_A_LEASE
            ]
            for lease in fitting[:1]:
                lease.keys.add(key)
                return lease
        return None

    def _grant(self, deadline: float) -> None:
        asked = _now()
        lease = Lease(asked, self._call("lease_grant", pb.LeaseGrantRequest(TTL=self._ttl), deadline))
        with self._state:
            if self._keeper is None:
                keeper = threading.Thread(target=self._keep, name="etcd leases", daemon=True)
                keeper.start()
                self._keeper = keeper
            self._leases.append(lease)
            self._look_ahead()

    def _renew(self, lease: Lease, deadline: float) -> None:
        """Renew a lease; if it is lost, write its keys again."""
        if not lease.lost:
            asked = _now()
            answer = self._call("lease_keep_alive", pb.LeaseKeepAliveRequest(ID=lease.id), deadline, ATTEMPT_SHARE)
            if answer.TTL > 0:
                with self._state:
                    lease.renewed(asked, answer)
                    self._look_ahead()
                return
            self.lose(lease.id)
        with self._alone(deadline):
            if lease not in self._leases:
                return  # somebody was faster
            try:
                with self._state:
                    self._await(lambda: self._changes == 0, deadline)
                gone = [(key, write) for key, write in self._written.items() if write.lease == lease.id]
                count = sum(self._write_again(key, write, lease, deadline) for key, write in gone)
            except StoreClosedError:
                raise
            except KVStoreError as error:
                raise type(error)(
                    f"a lease of {self._ttl} s ran out, because this process stood still or was cut off, and the "
                    f"keys that went with it could not all be written again: {error}"
                ) from error
            with self._state:
                self._leases.remove(lease)
                self._look_ahead()
        log.warning("a lease of %d s ran out; %d keys that went with it were written again", self._ttl, count)

    def _write_again(self, key: bytes, write: Write, lost: Lease, deadline: float) -> bool:
        """Write a key of a lost lease again, unless somebody has deleted or overwritten it."""
        if not self._was_kept(key, write, lost, deadline):
            self._written.forget(key, write.revision + 1)
            return False
        assert write.value is not None
        absent = pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=0)
        look = pb.RequestOp(request_range=pb.RangeRequest(key=key))
        while True:
            lease = self._with_room(key)
            self._refuse_if_stopped()
            if lease is None:
                self._grant(deadline)
                continue
            put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=write.value, lease=lease.id))
            try:
                reply = self._call("txn", pb.TxnRequest(compare=[absent], success=[put], failure=[look]), deadline)
            except LeaseLostError:
                self.lose(lease.id)
                continue
            if reply.succeeded:
                self._written.record(key, reply.header.revision, write.value, lease.id)
                return True
            (found,) = reply.responses[0].response_range.kvs
            if found.lease == lease.id:  # an attempt whose reply was lost, or another thread of this store
                self._written.record(key, found.mod_revision, found.value, lease.id)
                return True
            self._written.forget(key, found.mod_revision)
            return False

    def _was_kept(self, key: bytes, write: Write, lost: Lease, deadline: float) -> bool:
        """Tell whether a key was still this store's when its lease was last known to be alive."""
        if write.revision > lost.alive_at:
            return True
        try:
            # A server that was wiped may have counted past both revisions: only our own history speaks of a deletion.
            return self._was_ours(key, write, lost.alive_at, deadline) or not self._was_ours(
                key, write, write.revision, deadline
            )
        except CompactedError:
            return True  # the history is lost, and the end of the lease explains an absence best

    def _was_ours(self, key: bytes, write: Write, revision: int, deadline: float) -> bool:
        """Tell whether a key's last write was this one at a revision."""
        kvs = self._call("range", pb.RangeRequest(key=key, revision=revision, keys_only=True), deadline).kvs
        return bool(kvs) and (kvs[0].mod_revision, kvs[0].lease) == (write.revision, write.lease)

    def _refuse_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise StoreClosedError("the store was closed during the call")

    def _keep(self) -> None:
        """Renew the leases, in a thread of its own, until the store is closed."""
        while not self._stopped.wait(self._until_renewal()):
            for lease in sorted(self._leases, key=attrgetter("lost")):  # the living first
                if _now() < lease.renew_at:
                    continue
                try:
                    self._renew(lease, monotonic() + max(lease.lapses - _now(), self._ttl / RENEWALS))
                except StoreClosedError:
                    return
                except KVStoreError as error:
                    log.warning("a lease of etcd could not be renewed: %s", error)
                    lease.renew_at = _now() + self._ttl / RENEWALS**2
                if lease.lost:
                    break  # writing keys again takes a while, in which others have become due

    def _until_renewal(self) -> float:
        with self._state:
            next_at = min((lease.renew_at for lease in self._leases), default=_now() + self._ttl)
        return max(0.0, min(next_at - _now(), threading.TIMEOUT_MAX))

    def _look_ahead(self) -> None:
        self._lapse = min((-math.inf if lease.lost else lease.lapses for lease in self._leases), default=math.inf)

    @contextmanager
    def _alone(self, deadline: float) -> Iterator[None]:
        """Be the only one that grants leases or writes keys again."""
        with self._state:
            self._await(lambda: not self._busy, deadline)
            self._busy = True
        try:
            yield
        finally:
            with self._state:
                self._busy = False
                self._state.notify_all()

    def _await(self, condition: Callable[[], bool], deadline: float) -> None:
        if not self._state.wait_for(condition, max(0.0, min(deadline - monotonic(), threading.TIMEOUT_MAX))):
            raise OperationTimeoutError("no time was left while another thread had to do with the leases of this store")

    def _call(self, name: str, request: object, deadline: float, share: float = 1.0) -> Any:
        cancellation = self._cancellation
        return self._connection.call(name, request, deadline, share=share, cancellation=cancellation, assured=False)
