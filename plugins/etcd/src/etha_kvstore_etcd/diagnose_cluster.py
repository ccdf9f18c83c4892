"""What a diagnosis finds of the cluster that the members make: its alarms, whom it lets in, its quorum, who belongs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic

import grpc

from etha.kvstore.errors import AuthenticationError, KVStoreError
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.connection import Connection, Login
from etha_kvstore_etcd.diagnose_member import Member
from etha_kvstore_etcd.diagnose_network import PATIENCE
from etha_kvstore_etcd.finding import Finding, bad, doubtful
from etha_kvstore_etcd.rpc import Rpc

__all__ = ["examine_cluster"]

PROBE_KEY = b"etha-kvstore:probe"
"""A key that never exists. It has no ``/``, so it is nobody's full key."""

ALARM = re.compile(r"(?:memberID:(\d+) )?alarm:(\w+)")
"""How a member's status tells of one."""

ALARMS = {
    "NOSPACE": (
        "is out of space",
        "compact and defragment it, or raise its --quota-backend-bytes; then etcdctl alarm disarm",
    ),
    "CORRUPT": (
        "holds other data than the rest",
        "find it with etcdctl endpoint hashkv --cluster, remove it, add it with no data; then etcdctl alarm disarm",
    ),
}
"""What each means, and what to do."""


def examine_cluster(members: Sequence[Member], login: Login | None) -> Iterator[Finding]:
    """Ask what only a cluster can answer.

    Parameters
    ----------
    members : sequence of Member
        Those that answer.
    login : Login, optional
        The user.

    Yields
    ------
    (str, str)
        Level and message; one is good where the cluster can be used.
    """
    if not members:
        return
    if len({member.status.header.cluster_id for member in members}) > 1:
        names = ", ".join(f"{member.rpc.address} to {member.status.header.cluster_id:x}" for member in members)
        yield bad(f"etcd: the endpoints belong to different clusters ({names})", "name the members of one")
        return
    yield from _alarms(members)
    if login is not None and not _asks_for_users(members[0].rpc, login):
        yield doubtful(
            "etcd: a user was given, and this cluster asks for none: whoever reaches it may change every key",
            "etcdctl auth enable, or leave user and password away",
        )
    yield _let_in(members, login)
    yield from _named(members)


def _alarms(members: Sequence[Member]) -> Iterable[Finding]:
    """Tell of each alarm once; one of any member has all of them refuse writes."""
    addresses = {str(member.status.header.member_id): member.rpc.address for member in members}
    told = {error for member in members for error in member.status.errors}
    for number, alarm in sorted(match.groups("") for error in told if (match := ALARM.search(error))):
        # CORRUPT may come without a number: the members differ, and none can say which of them is right.
        who = f"the member at {addresses[number]}" if number in addresses else f"a member {number}".rstrip()
        what, cure = ALARMS.get(alarm, ("has raised an alarm", "look at its log"))
        yield bad(f"etcd: {who} {what} (alarm {alarm}), and the cluster takes no writes", cure)


def _asks_for_users(rpc: Rpc, login: Login) -> bool:
    try:
        rpc.authenticate(pb.AuthenticateRequest(name=login.user, password=login.password), timeout=PATIENCE)
    except grpc.RpcError as error:
        return "authentication is not enabled" not in (error.details() or "")
    return True


def _let_in(members: Sequence[Member], login: Login | None) -> Finding:
    """Make a read that needs a quorum, as the user."""
    connection = Connection([member.rpc for member in members], login)
    began = monotonic()
    try:
        connection.call("range", pb.RangeRequest(key=PROBE_KEY, keys_only=True), began + PATIENCE)
    except AuthenticationError as error:
        if "permission denied" not in str(error):
            if login is None:
                return bad("etcd: the cluster wants a user", "give the options user and password")
            said = str(error).rpartition(": ")[2]
            return bad(f"etcd: the user was refused ({said})", "correct user and password, or etcdctl user add")
    except KVStoreError as error:
        return bad(f"etcd: a read that needs a quorum failed: {error}", "start the members that are missing")
    who = "anybody" if login is None else "the user"
    return "good", f"etcd: it lets {who} in, and a read that needs a quorum takes {(monotonic() - began) * 1000:.1f} ms"


def _named(members: Sequence[Member]) -> Iterable[Finding]:
    """Compare the endpoints with the members that the cluster has."""
    try:
        listed = members[0].rpc.member_list(pb.MemberListRequest(), timeout=PATIENCE).members
    except grpc.RpcError:
        return  # a server may want root's token for it
    known = [each for each in listed if not each.isLearner]
    reached = {member.status.header.member_id for member in members}
    if others := [each for each in known if each.ID not in reached]:
        urls = ", ".join(url for each in others for url in each.clientURLs) or "addresses that are not known"
        yield doubtful(
            f"etcd: the endpoints that answer are {len(reached)} of {len(known)} members; the others are at {urls}",
            "start and name all members, so that the store outlives any one of them",
        )
