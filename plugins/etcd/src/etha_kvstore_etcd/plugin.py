"""What the etcd backend tells the core, without importing more than the core."""

from __future__ import annotations

from etha.kvstore.hookspecs import BackendSpec, Option, hookimpl

__all__ = ["SPEC", "kvstore_backend"]

SPEC = BackendSpec(
    name="etcd",
    store="etha_kvstore_etcd.store:EtcdStore",
    summary="keys in an etcd v3 cluster: waits by watch, survives restarts, TLS and users",
    contract=1,
    options=(
        Option("endpoints", list, help="the members' addresses, host:port each; https:// asks for TLS"),
        Option("host", str, help="one member's host, instead of endpoints"),
        Option("port", int, help="the port that goes with host; 2379 where it is not given"),
        # A path is no secret; the key itself, which some give in its place, is one.
        Option("ca_cert", str, help="path of the certificate authority's file (PEM); asks for TLS", secret=True),
        Option("cert_cert", str, help="path of the client's certificate (PEM), for mutual TLS", secret=True),
        Option("cert_key", str, help="path of the client's key (PEM), for mutual TLS", secret=True),
        Option("user", str, help="user name"),
        Option("password", str, help="password", secret=True),
        Option("timeout", float, default=10.0, help="operation timeout in seconds"),
        Option("connect_timeout", float, default=30.0, help="how long the opening waits for a server, in seconds"),
        Option("max_request_bytes", int, default=1_572_864, help="the server's --max-request-bytes"),
        Option("lease_ttl", int, help="seconds after which the keys of a killed process are deleted; off if not given"),
        Option("grpc_options", object, help="more gRPC channel arguments, name to value"),
        Option("client", object, help="an etcd3 client, whose channel is used; instead of all the above but timeouts"),
    ),
    capabilities=frozenset({"list_keys", "watch", "waits_by_pattern", "cleanup", "outlives_server"}),
    diagnose="etha_kvstore_etcd.diagnose:diagnose",
)


@hookimpl
def kvstore_backend() -> BackendSpec:
    """Offer the etcd backend."""
    return SPEC
