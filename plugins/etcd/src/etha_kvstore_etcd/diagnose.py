"""What only etcd can tell of a trouble: each endpoint is examined apart, then the cluster that those make which answer.

A message that is not good says after an arrow what to do next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, cast

from etha.kvstore.errors import KVStoreError
from etha.kvstore.options import check_options
from etha_kvstore_etcd.address import Tls, connect, parse_endpoints
from etha_kvstore_etcd.connection import Login
from etha_kvstore_etcd.diagnose_cluster import examine_cluster
from etha_kvstore_etcd.diagnose_member import LARGEST_PROBE, LONGEST, Member
from etha_kvstore_etcd.finding import Finding, bad, doubtful
from etha_kvstore_etcd.plugin import SPEC

__all__ = ["diagnose"]

DEFAULT_REQUEST_BYTES = next(option.default for option in SPEC.options if option.name == "max_request_bytes")


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
    ['bad']
    """
    try:
        wanted = cast("dict[str, Any]", check_options(SPEC, options))
        if wanted.get("client") is not None:
            return [doubtful("etcd: a client's channel is not examined", "give the endpoints that it has instead")]
        return _diagnose(wanted)
    except (KVStoreError, TypeError, ValueError) as error:
        return [bad(f"etcd: {error}", "correct that option")]


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
    members = [Member(rpc, secure, has_login=login is not None, largest=largest) for rpc in rpcs]
    try:
        _examine_all(members)
        cluster = list(examine_cluster([member for member in members if member.status is not None], login))
        usable = any(level == "good" for level, _ in cluster)
        findings = [finding for member in members for finding in member.tell(usable=usable)]
        if largest > LARGEST_PROBE:
            what = f"etcd: max_request_bytes={largest}, and etcd is made for small values"
            findings.append(doubtful(what, f"keep it to {LARGEST_PROBE} at the most"))
        return findings + cluster
    finally:
        for rpc in rpcs:
            rpc.close()


def _examine_all(members: Sequence[Member]) -> None:
    """Examine members at the same time; a name service that hangs must hold up nobody, so no thread is waited for."""
    threads = [threading.Thread(target=member.examine, daemon=True) for member in members]
    for thread in threads:
        thread.start()
    deadline = monotonic() + LONGEST
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
