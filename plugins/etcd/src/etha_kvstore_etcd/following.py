"""Range, then watch: how one wait, or one watch, follows etcd.

A follower reads its selection at a revision R and asks the store's one watch stream for everything from R + 1, so
nothing falls between. Only where that revision is compacted away, or the cluster is another one, does it read its
selection again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from etha.kvstore.errors import KVStoreError, OperationTimeoutError, StoreUnavailableError
from etha.kvstore.follow import LOOK_GRACE, Batch, Outage, PushFollower, Selector, first_look_by
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.connection import Backoff, Cancellation, Connection
from etha_kvstore_etcd.failures import refusal
from etha_kvstore_etcd.ranges import is_key, list_range, prefix_end

if TYPE_CHECKING:
    from etha_kvstore_etcd.watching import WatchStream

__all__ = ["EtcdFollower"]

log = logging.getLogger("etha.kvstore")


class _InterruptedError(KVStoreError):
    """The stream says no more on a watch, and the follower has to see to it. Never leaves this module.

    Parameters
    ----------
    reason : str
        What the server said.
    history_lost : bool
        Whether what was missed can't be had any more, so that the selection is to be read again.
    """

    def __init__(self, reason: str, *, history_lost: bool = False) -> None:
        super().__init__(reason)
        self.history_lost = history_lost


class EtcdFollower(PushFollower):
    """One wait, or one watch, on etcd.

    Parameters
    ----------
    connection : Connection
        The cluster.
    stream : WatchStream
        The store's stream.
    selector : Selector
        What to follow.
    timeout : float
        The operation timeout, in seconds.
    """

    def __init__(self, connection: Connection, stream: WatchStream, selector: Selector, timeout: float) -> None:
        super().__init__()
        self._connection = connection
        self._stream = stream
        self._pattern = selector.pattern
        self._endless = selector.expected is None
        self._timeout = self._patience = timeout
        self._listed = False
        self._watching = False
        self._interruptions = 0
        self._newest_read = 0
        self._silence: Outage | None = None
        """The outage that no stream has told of, but a look at the end of the time."""
        self._cancellation = Cancellation()
        self._backoff = Backoff(self._cancellation.cancelled)
        self.next_revision = 0
        """The first revision that this follower has not seen; kept by the stream's thread while it watches."""
        self.resumes = False
        """Whether this follower was watching before, so that what it has seen may be long ago."""
        self.cluster = 0
        """The id of the cluster that this follower has read."""
        self.fragments: list[Any] = []
        """Events of a response of which more fragments are to come."""

    @property
    def range(self) -> tuple[bytes, bytes]:
        """The range of keys that holds the selection; its end is empty for a single key."""
        prefix = self._pattern.literal_prefix
        return prefix, b"" if self._pattern.is_literal else prefix_end(prefix)

    @property
    def start_revision(self) -> int:
        """The revision to watch from.

        A watch that resumes asks for one that it has seen, and `deliver` drops that: a server that compacted a deletion
        at the very next revision may not say that it is gone, unless it is asked for what came before
        (etcd-io/etcd#19179). A new one does not: etcd hands out what is past in steps of a tenth of a second.
        """
        return self.next_revision - 1 if self.resumes else self.next_revision

    def next(self, deadline: float) -> Sequence[Batch]:
        while True:
            if not self._listed:
                return self._list(deadline)
            if not self._watching and (self._endless or monotonic() < deadline):
                self._watching = True
                self._stream.add(self)
            try:
                batches = super().next(min(deadline, self._stream.next_check()))
            except _InterruptedError as interruption:
                self._failure = None
                self._watching = False
                self._recover(interruption, deadline)
                continue
            if monotonic() >= deadline:
                if self.thorough and not self._endless and self.outage in (None, self._silence):
                    self._see_whether_it_answers()
                return batches
            if batches:
                return batches
            self._check(deadline)

    def close(self) -> None:
        self._stream.remove(self)
        super().close()
        self._cancellation.cancel()

    def deliver(self, events: Sequence[Any]) -> None:
        """Take in events, in the stream's thread: one batch for each revision, without those that were seen before."""
        changes: list[tuple[bytes, bytes | None]] = []
        at = 0
        for event in events:
            kv = event.kv
            revision = kv.mod_revision
            if revision < self.next_revision:
                continue  # some servers repeat themselves after a reconnection
            if revision != at and changes:
                self.push(Batch(changes))
                changes = []
            at = revision
            key = kv.key
            if self._selects(key):
                changes.append((key, None if event.type == pb.Event.DELETE else kv.value))
        if changes:
            self.push(Batch(changes))
        if at:
            self.next_revision = at + 1

    def accept(self) -> None:
        """Note that the server has taken the watch."""
        self._interruptions = 0
        self._backoff.reset()

    def interrupt(self, reason: str, *, history_lost: bool = False) -> None:
        """Leave it to the follower, in its own thread, to see to a watch that ended."""
        self.fail(_InterruptedError(reason, history_lost=history_lost))

    def _read(self, request: Any, deadline: float) -> Any:
        return self._connection.call("range", request, deadline, cancellation=self._cancellation)

    def _selects(self, key: bytes) -> bool:
        return self._pattern.matches(key) and (self._pattern.is_literal or is_key(key))

    def _list(self, deadline: float) -> Sequence[Batch]:
        """Read the selection."""
        started = monotonic()
        by = max(deadline, started + LOOK_GRACE) if self.next_revision else first_look_by(deadline, self._timeout)
        by = min(by, started + self._patience)
        try:
            if self._pattern.is_literal:
                reply = self._read(pb.RangeRequest(key=self._pattern.literal_prefix), by)
                kvs, header = reply.kvs, reply.header
            else:
                kvs, header = list_range(self._connection, self._pattern.literal_prefix, by, self._cancellation)
        except (OperationTimeoutError, StoreUnavailableError) as error:
            self._patience *= 2  # a cluster that is merely slow is given the time that it takes
            if self.outage is None:
                self.outage = Outage(started, error)
                if monotonic() < deadline:
                    log.warning("etcd does not answer, and a wait rides it out: %s", error)
            return ()
        if self.outage is not None:
            self.outage = None
            log.info("etcd answers again, and the wait goes on")
        self._listed = True
        self._stream.note_read()
        self.next_revision, self.cluster, self.resumes = header.revision + 1, header.cluster_id, False
        return (Batch([(kv.key, kv.value) for kv in kvs if self._selects(kv.key)], restart=True),)

    def _recover(self, interruption: _InterruptedError, deadline: float) -> None:
        """See to a watch that ended, so that the next turn can ask for it again, or read the selection again.

        A small read tells what is the matter: it renews a token, is refused where the user has no right to the range,
        and shows whether the history that was seen is still this cluster's. A member that is merely behind catches up.
        """
        if interruption.history_lost:
            self._listed = False
            return
        self.resumes = True
        if self._interruptions == 2:
            address = self._connection.member.address
            raise refusal(str(interruption), address) or StoreUnavailableError(
                f"etcd at {address} ends every watch: {interruption}"
            )
        self._backoff.pause(deadline)
        started = monotonic()
        key, range_end = self.range
        request = pb.RangeRequest(key=key, range_end=range_end, limit=1, keys_only=True)
        try:
            header = self._read(request, max(deadline, started + LOOK_GRACE)).header
        except (OperationTimeoutError, StoreUnavailableError) as error:
            self.outage = self.outage or Outage(started, error)
        else:
            self._interruptions += 1  # in vain, if another one follows; where nothing was answered, nothing was tried
            self._listed = self.knows(header)
            if not self._stream.is_on(self._connection.member):
                self._stream.restart(StoreUnavailableError(f"the stream's member is behind: {interruption}"))

    def knows(self, header: Any) -> bool:
        """Tell whether a header is of the history that was seen, and not of another cluster or one that was wiped."""
        return bool(header.cluster_id == self.cluster and header.revision >= self.next_revision - 1)

    def _see_whether_it_answers(self) -> None:
        """Tell a wait whose time is over whether it waited for a server that had fallen silent meanwhile."""
        started = monotonic()
        try:
            self._read(pb.RangeRequest(key=self._pattern.literal_prefix, count_only=True), started + LOOK_GRACE)
            self._silence = None
        except (OperationTimeoutError, StoreUnavailableError) as error:
            self._silence = self.outage or Outage(started, error)
        self.outage = self._silence

    def _check(self, deadline: float) -> None:
        """Read again where it is time to: a stream can be silent because nothing happens, or because it is dead."""
        if not self._stream.claim_check():
            return
        now = monotonic()
        half_way = (now + self._stream.next_check()) / 2
        by = min(half_way, max(deadline, now + LOOK_GRACE))
        try:
            reply = self._read(pb.RangeRequest(key=self._pattern.literal_prefix), by)
        except (OperationTimeoutError, StoreUnavailableError) as error:
            self._stream.restart(error)
            return
        if not self.knows(reply.header):
            self._stream.restart(StoreUnavailableError("etcd's history is another one than before"))
        elif self.next_revision <= self._newest_read:  # what the last check read has not come by the watch since
            self._stream.restart(StoreUnavailableError("the watch has missed a change"))
        elif not self._stream.is_on(self._connection.member):
            self._stream.restart(StoreUnavailableError("the member that the stream is on does not answer"))
        self._newest_read = max((kv.mod_revision for kv in reply.kvs if self._selects(kv.key)), default=0)
