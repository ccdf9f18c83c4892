"""Range, then watch: how every wait follows etcd, all of them on one stream.

A follower reads its selection at a revision R and asks the store's one watch stream for everything from R + 1, so
nothing falls between. The stream's thread hands each follower its events; where the stream is lost it opens another, on
another member if need be, and every watch resumes after the last revision that it has seen. Only where that revision
is compacted away, or the cluster is another one, does a follower read its selection again.
"""

from __future__ import annotations

import itertools
import logging
import queue
import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import grpc

from etha.kvstore.errors import (
    KVStoreError,
    OperationTimeoutError,
    StoreClosedError,
    StoreUnavailableError,
)
from etha.kvstore.follow import LOOK_GRACE, Batch, Outage, PushFollower, Selector, first_look_by
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.connection import Backoff, Cancellation, Connection
from etha_kvstore_etcd.failures import Verdict, forget_frames, judge, refusal
from etha_kvstore_etcd.ranges import is_key, list_range, prefix_end
from etha_kvstore_etcd.rpc import Rpc

__all__ = ["EtcdFollower", "WatchStream"]

log = logging.getLogger("etha.kvstore")

CHECK_SECONDS = 10.0
"""How often a store that waits reads again, as the last resort against a stream that has fallen silent."""

SPREAD = 0.25
"""By what share of that a store may be later, so that thousands that began to wait together do not ask together."""


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
        by = min(monotonic() + CHECK_SECONDS / 2, max(deadline, monotonic() + LOOK_GRACE))
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


