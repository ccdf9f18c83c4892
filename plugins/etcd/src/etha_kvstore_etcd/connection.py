"""`Connection`: calls to a cluster, with failover between its members, renewal of the token and the retry rules.

A read is repeated until its deadline. A write is repeated only where it never left this process or the server did not
take it; where it may have taken effect, `OutcomeUnknownError` says so, and the store may look whether it did.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from time import monotonic
from typing import Any

import grpc

from etha.kvstore.errors import (
    AuthenticationError,
    ConfigError,
    KVStoreError,
    OperationTimeoutError,
    OutcomeUnknownError,
    StoreClosedError,
)
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.failures import Failure, Verdict, judge, name_keys
from etha_kvstore_etcd.forking import ApartFromForks
from etha_kvstore_etcd.rpc import Rpc

__all__ = ["Backoff", "Cancellation", "Connection", "Login"]

log = logging.getLogger("etha.kvstore")

ATTEMPT_SECONDS = 2.0
"""How long a repeatable call first waits for one member before it asks the next; a frozen one never answers. The time
doubles with each round of all members, so that a cluster which is merely slow is given the time that it takes."""

LONGEST_ATTEMPT = 3600.0
"""Seconds: gRPC takes no infinite time."""

RENEWAL_SECONDS = 5.0
"""How long one attempt to authenticate may take; etcd hashes passwords slowly on purpose."""

Metadata = tuple[tuple[str, str], ...]

apart_from_forks = ApartFromForks()


class Login:
    """A user's name and password. Its text shows neither."""

    __slots__ = ("password", "user")

    def __init__(self, user: str, password: str) -> None:
        for option, text in (("user", user), ("password", password)):
            if not _is_utf8(text):  # not shown, and neither is Python's own error, which holds the text
                raise ConfigError(f"option {option!r} of backend 'etcd' is a str that UTF-8 can say")
        self.user = user
        self.password = password

    def __repr__(self) -> str:
        return "<login>"

    __str__ = __repr__


def _is_utf8(text: object) -> bool:
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False


