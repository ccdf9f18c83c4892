"""What only etcd can tell of a trouble: of each member apart, then of the cluster that they make.

A message that is not good says after an arrow what to do next.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from time import monotonic, time
from typing import Any, cast

import grpc

from etha.kvstore.errors import AuthenticationError, KVStoreError
from etha.kvstore.options import check_options
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.address import Tls, connect, parse_endpoints
from etha_kvstore_etcd.connection import Connection, Login
from etha_kvstore_etcd.failures import judge
from etha_kvstore_etcd.plugin import SPEC
from etha_kvstore_etcd.rpc import Rpc

__all__ = ["diagnose", "judge_version"]

PATIENCE = 1.5
"""Seconds that one step may take. After 2 s gRPC ends an attempt to connect, and silence looks like a refusal then."""

LONGEST = 4.5
"""Seconds that the members, which are examined at the same time, may take."""

PROBE_KEY = b"etha-kvstore:probe"
"""A key that never exists. It has no ``/``, so it is nobody's full key."""

DEFAULT_QUOTA = 2 * 1024**3
"""What ``--quota-backend-bytes`` is where it is not given; servers before 3.6 don't tell."""

DEFAULT_REQUEST_BYTES = next(option.default for option in SPEC.options if option.name == "max_request_bytes")
GRPC_OVERHEAD = 512 * 1024
"""What a server's gRPC takes beyond its ``--max-request-bytes``."""

LARGEST_PROBE = 10 * 1024**2
"""The largest request that a diagnosis sends; etcd's own advice is not to allow more."""

CLOCK_SECONDS = 5.0
EXPIRY_SECONDS = 14 * 86_400.0

SILENT = f"it takes connections and says nothing within {PATIENCE:g} s"

Finding = tuple[str, str]


def diagnose(options: Mapping[str, object]) -> Iterable[Finding]:
    """Examine the members that the options name, and the cluster; nothing is written.

    Parameters
    ----------
    options : mapping
        The options of a store.

    Returns
    -------
    iterable of (str, str)
        Level and message.

    Examples
    --------
    >>> [level for level, _ in diagnose({"endpoints": ["127.0.0.1:1"], "connect_timeout": 1})]
    ['bad', 'bad']
    """
    try:
        wanted = cast("dict[str, Any]", check_options(SPEC, options))
        if wanted.get("client") is not None:
            return [_doubtful("etcd: a client's channel is not examined", "give the endpoints that it has instead")]
        return _diagnose(wanted)
    except (KVStoreError, TypeError, ValueError) as error:
        return [_bad(f"etcd: {error}", "correct that option")]


def judge_version(version: str, *, users: bool) -> Finding | None:
    """Say what is known to be wrong with a version of the server.

    Parameters
    ----------
    version : str
        Such as ``3.5.1``.
    users : bool
        Whether there are users, whose rights matter.

    Returns
    -------
    (str, str) or None
        Level and message; `None` where nothing is.

    Examples
    --------
    >>> judge_version("3.5.1", users=False)
    ('bad', 'can lose data when it crashes (3.5.0 to 3.5.2) -> upgrade to the newest 3.5 or 3.6')
    """
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        return None
    number = tuple(map(int, found.groups()))
    if (3, 5, 0) <= number <= (3, 5, 2):
        return _bad("can lose data when it crashes (3.5.0 to 3.5.2)", "upgrade to the newest 3.5 or 3.6")
    if number < (3, 5):
        return _doubtful("gets no fixes any more (all of 3.4 since June 2026)", "upgrade to the newest 3.5 or 3.6")
    if users and (number < (3, 5, 33) or (3, 6) <= number < (3, 6, 14)):
        cure = "upgrade to 3.5.33, 3.6.14 or newer"
        return _doubtful("lets a user who may read one key watch every later key", cure)
    return None


def _diagnose(wanted: Mapping[str, Any]) -> list[Finding]:
    endpoints = wanted.get("endpoints") or ()
    if wanted.get("host"):
        endpoints = [f"{wanted['host']}:{wanted.get('port') or 2379}"]
    addresses, scheme = parse_endpoints(endpoints)
    tls = Tls(*(wanted.get(option) for option in Tls._fields))
    secure = tls if scheme == "https" or any(tls) else None
    user, password = wanted.get("user"), wanted.get("password")
    login = None if user is None or password is None else Login(user, password)
    largest = wanted.get("max_request_bytes", DEFAULT_REQUEST_BYTES)
    rpcs = connect(addresses, secure, dict(wanted.get("grpc_options") or {}))
    members = [_Member(rpc, secure, login, largest) for rpc in rpcs]
    try:
        _examine_all(members)
        cluster = list(_examine_cluster([member for member in members if member.status is not None], login))
        usable = any(level == "good" for level, _ in cluster)
        findings = [finding for member in members for finding in member.tell(usable)]
        if largest > LARGEST_PROBE:
            what = f"etcd: max_request_bytes={largest}, and etcd is made for small values"
            findings.append(_doubtful(what, f"keep it to {LARGEST_PROBE} at the most"))
        return findings + cluster
    finally:
        for rpc in rpcs:
            rpc.close()