class WatchStream:
    """The one watch stream of a store, and the thread that reads it.

    Neither exists before the first wait that has to wait.

    Parameters
    ----------
    connection : Connection
        The cluster.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()  # a signal's handler may close the store while its thread holds this
        self._followers: dict[int, EtcdFollower] = {}
        self._ids: dict[EtcdFollower, int] = {}
        self._numbers = itertools.count(1)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call: Any = None
        self._member: Rpc | None = None
        self._thread: threading.Thread | None = None
        self._outage: Outage | None = None
        self._given_up: tuple[KVStoreError | None] | None = None
        """That the open stream was given up on purpose, and the reason, if anybody is to be told."""
        self._opened_with: Any = None
        """The metadata of the open stream, the token among them."""
        self._asked: dict[int, None] = {}
        """The watches that the open stream was asked for and has not answered, in the order of the requests."""
        self._last_read = monotonic()
        self._lateness = random.uniform(0.0, SPREAD)  # noqa: S311 (no secret)

    def add(self, follower: EtcdFollower) -> None:
        """Watch for a follower, from its next revision on."""
        with self._lock:
            number = next(self._numbers)
            self._followers[number] = follower
            self._ids[follower] = number
            follower.fragments = []
            follower.outage = self._outage
            self._ask(number, follower)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="etha-kvstore-etcd-watch", daemon=True)
                try:
                    self._thread.start()
                except BaseException:  # no more threads can be had, or Ctrl-C: the next wait starts another one
                    self._thread = None
                    raise
            elif self._opened_with is not self._connection.metadata:
                self._give_up(None)  # etcd judges each watch by the token that the stream was opened with

    def remove(self, follower: EtcdFollower) -> None:
        """Watch for a follower no more."""
        with self._lock:
            number = self._ids.pop(follower, None)
            if number is not None:
                del self._followers[number]
                self._requests.put(_cancellation(number))

    def note_read(self) -> None:
        """Note that the store has read from etcd just now, which serves as a check."""
        self._last_read = monotonic()

    def next_check(self) -> float:
        """Say when the store's next check is due, on the monotonic clock."""
        return self._last_read + CHECK_SECONDS * (1.0 + self._lateness)

    def claim_check(self) -> bool:
        """Take the check that is due upon the caller; only one of all waits gets to."""
        with self._lock:
            now = monotonic()
            if now < self.next_check():
                return False
            self._last_read = now
            return True

    def is_on(self, member: Rpc) -> bool:
        """Tell whether the stream is with a member."""
        return self._member is member

    def restart(self, reason: KVStoreError) -> None:
        """Give the stream up for dead and open another."""
        with self._lock:
            self._give_up(reason)

    def close(self, deadline: float) -> None:
        """End the stream and its thread. The connection is marked as closed before."""
        with self._lock:
            self._requests.put(None)
            self._give_up(None)
            thread = self._thread
        if thread is not None and thread.is_alive():  # it is not yet, where a signal's handler closes
            thread.join(max(0.0, deadline - monotonic()))

    def _run(self) -> None:
        """Keep a stream open until the store is closed, or a stream is lost that nobody waits on."""
        backoff = Backoff(self._connection.closed)
        while True:
            with self._lock:
                if self._thread is not threading.current_thread():
                    return  # Ctrl-C came while it was started, and nobody knows of it
                if not self._followers or self._connection.closed.is_set():
                    self._thread = self._outage = None
                    return
            member = self._connection.member
            try:
                self._read(member, backoff)
                ended: Exception = StoreUnavailableError(f"etcd at {member.address} ended the watch stream")
            except (grpc.RpcError, ValueError) as error:
                ended = error
            except Exception as error:  # noqa: BLE001 (all waits hang upon this thread; it outlives any failure)
                ended = StoreUnavailableError(f"the watch stream to etcd at {member.address} failed: {error}")
                ended.__cause__ = error
            with self._lock:
                given_up, self._given_up, self._call = self._given_up, None, None
            forget_frames(ended)
            if not self._connection.closed.is_set():
                if given_up is None:
                    self._lost(ended, member)
                elif given_up[0] is not None:
                    self._lost(given_up[0], member)
                with suppress(StoreClosedError):
                    backoff.pause()
            del ended

    def _read(self, member: Rpc, backoff: Backoff) -> None:
        """Open a stream, ask for every watch again, and hand out what it says until it ends."""
        with self._lock:
            self._requests.put(None)  # ends the requests of the stream before
            self._requests = queue.SimpleQueue()
            if self._connection.closed.is_set():
                return
            self._asked.clear()
            for number, follower in self._followers.items():
                follower.fragments = []
                follower.resumes = follower.resumes or self._member is not None
                self._ask(number, follower)
            self._opened_with = self._connection.metadata
            metadata = (*self._opened_with, ("hasleader", "true"))
            self._call = call = member.watch(iter(self._requests.get, None), metadata=metadata)
            self._member = member
        for response in call:
            if self._outage is not None:
                log.info("etcd at %s answers again; %d waits go on", member.address, len(self._followers))
                self._tell(None)
            backoff.reset()
            self._dispatch(response)

    def _lost(self, error: Exception, member: Rpc) -> None:
        """Tell the followers that their stream is gone, and why; they go on waiting unless that can't help."""
        verdict, reason = (Verdict.UNKNOWN, error) if isinstance(error, KVStoreError) else judge(error, member.address)
        self._connection.move_on(member)
        with self._lock:
            followers = list(self._followers.values())
            if verdict in (Verdict.TOKEN, Verdict.FINAL):
                self._followers.clear()
                self._ids.clear()
        if verdict is Verdict.TOKEN:
            for follower in followers:
                follower.interrupt(str(reason))
        elif verdict is Verdict.FINAL:
            for follower in followers:
                follower.fail(reason)
        elif followers and self._outage is None:
            log.warning("the watch stream was lost and is opened again: %s", reason)
            self._tell(Outage(monotonic(), reason))

    def _tell(self, outage: Outage | None) -> None:
        with self._lock:
            self._outage = outage
            for follower in self._followers.values():
                follower.outage = outage

    def _ask(self, number: int, follower: EtcdFollower) -> None:
        """Ask the stream for a watch. Called under the lock."""
        self._asked[number] = None
        self._requests.put(_creation(number, follower))

    def _give_up(self, reason: KVStoreError | None) -> None:
        """End the stream that is open, so that another is opened; without a reason, nobody is told. Under the lock."""
        if self._call is not None:
            self._given_up = (reason,)
            self._call.cancel()

    def _dispatch(self, response: Any) -> None:
        """Hand one response to the follower that it is for."""
        with self._lock:
            number = response.watch_id
            if response.created:
                if number < 0:  # newer servers refuse without saying whom; they answer in the order of the requests
                    number = next(iter(self._asked), number)
                self._asked.pop(number, None)
            follower = self._followers.get(number)
            if follower is None:
                return  # of a wait that has ended meanwhile
            interrupted = response.canceled or not follower.knows(response.header)
            if interrupted:
                del self._followers[number], self._ids[follower]
                if not response.canceled:
                    self._requests.put(_cancellation(number))
        if response.compact_revision:
            follower.interrupt("compacted", history_lost=True)
        elif interrupted:
            follower.interrupt(response.cancel_reason or "the member knows another history, or is behind")
        elif response.created:
            follower.accept()
        elif response.fragment:
            follower.fragments += response.events
        elif events := response.events:
            follower.deliver([*follower.fragments, *events] if follower.fragments else events)
            follower.fragments = []
        else:  # a progress notification: everything up to here was delivered
            follower.next_revision = max(follower.next_revision, response.header.revision + 1)


def _creation(number: int, follower: EtcdFollower) -> Any:
    """Make the request for a watch."""
    key, range_end = follower.range
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=follower.start_revision,
            progress_notify=True,
            fragment=True,
            watch_id=number,
        )
    )


def _cancellation(number: int) -> Any:
    """Make the request that ends a watch."""
    request = pb.WatchRequest()
    request.cancel_request.watch_id = number
    return request
