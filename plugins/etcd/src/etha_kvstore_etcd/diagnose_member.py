"""What a diagnosis finds at one member: whether it answers, and what it says of itself."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any

import grpc

from etha.kvstore.errors import AuthenticationError
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.address import Tls
from etha_kvstore_etcd.diagnose_network import PATIENCE, SILENT, Way
from etha_kvstore_etcd.failures import judge
from etha_kvstore_etcd.finding import Finding, TroubleError, bad, doubtful
from etha_kvstore_etcd.known_versions import judge_version
from etha_kvstore_etcd.rpc import Rpc

__all__ = ["LARGEST_PROBE", "LONGEST", "Member"]

LONGEST = 4.5
"""Seconds that the members, which are examined at the same time, may take."""

DEFAULT_QUOTA = 2 * 1024**3
"""What ``--quota-backend-bytes`` is where it is not given; servers before 3.6 don't tell."""

GRPC_OVERHEAD = 512 * 1024
"""What a server's gRPC takes beyond its ``--max-request-bytes``."""

LARGEST_PROBE = 10 * 1024**2
"""The largest request that a diagnosis sends; etcd's own advice is not to allow more."""

CLOCK_SECONDS = 5.0


class Member:
    """One endpoint, and what is found there.

    Parameters
    ----------
    rpc : Rpc
        Its channel.
    tls : Tls, optional
        The files of TLS, where the channel has it.
    has_login : bool
        Whether there is a user, whose password is sent.
    largest : int
        The largest request that a store would send, in bytes.

    Attributes
    ----------
    status : message or None
        What it says of itself; `None` where it can't be used.
    """

    def __init__(self, rpc: Rpc, tls: Tls | None, *, has_login: bool, largest: int) -> None:
        self.rpc = rpc
        self.status: Any = None
        self._has_login, self._largest = has_login, largest
        host, _, port = rpc.address.rpartition(":")
        self._way = Way(host.strip("[]"), int(port), tls)
        self._name = f"etcd at {rpc.address}"
        self._took = 0.0
        self._trouble = f"examining it did not end within {LONGEST:g} s -> is the name service of this machine slow?"
        self._findings: list[Finding] = []

    def tell(self, *, usable: bool) -> list[Finding]:
        """Say what was found.

        Parameters
        ----------
        usable : bool
            Whether the cluster works; a member that is away is no more than doubtful then.

        Returns
        -------
        list of (str, str)
            Level and message each.
        """
        if self.status is None:
            return [("doubtful" if usable else "bad", f"{self._name}: {self._trouble}")]
        size = f"{self.status.dbSize / 1e6:.1f} MB of data"
        role = "it leads" if self.status.leader == self.status.header.member_id else "it follows"
        answers = f"answers in {self._took * 1000:.1f} ms: version {self.status.version}, {size}, {role}"
        return [
            ("good", f"{self._name} {answers}"),
            *((level, f"{self._name} {text}") for level, text in self._findings),
        ]

    def examine(self) -> None:
        """Connect, ask, and look at what comes back."""
        try:
            peer = self._way.reach()
            status = self._ask()
            self._findings += [finding for finding in self._look(status, peer) if finding is not None]
            self.status = status
        except TroubleError as trouble:
            self._trouble = str(trouble)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told, and the other members are examined)
            self._trouble = f"examining it failed with {type(error).__name__} -> run it again; if it stays, report it"

    def _ask(self) -> Any:
        """Ask for the member's status; where it gives none, find out why."""
        began = monotonic()
        try:
            status = self.rpc.status(pb.StatusRequest(), timeout=PATIENCE)
        except grpc.RpcError as error:
            failure = judge(error, self.rpc.address).error
            if self._way.tls is not None:
                raise self._way.explain_tls(refused=isinstance(failure, AuthenticationError)) from error
            if self._way.speaks_tls():
                what, cure = "it speaks TLS, and was spoken to in the clear", "give ca_cert, or endpoints with https://"
            elif isinstance(failure, TimeoutError):
                what, cure = SILENT, "is the process frozen, its disk stalled, or what listens there no etcd?"
            else:
                what, cure = "what listens there does not answer as etcd does", "correct the endpoint"
            raise TroubleError(what, cure) from error
        self._took = monotonic() - began
        if status.isLearner:
            raise TroubleError(
                "it is a learner, which serves nobody", "name voting members, or promote it (etcdctl member promote)"
            )
        return status

    # --- what a status says, and what only this member can be asked ---

    def _look(self, status: Any, peer: str) -> Iterator[Finding | None]:
        if judged := judge_version(status.version, users=self._has_login):
            yield judged[0], f"is {status.version}, which {judged[1]}"
        for error in status.errors:
            if "no leader" in error:
                yield bad("has no leader: it answers no read and takes no write", "start the members that are missing")
            elif "alarm:" not in error:  # every member tells of every alarm, so the cluster's part tells of it, once
                yield doubtful(f"says of itself: {error}", "look at its log")
        yield _space(status.dbSize, status.dbSizeQuota)
        yield self._way.judge_secrecy(peer, has_password=self._has_login)
        yield self._clock()
        yield self._request_size()

    def _clock(self) -> Finding | None:
        """Compare the clocks, by the date that etcd's web server sends, which has whole seconds."""
        host, port, tls = self._way
        connection = (
            http.client.HTTPConnection(host, port, timeout=PATIENCE / 2)
            if tls is None
            else http.client.HTTPSConnection(host, port, timeout=PATIENCE / 2, context=self._way.context())
        )
        try:
            connection.request("GET", "/version")
            date = connection.getresponse().getheader("Date")
            ahead = parsedate_to_datetime(date or "").timestamp() - time()
        except (OSError, http.client.HTTPException, ValueError):
            return None  # it may speak gRPC only
        finally:
            connection.close()
        if abs(ahead) <= CLOCK_SECONDS:
            return None
        where = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
        return doubtful(f"has a clock {where}", "set both by NTP, since certificates go by them")

    def _request_size(self) -> Finding | None:
        """See, by a question that is too long to be answered, whether the server takes what this store would send."""
        if self._largest > LARGEST_PROBE:
            return None
        padded = pb.StatusRequest(padding=bytes(self._largest + GRPC_OVERHEAD))
        try:
            self.rpc.status(padded, timeout=PATIENCE)
        except grpc.RpcError as error:
            found = re.search(r"larger than max \(\d+ vs\. (\d+)\)", error.details() or "")
            allowed = int(found[1]) - GRPC_OVERHEAD if found else self._largest
            if allowed < self._largest:
                return bad(
                    f"takes requests of {allowed} bytes at the most, and max_request_bytes is {self._largest}",
                    f"set the option to {allowed}, or start the servers with --max-request-bytes {self._largest}",
                )
        return None


def _space(size: int, told: int) -> Finding | None:
    quota = told or DEFAULT_QUOTA
    if size < 0.8 * quota:
        return None
    assumed = "" if told else ", if its quota is the default"
    return doubtful(
        f"has used {size / 1e6:.0f} of {quota / 1e6:.0f} MB{assumed}; when all are used it takes no writes",
        "compact and defragment it, or raise its --quota-backend-bytes",
    )