def _examine_all(members: Sequence[_Member]) -> None:
    """Examine members at the same time; a name service that hangs must hold up nobody, so no thread is waited for."""
    threads = [threading.Thread(target=member.examine, daemon=True) for member in members]
    for thread in threads:
        thread.start()
    deadline = monotonic() + LONGEST
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))


class _Member:
    """One endpoint, and what is found there."""

    def __init__(self, rpc: Rpc, tls: Tls | None, login: Login | None, largest: int) -> None:
        self.rpc = rpc
        self.status: Any = None
        self.took = 0.0
        self._tls, self._login, self._largest = tls, login, largest
        host, _, port = rpc.address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._name = f"etcd at {rpc.address}"
        self._trouble = f"examining it did not end within {LONGEST:g} s -> is the name service of this machine slow?"
        self._findings: list[Finding] = []

    def tell(self, usable: bool) -> list[Finding]:
        """Say what was found; a member that is away is no more than doubtful where the cluster works without it."""
        if self.status is None:
            return [("doubtful" if usable else "bad", f"{self._name}: {self._trouble}")]
        size = f"{self.status.dbSize / 1e6:.1f} MB of data"
        role = "it leads" if self.status.leader == self.status.header.member_id else "it follows"
        answers = f"answers in {self.took * 1000:.1f} ms: version {self.status.version}, {size}, {role}"
        return [
            ("good", f"{self._name} {answers}"),
            *((level, f"{self._name} {text}") for level, text in self._findings),
        ]

    def examine(self) -> None:
        """Connect, ask, and look at what comes back."""
        try:
            peer = self._reach()
            status = None if peer is None else self._ask()
            if peer is not None and status is not None:
                self._findings += [finding for finding in self._look(status, peer) if finding is not None]
                self.status = status
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told, and the other members are examined)
            self._trouble = f"examining it failed with {type(error).__name__} -> run it again; if it stays, report it"

    # --- getting there ---

    def _reach(self) -> str | None:
        """Connect a socket, and give the address that was reached."""
        try:
            with self._socket() as connection:
                return str(connection.getpeername()[0])
        except socket.gaierror:
            what, cure = f"the name {self._host!r} does not resolve", "correct the endpoint, or the name service"
        except UnicodeError:
            what, cure = f"{self._host[:80]!r} is no host name", "correct the endpoint"
        except ConnectionRefusedError:
            what, cure = "nobody listens there", "start etcd, or correct the endpoint or its --listen-client-urls"
        except TimeoutError:
            what, cure = f"no connection within {PATIENCE:g} s", "is the machine up? Does a firewall drop the packets?"
        except OSError as error:
            what, cure = f"no connection: {error.strerror or error}", "correct the endpoint, or the network"
        self._trouble = f"{what} -> {cure}"
        return None

    def _ask(self) -> Any:
        """Ask for the member's status; where it gives none, find out why."""
        began = monotonic()
        try:
            answer = self._status_of(self.rpc)(pb.StatusRequest(), timeout=PATIENCE)
        except grpc.RpcError as error:
            failure = judge(error, self.rpc.address).error
            if self._tls is not None:
                self._trouble = self._explain_tls(isinstance(failure, AuthenticationError))
            elif self._speaks_tls():
                self._trouble = "it speaks TLS, and was spoken to in the clear -> write https://, and give ca_cert"
            elif isinstance(failure, TimeoutError):
                self._trouble = f"{SILENT} -> is the process frozen, its disk stalled, or what listens there no etcd?"
            else:
                self._trouble = "what listens there does not answer as etcd does -> correct the endpoint"
            return None
        self.took = monotonic() - began
        return answer

    def _socket(self, patience: float = PATIENCE) -> socket.socket:
        return socket.create_connection((self._host, self._port), timeout=patience)

    # --- TLS ---

    def _explain_tls(self, refused: bool) -> str:
        """Make the handshake once more, with a library that says exactly what it minds."""
        assert self._tls is not None
        try:
            context = _context(self._tls)
        except OSError as error:  # ssl.SSLError included
            why = getattr(error, "reason", None) or "no PEM"
            return f"TLS can't begin with these files ({why}) -> check ca_cert, and that cert_key belongs to cert_cert"
        try:
            with self._socket() as plain, context.wrap_socket(plain, server_hostname=self._host):
                pass
        except ssl.SSLCertVerificationError as error:
            return _unverified(error, self._host)
        except TimeoutError:
            return f"{SILENT} -> is the process frozen, or what listens there no etcd?"
        except OSError as error:  # ssl.SSLError included
            if "ALERT" in (reason := str(getattr(error, "reason", ""))):
                return f"it refused TLS ({reason}) -> a server with --client-cert-auth wants cert_cert and cert_key"
            return "it makes no TLS handshake, as one that speaks in the clear -> write http://, without certificates"
        if refused:
            return "it refused this client's certificate -> give cert_cert and cert_key that its authority has signed"
        return "it makes a TLS handshake, and does not answer as etcd does -> correct the endpoint"

    def _speaks_tls(self) -> bool:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with self._socket(PATIENCE / 4) as plain, context.wrap_socket(plain):
                return True
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False

    # --- what a status says, and what only this member can be asked ---

    def _look(self, status: Any, peer: str) -> Iterable[Finding | None]:
        if judged := judge_version(status.version, users=self._login is not None):
            yield judged[0], f"is {status.version}, which {judged[1]}"
        yield from map(_complaint, status.errors)
        if status.isLearner:
            yield _bad("is a learner and serves nobody", "name voting members, or promote it (etcdctl member promote)")
        yield _space(status.dbSize, status.dbSizeQuota)
        yield self._expiry() if self._tls is not None else self._in_the_clear(peer)
        yield self._clock()
        yield self._request_size()

    def _in_the_clear(self, peer: str) -> Finding | None:
        address = ip_address(peer.partition("%")[0])
        if address.is_loopback or (address.is_private and self._login is None):
            return None
        what = "keys and values cross" if self._login is None else "the password crosses"
        return _doubtful(f"speaks in the clear: {what} the network for all to read", "give the servers TLS")

    def _expiry(self) -> Finding | None:
        """Tell the end of the server's certificate, where it is near."""
        assert self._tls is not None
        with suppress(OSError), self._socket() as plain:
            with _context(self._tls).wrap_socket(plain, server_hostname=self._host) as secured:
                certificate = cast("dict[str, str]", secured.getpeercert() or {})
            left = ssl.cert_time_to_seconds(certificate["notAfter"]) - time()
            if left < EXPIRY_SECONDS:
                return _doubtful(f"has a certificate that expires in {left / 86_400:.1f} days", "renew it")
        return None

    def _clock(self) -> Finding | None:
        """Compare the clocks, by the date that etcd's web server sends, which has whole seconds."""
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE / 2)
            if self._tls is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=PATIENCE / 2, context=_context(self._tls))
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
        return _doubtful(f"has a clock {where}", "set both by NTP, since certificates go by them")

    def _request_size(self) -> Finding | None:
        """See, by a question that is too long to be answered, whether the server takes what this store would send."""
        if self._largest > LARGEST_PROBE:
            return None
        padded = pb.StatusRequest(padding=bytes(self._largest + GRPC_OVERHEAD))
        try:
            self._status_of(self.rpc)(padded, timeout=PATIENCE)
        except grpc.RpcError as error:
            found = re.search(r"larger than max \(\d+ vs\. (\d+)\)", error.details() or "")
            allowed = int(found[1]) - GRPC_OVERHEAD if found else self._largest
            if allowed < self._largest:
                return _bad(
                    f"takes requests of {allowed} bytes at the most, and max_request_bytes is {self._largest}",
                    f"set the option to {allowed}, or start the servers with --max-request-bytes {self._largest}",
                )
        return None

    @staticmethod
    def _status_of(rpc: Rpc) -> Any:
        return rpc._unary("Maintenance/Status", pb.StatusRequest, pb.StatusResponse)


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_cert)
    if tls.cert_cert is not None:
        context.load_cert_chain(tls.cert_cert, tls.cert_key, password=b"")  # OpenSSL would ask the terminal for one
    return context


