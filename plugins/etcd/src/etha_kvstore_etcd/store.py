"""`EtcdStore`: the contract on an etcd v3 cluster."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Any

import grpc

from etha.kvstore import keys
from etha.kvstore.errors import (
    AuthenticationError,
    ConfigError,
    KVStoreError,
    OperationTimeoutError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from etha.kvstore.follow import Follower, Selector
from etha.kvstore.skeleton import SkeletalStore
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.address import Tls, connect, parse_endpoints
from etha_kvstore_etcd.connection import Backoff, Connection, Login
from etha_kvstore_etcd.failures import LeaseLostError
from etha_kvstore_etcd.following import EtcdFollower
from etha_kvstore_etcd.lease import LONGEST_TTL, Leases
from etha_kvstore_etcd.plugin import SPEC
from etha_kvstore_etcd.ranges import is_key, list_range
from etha_kvstore_etcd.rpc import Rpc
from etha_kvstore_etcd.watching import WatchStream
from etha_kvstore_etcd.written import Written, delete_unchanged

__all__ = ["EtcdStore"]

log = logging.getLogger("etha.kvstore")

REQUEST_OVERHEAD = 16_384
"""What a request holds beside the value, at the most: the key, written and compared, and the framing."""

WRITE_SHARE = 2 / 3
"""Which part of its time a write waits for its reply; the rest is for finding out what became of it."""

_WITHOUT_LEASES = nullcontext()


class EtcdStore(SkeletalStore):
    """A store whose keys live in an etcd v3 cluster.

    Every wait reads its keys at one revision and watches from the next, on one stream a store. A server that goes away
    in mid-wait is ridden out. A write whose reply is lost is looked for, and never sent a second time.

    Parameters
    ----------
    namespace, component : str
        As `KVStore`.
    endpoints : list of str, optional
        The members, ``host:port`` each; ``https://host:port`` asks for TLS.
    host, port : str and int, optional
        One member, instead of `endpoints`; the port is 2379 where it is not given.
    ca_cert, cert_cert, cert_key : str, optional
        Paths of PEM files: the authority that signed the servers' certificates, and the client's own certificate and
        key for mutual TLS. Any of them, or an ``https`` endpoint, turns TLS on.
    user, password : str, optional
        The user, where the cluster wants one. The token is renewed when it expires.
    timeout : float
        The operation timeout, in seconds.
    connect_timeout : float
        How long to wait for a server at the opening, in seconds.
    max_request_bytes : int
        The servers' ``--max-request-bytes``. A value may be 16 KiB smaller.
    lease_ttl : int, optional
        Ties every key that the store writes to its life: when the process is killed, the servers delete them after so
        many seconds. A thread renews that at a third of the time. If the process stands still or is cut off for longer,
        the keys that were still this store's are written again before any other call is made. Closing ends it, so with
        ``cleanup=False`` the keys stay for this time and no longer. Off where it is not given.
    grpc_options : mapping or sequence of pairs, optional
        More gRPC channel arguments, which win over this plugin's own.
    client : etcd3.Etcd3Client, optional
        A client of the package ``etcd3``, on whose channel and with whose token the store runs. It stays open when the
        store is closed. Such a client can't renew its token: give `user` and `password` as well where users are on.

    Raises
    ------
    ConfigError
        If the options contradict each other, or don't say where etcd is.
    StoreUnavailableError
        If no member answered within `connect_timeout`.
    AuthenticationError
        If the servers refused the certificates, the user or the password.

    Examples
    --------
    >>> with EtcdStore("job-42", "trainer", endpoints=[ENDPOINT]) as store:
    ...     store.set("ready", "1")
    ...     store.wait_for_value("ready", "1", timeout=60)
    b'1'
    """

    spec = SPEC

    def __init__(
        self,
        namespace: str,
        component: str,
        *,
        endpoints: Sequence[str] | None = None,
        host: str | None = None,
        port: int | None = None,
        ca_cert: str | None = None,
        cert_cert: str | None = None,
        cert_key: str | None = None,
        user: str | None = None,
        password: str | None = None,
        timeout: float = 10.0,
        connect_timeout: float = 30.0,
        max_request_bytes: int = 1_572_864,
        lease_ttl: int | None = None,
        grpc_options: Mapping[str, object] | Sequence[tuple[str, object]] | None = None,
        client: Any = None,
    ) -> None:
        super().__init__(namespace, component, timeout=timeout)
        if not connect_timeout > 0:
            raise ConfigError(f"connect_timeout is a positive number of seconds, not {connect_timeout!r}")
        self._value_limit = max_request_bytes - REQUEST_OVERHEAD
        if self._value_limit <= 0:
            raise ConfigError(f"max_request_bytes={max_request_bytes} leaves no room for a value")
        if lease_ttl is not None and not (type(lease_ttl) is int and 0 < lease_ttl <= LONGEST_TTL):
            raise ConfigError(f"lease_ttl is a whole number of seconds from 1 to {LONGEST_TTL}, not {lease_ttl!r}")
        if (user is None) != (password is None):
            raise ConfigError("backend 'etcd' takes both user and password, or neither")
        if host is not None and endpoints is not None:
            raise ConfigError("backend 'etcd' takes endpoints, or host and port, not both")
        if port is not None and host is None:
            raise ConfigError("backend 'etcd' got a port without a host")
        tls = Tls(ca_cert, cert_cert, cert_key)
        login = None if user is None or password is None else Login(user, password)
        if client is not None:
            if any(option is not None for option in (endpoints, host, *tls, grpc_options)):
                raise ConfigError("backend 'etcd' takes a client, or what it takes to make a connection, not both")
            self._addresses = ["the channel of an etcd3 client"]
            members = [Rpc(client.channel, self._addresses[0], owned=False)]
            self._connection = Connection(members, login, tuple(client.metadata or ()))
        else:
            if host is not None:
                endpoints = [f"{host}:{port or 2379}"]
            self._addresses, scheme = parse_endpoints(endpoints or ())
            if scheme == "http" and any(tls):
                raise ConfigError("certificates were given for endpoints that say http; write https")
            secure = scheme == "https" or any(tls)
            members = connect(self._addresses, tls if secure else None, dict(grpc_options or {}))
            self._connection = Connection(members, login)
        self._stream = WatchStream(self._connection)
        self._written = Written(whole=lease_ttl is not None)
        self._leases: Leases | None = None
        if lease_ttl is not None:
            self._leases = Leases(self._connection, lease_ttl, self._written)
            self._connection.assure = self._leases.assure
            weakref.finalize(self, self._leases.stop).atexit = False
        try:
            self._open(connect_timeout)
        except BaseException:
            self._connection.close()
            raise

    def _open(self, connect_timeout: float) -> None:
        """Make one round trip, as soon as a member answers."""
        probe = pb.RangeRequest(key=keys.prefix(self.namespace, self.component), count_only=True)
        try:
            self._connection.call("range", probe, monotonic() + connect_timeout)
        except (OperationTimeoutError, StoreUnavailableError) as error:
            raise StoreUnavailableError(
                f"no etcd answered at {self._where()} within {connect_timeout:g} s: {error}"
            ) from error
        except AuthenticationError as error:
            cause = error.__cause__
            if not (isinstance(cause, grpc.RpcError) and cause.code() is grpc.StatusCode.PERMISSION_DENIED):
                raise
            log.debug("the user may not read %r; that may be all right", probe.key)

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        kvs = self._connection.call("range", pb.RangeRequest(key=key), deadline).kvs
        return kvs[0].value if kvs else None

    def _exists(self, key: bytes, deadline: float) -> bool:
        return bool(self._connection.call("range", pb.RangeRequest(key=key, count_only=True), deadline).count)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        if len(value) > self._value_limit:
            raise self._refuse_size(key, len(value), self._value_limit)
        known = self._connection.revision
        while True:
            lease = self._leases.claim(key, deadline) if self._leases else 0
            try:
                with self._changing(deadline):
                    newer = self._put(key, value, known, lease, deadline)
            except LeaseLostError:
                assert self._leases is not None  # which other lease is there?
                self._leases.lose(lease)
                continue
            if newer is None:
                return
            known = newer

    def _put(self, key: bytes, value: bytes, known: int, lease: int, deadline: float) -> int | None:
        """Write a key unless somebody has since a revision; where somebody has, give a newer revision."""
        request = pb.TxnRequest()
        # Guarded, so that a request which comes late does nothing while the key is there at a newer revision.
        request.compare.add(result=pb.Compare.LESS, target=pb.Compare.MOD, key=key, mod_revision=known + 1)
        put = request.success.add().request_put
        put.key, put.value, put.lease = key, value, lease
        try:
            reply = self._connection.call("txn", request, deadline, repeat=False, share=WRITE_SHARE, assured=False)
        except OutcomeUnknownError as unknown:
            found = self._look_for(key, value, known, lease, deadline)
            if lease and found:
                self._written.record(key, found, value, lease)
            elif lease:  # neither this value nor the one before it may be written again
                self._written.forget(key, math.inf)
            if not found:
                raise self._unknown("set", key, unknown) from unknown.__cause__
            return None
        if not reply.succeeded:
            return int(reply.header.revision)
        self._written.record(key, reply.header.revision, value, lease)
        return None

    def _remove(self, key: bytes, deadline: float) -> bool:
        request = pb.DeleteRangeRequest(key=key)
        if self._leases:
            self._leases.assure(deadline)
        with self._changing(deadline):
            try:
                reply = self._connection.call("delete_range", request, deadline, repeat=False, assured=False)
            except OutcomeUnknownError as unknown:
                if self._leases:  # it may be about to go, and must not be written again then
                    self._written.forget(key, math.inf)
                raise self._unknown("delete", key, unknown) from unknown.__cause__
            self._written.forget(key, reply.header.revision)
            if self._leases:
                self._leases.release(key)
        return bool(reply.deleted)

    def _changing(self, deadline: float) -> AbstractContextManager[None]:
        return self._leases.changing(deadline) if self._leases else _WITHOUT_LEASES

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        kvs, _ = list_range(self._connection, prefix, deadline)
        return [(kv.key, kv.value) for kv in kvs if is_key(kv.key)]

    def _list(self, prefix: bytes, deadline: float) -> Iterable[bytes]:
        kvs, _ = list_range(self._connection, prefix, deadline, keys_only=True)
        return [kv.key for kv in kvs if is_key(kv.key)]

    def _follow(self, selector: Selector) -> Follower:
        return EtcdFollower(self._connection, self._stream, selector, self.timeout)

    def _release(self, cleanup: bool, deadline: float) -> None:
        if self._leases:
            self._leases.stop()
        try:
            if cleanup:
                self._clean_up(deadline)
        finally:
            self._connection.closed.set()
            self._stream.close(deadline)
            self._connection.close()

    def _where(self) -> str:
        return ",".join(self._addresses)

    def _look_for(self, key: bytes, value: bytes, known: int, lease: int, deadline: float) -> int:
        """Look, until the deadline, whether a write whose reply was lost has taken effect; give its revision, or zero.

        The value at a revision newer than the call, under this store's lease where it has one, is taken for it. Without
        leases another process may have written the same at that moment, so the key does not count as this store's, and
        cleaning up leaves it alone.
        """
        backoff = Backoff(self._connection.closed)
        request = pb.RangeRequest(key=key)
        while True:
            try:
                kvs = self._connection.call("range", request, deadline, assured=False).kvs
            except KVStoreError:  # a user who may not read included
                return 0
            if kvs and kvs[0].mod_revision > known:
                return int(kvs[0].mod_revision) if (kvs[0].value, kvs[0].lease) == (value, lease) else 0
            if monotonic() >= deadline:
                return 0
            backoff.pause(deadline)

    def _unknown(self, verb: str, key: bytes, unknown: OutcomeUnknownError) -> OutcomeUnknownError:
        return OutcomeUnknownError(f"{verb}({keys.split(key)[2]!r}): {unknown}; read the key to find out")

    def _clean_up(self, deadline: float) -> None:
        """Delete the keys that this store wrote, each only if its last write is still this store's."""
        written = self._written.items()
        try:
            if self._leases:
                self._leases.revoke(deadline)
            else:
                delete_unchanged(self._connection, written, deadline)
        except KVStoreError as error:
            log.warning("%d keys of this store were left behind in etcd: %s", len(written), error)
