"""The one watch stream of a store, which all its waits share.

Its thread hands each follower the events of its selection. Where the stream is lost it opens another, on another member
if need be, and every watch resumes after the last revision that its follower has seen.
"""

from __future__ import annotations

import itertools
import logging
import queue
import random
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import grpc

from etha.kvstore.errors import KVStoreError, StoreClosedError, StoreUnavailableError
from etha.kvstore.follow import Outage
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.connection import Backoff, Connection
from etha_kvstore_etcd.failures import Verdict, forget_frames, judge
from etha_kvstore_etcd.rpc import Rpc

if TYPE_CHECKING:
    from etha_kvstore_etcd.following import EtcdFollower

__all__ = ["WatchStream"]

log = logging.getLogger("etha.kvstore")

CHECK_SECONDS = 10.0
"""How often a store that waits reads again, as the last resort against a stream that has fallen silent."""

SPREAD = 0.25
"""By what share of that a store may be later, so that thousands that began to wait together do not ask together."""


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