class Cancellation:
    """What ends a call, and the pauses between its attempts, from another thread."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._calls: set[Any] = set()

    def run(self, method: Any, request: Any, timeout: float, metadata: Metadata) -> Any:
        """Make a call of `Rpc.cancellable`, which `cancel` ends."""
        call = method(request, timeout=timeout, metadata=metadata)
        self._calls.add(call)
        if self.cancelled.is_set():
            call.cancel()
        try:
            (reply,) = call  # to the stream's end, which brings the status
            return reply
        except grpc.RpcError:
            if self.cancelled.is_set():
                raise StoreClosedError("the store was closed during the call") from None
            raise
        except BaseException:  # Ctrl-C: nobody waits for the reply any more
            call.cancel()
            raise
        finally:
            self._calls.discard(call)
            del call  # see `forget_frames`

    def cancel(self) -> None:
        """End the calls that are under way, and every later one."""
        self.cancelled.set()
        for call in list(self._calls):
            call.cancel()


class Backoff:
    """Pauses that double, with jitter, so that many clients don't return at the same instant.

    Parameters
    ----------
    cancelled : threading.Event
        What ends a pause early.
    """

    FIRST, LONGEST = 0.05, 1.0

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self._next = self.FIRST

    def pause(self, deadline: float = float("inf")) -> None:
        """Sleep, no longer than the deadline; raise `StoreClosedError` where that is cancelled."""
        seconds = self._next * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, not a secret)
        self._next = min(2 * self._next, self.LONGEST)
        if self._cancelled.wait(max(0.0, min(seconds, deadline - monotonic()))):
            raise StoreClosedError("the store was closed during the call")

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._next = self.FIRST


class Connection:
    """Calls to the members of one cluster.

    Parameters
    ----------
    members : sequence of Rpc
        One for each endpoint.
    login : Login, optional
        The user, where the cluster wants one.
    metadata : tuple of pairs
        What goes with every call, such as the token of a client whose channel is used.
    """

    def __init__(self, members: Sequence[Rpc], login: Login | None = None, metadata: Metadata = ()) -> None:
        self._members = members
        self._current = 0
        self._login = login
        self._metadata = metadata
        self._login_lock = threading.Lock()
        self._authentication: futures.Future[Any] | None = None
        """The request for a token that is under way; it outlasts a call whose own time is short."""
        self.closed = threading.Event()
        self.revision = 0
        """The newest revision that any reply has named."""
        self.assure: Callable[[float], int] | None = None
        """What comes before every call and after every read, with its deadline; where it gives another number after a
        read than before it, the read is repeated."""

    @property
    def member(self) -> Rpc:
        """The member that is asked first."""
        return self._members[self._current]

    @property
    def metadata(self) -> Metadata:
        """What goes with every call."""
        return self._metadata

    def call(
        self,
        name: str,
        request: Any,
        deadline: float,
        *,
        repeat: bool = True,
        share: float = 1.0,
        cancellation: Cancellation | None = None,
        assured: bool = True,
    ) -> Any:
        """Make one call, as often as the rules allow.

        Parameters
        ----------
        name : str
            The call, an attribute of `Rpc`.
        request : message
            The request.
        deadline : float
            When to give up, on the monotonic clock, in seconds.
        repeat : bool
            Whether the request may be sent again although it may have taken effect.
        share : float
            Which part of the remaining time one attempt may take.
        cancellation : Cancellation, optional
            What ends the call early; `close` ends every call.
        assured : bool
            Whether `assure` comes first.

        Returns
        -------
        message
            The reply.

        Raises
        ------
        OutcomeUnknownError
            If a request that may not be repeated was sent and its reply was lost.
        StoreUnavailableError, OperationTimeoutError
            If the time is up: what the last attempt met.
        KVStoreError
            What the server refused.
        """
        assure = self.assure if assured else None
        losses = assure(deadline) if assure else 0
        trouble: KVStoreError | None = None
        backoff: Backoff | None = None
        renewed = attempts = 0
        while True:
            member = self._members[self._current]
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise trouble or OperationTimeoutError(f"no time was left to ask etcd at {member.address}")
            budget = min(remaining * share, LONGEST_ATTEMPT)
            if repeat and len(self._members) > 1:
                budget = min(budget, ATTEMPT_SECONDS * 2 ** min(attempts // len(self._members), 12))
            attempts += 1
            metadata = self._metadata
            try:
                with apart_from_forks:
                    if cancellation is None:
                        reply = getattr(member, name)(request, timeout=budget, metadata=metadata)
                    else:
                        reply = cancellation.run(member.cancellable[name], request, budget, metadata)
            except (grpc.RpcError, ValueError) as error:
                failure = judge(error, member.address)
            else:
                revision = reply.header.revision
                if revision > self.revision:
                    self.revision = revision
                if assure is None or not repeat or losses == (losses := assure(deadline)):
                    return reply
                continue  # a lease was lost meanwhile, and with it what was read
            if failure.verdict is Verdict.TOKEN and self._login is not None and renewed < 3:
                renewed += 1
                renewal = self._renew(self._login, metadata, deadline)
                if renewal is None:
                    continue
                failure = renewal
            if failure.verdict in (Verdict.FINAL, Verdict.TOKEN):
                if isinstance(failure.error, AuthenticationError):
                    raise name_keys(failure.error, request)
                raise failure.error
            if failure.verdict is Verdict.UNKNOWN and not repeat:
                self.move_on(member)
                raise OutcomeUnknownError(
                    f"{failure.error}; the request was sent, and whether it took effect is not known"
                ) from failure.error
            trouble = failure.error
            self.move_on(member)
            backoff = backoff or Backoff(self.closed if cancellation is None else cancellation.cancelled)
            backoff.pause(deadline)

    def move_on(self, member: Rpc) -> None:
        """Ask another member first from now on, unless somebody has moved on from this one already."""
        if len(self._members) > 1 and self.member is member:
            self._current = (self._current + 1) % len(self._members)
            log.debug("etcd at %s is in trouble; asking %s", member.address, self.member.address)

    def close(self) -> None:
        """End every call under way."""
        self.closed.set()
        for member in self._members:
            member.close()

    def _renew(self, login: Login, refused: Metadata, deadline: float) -> Failure | None:
        """Authenticate, unless another thread has replaced the refused token meanwhile."""
        if not self._login_lock.acquire(timeout=max(0.0, min(deadline - monotonic(), threading.TIMEOUT_MAX))):
            return Failure(Verdict.NOT_TAKEN, OperationTimeoutError("no time was left to authenticate"))
        try:
            if self._metadata is not refused:
                return None
            member = self.member
            request = pb.AuthenticateRequest(name=login.user, password=login.password)
            try:
                if self._authentication is None:
                    self._authentication = _begin(member.authenticate, request)
                reply = self._authentication.result(timeout=max(0.0, deadline - monotonic()))
                self._authentication = None
            except futures.TimeoutError:  # the next call takes the answer
                return Failure(Verdict.NOT_TAKEN, OperationTimeoutError("no time was left to authenticate"))
            except (grpc.RpcError, ValueError) as error:
                self._authentication = None
                failure = judge(error, member.address)
                # Whatever became of the request for a token, the call that wants one has not been made.
                return failure if failure.verdict is Verdict.FINAL else Failure(Verdict.NOT_TAKEN, failure.error)
            self._metadata = (("token", reply.token),)
            return None
        finally:
            self._login_lock.release()


def _begin(authenticate: Any, request: Any) -> futures.Future[Any]:
    """Ask for a token in a thread of its own; a future of gRPC's would not do, see `Rpc`."""
    answer: futures.Future[Any] = futures.Future()

    def ask() -> None:
        try:
            with apart_from_forks:
                reply = authenticate(request, timeout=RENEWAL_SECONDS)
            answer.set_result(reply)
        except Exception as error:  # noqa: BLE001 (raised again where the answer is taken)
            answer.set_exception(error)

    threading.Thread(target=ask, name="etha-kvstore-etcd-login", daemon=True).start()
    return answer