def _unverified(error: ssl.SSLCertVerificationError, host: str) -> str:
    """Say what is wrong with a server's certificate; the numbers are OpenSSL's ``X509_V_ERR_...``."""
    match error.verify_code:
        case 9:
            return "its certificate is not yet valid -> is a clock wrong, here or where it was made?"
        case 10:
            return "its certificate has expired -> renew it, or correct the clock of this machine"
        case 62 | 64:
            return f"its certificate is for another name than {host!r} -> connect by a name that the certificate holds"
    why = f"its certificate is of an authority that is not trusted here ({error.verify_message})"
    return f"{why} -> give that authority's file as ca_cert"


def _complaint(error: str) -> Finding:
    """Turn what a member says is wrong with itself into what to do."""
    if "NOSPACE" in error:
        return _bad(
            "is out of space (alarm NOSPACE) and takes no writes",
            "compact and defragment it, or raise its --quota-backend-bytes; then etcdctl alarm disarm",
        )
    if "CORRUPT" in error:
        return _bad("has found its data corrupt (alarm CORRUPT)", "replace the member whose data differ")
    if "no leader" in error:
        return _bad("has no leader: it answers no read and takes no write", "start the members that are missing")
    return _doubtful(f"says of itself: {error}", "look at its log")


def _space(size: int, told: int) -> Finding | None:
    quota = told or DEFAULT_QUOTA
    if size < 0.8 * quota:
        return None
    assumed = "" if told else ", if its quota is the default"
    return _doubtful(
        f"has used {size / 1e6:.0f} of {quota / 1e6:.0f} MB{assumed}; when all are used it takes no writes",
        "compact and defragment it, or raise its --quota-backend-bytes",
    )


def _bad(what: str, cure: str) -> Finding:
    return "bad", f"{what} -> {cure}"


def _doubtful(what: str, cure: str) -> Finding:
    return "doubtful", f"{what} -> {cure}"


# --- the cluster ---


def _examine_cluster(members: Sequence[_Member], login: Login | None) -> Iterable[Finding]:
    """Ask what only a cluster can answer: whom it lets in, whether it has a quorum, who belongs to it."""
    if not members:
        yield _bad("etcd: none of the endpoints can be used", "see above")
        return
    if len({member.status.header.cluster_id for member in members}) > 1:
        names = ", ".join(f"{member.rpc.address} to {member.status.header.cluster_id:x}" for member in members)
        yield _bad(f"etcd: the endpoints belong to different clusters ({names})", "name the members of one")
        return
    if login is not None and not _asks_for_users(members[0].rpc, login):
        yield _doubtful(
            "etcd: a user was given, and this cluster asks for none: whoever reaches it may change every key",
            "etcdctl auth enable, or leave user and password away",
        )
    yield _let_in(members, login)
    yield from _named(members)


def _asks_for_users(rpc: Rpc, login: Login) -> bool:
    try:
        rpc.authenticate(pb.AuthenticateRequest(name=login.user, password=login.password), timeout=PATIENCE)
    except grpc.RpcError as error:
        return "authentication is not enabled" not in (error.details() or "")
    return True


def _let_in(members: Sequence[_Member], login: Login | None) -> Finding:
    """Make a read that needs a quorum, as the user."""
    connection = Connection([member.rpc for member in members], login)
    began = monotonic()
    try:
        connection.call("range", pb.RangeRequest(key=PROBE_KEY, keys_only=True), began + PATIENCE)
    except AuthenticationError as error:
        if "permission denied" not in str(error):
            if login is None:
                return _bad("etcd: the cluster wants a user", "give the options user and password")
            said = str(error).rpartition(": ")[2]
            return _bad(f"etcd: the user was refused ({said})", "correct user and password, or etcdctl user add")
    except KVStoreError as error:
        return _bad(f"etcd: a read that needs a quorum failed: {error}", "start the members that are missing")
    who = "anybody" if login is None else "the user"
    return "good", f"etcd: it lets {who} in, and a read that needs a quorum takes {(monotonic() - began) * 1000:.1f} ms"


def _named(members: Sequence[_Member]) -> Iterable[Finding]:
    """Compare the endpoints with the members that the cluster has."""
    listing = members[0].rpc._unary("Cluster/MemberList", pb.MemberListRequest, pb.MemberListResponse)
    try:
        known = [each for each in listing(pb.MemberListRequest(), timeout=PATIENCE).members if not each.isLearner]
    except grpc.RpcError:
        return  # a server may want root's token for it
    reached = {member.status.header.member_id for member in members}
    if others := [each for each in known if each.ID not in reached]:
        urls = ", ".join(url for each in others for url in each.clientURLs) or "addresses that are not known"
        yield _doubtful(
            f"etcd: the endpoints that answer are {len(reached)} of {len(known)} members; the others are at {urls}",
            "start and name all members, so that the store outlives any one of them",
        )
