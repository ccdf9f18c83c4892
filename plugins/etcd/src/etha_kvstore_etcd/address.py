"""Where etcd is and how to get there: endpoints, TLS and channel arguments, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import grpc
from grpc.experimental import ChannelOptions

from etha.kvstore.errors import ConfigError
from etha_kvstore_etcd.rpc import Rpc

__all__ = ["Tls", "connect", "parse_endpoints"]

DEFAULT_PORT = 2379

CHANNEL_OPTIONS: Mapping[str, object] = {
    # Each store has a connection of its own, so that one store's trouble is not another's.
    "grpc.use_local_subchannel_pool": 1,
    # etcd answers pings that come no faster than every 5 s and only while a stream is open.
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
    # Recent gRPC times every ping by this, a minute where it is not given, and none by the one above.
    "grpc.http2.ping_timeout_ms": 5_000,
    "grpc.http2.max_pings_without_data": 0,
    # How long one attempt to connect may take: a frozen server's kernel accepts, and its handshake never ends.
    "grpc.min_reconnect_backoff_ms": 2_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    # A listing may be larger than gRPC's default of 4 MiB; the server limits what it takes.
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    # A cluster's coordination traffic has no business with the proxy that the environment names for the web.
    "grpc.enable_http_proxy": 0,
    # The thread that wants a reply is the one that reads it: see `Rpc`.
    ChannelOptions.SingleThreadedUnaryStream: 1,
}


class Tls(NamedTuple):
    """The files of a TLS connection, as paths; none of them for the system's own authorities."""

    ca_cert: str | None = None
    cert_cert: str | None = None
    cert_key: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files."""
        if (self.cert_cert is None) != (self.cert_key is None):
            raise ConfigError("mutual TLS takes both cert_cert and cert_key")
        return grpc.ssl_channel_credentials(
            root_certificates=_read("ca_cert", self.ca_cert),
            private_key=_read("cert_key", self.cert_key),
            certificate_chain=_read("cert_cert", self.cert_cert),
        )


def parse_endpoints(endpoints: Iterable[str]) -> tuple[list[str], str | None]:
    """Check endpoints.

    Parameters
    ----------
    endpoints : iterable of str
        ``host:port``, ``http://host:port`` or ``https://host:port`` each; the port is 2379 where there is none.

    Returns
    -------
    addresses : list of str
        ``host:port`` each.
    scheme : str or None
        ``"http"`` or ``"https"``, where they say so.

    Raises
    ------
    ConfigError
        If there is none, or one is malformed, or their schemes differ.

    Examples
    --------
    >>> parse_endpoints(["https://10.0.0.1:2379", "https://[::1]"])
    (['10.0.0.1:2379', '[::1]:2379'], 'https')
    """
    if isinstance(endpoints, str):
        raise ConfigError("option 'endpoints' of backend 'etcd' is a list of str, not one str")
    addresses, schemes = [], set()
    for endpoint in endpoints:
        if "@" in endpoint:  # not shown: what stands before it may be a password
            raise ConfigError("an endpoint holds no user or password; give them as the options user and password")
        scheme, separator, address = endpoint.rpartition("://")
        address = address.rstrip("/")
        host, colon, port = address.rpartition(":")
        if not colon or address.endswith("]"):
            host, port = address, str(DEFAULT_PORT)
        bracketed = host.startswith("[") and host.endswith("]")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in host and not bracketed):
            raise ConfigError(f"endpoint {endpoint!r} is not of the form host:port")
        if scheme not in ("", "http", "https") or (separator and not scheme):
            raise ConfigError(f"endpoint {endpoint!r} has another scheme than http or https")
        addresses.append(f"{host}:{port}")
        schemes.add(scheme)
    if not addresses:
        raise ConfigError("backend 'etcd' needs to know where etcd is: give endpoints, or host and port")
    if len(schemes) > 1:
        raise ConfigError("some endpoints say http and some https; a store uses one of the two")
    return addresses, schemes.pop() or None


def connect(addresses: Iterable[str], tls: Tls | None, grpc_options: Mapping[str, object]) -> list[Rpc]:
    """Make a channel for each address; none of them connects before it is used.

    Parameters
    ----------
    addresses : iterable of str
        ``host:port`` each.
    tls : Tls, optional
        The certificates; without them the connection is in the clear.
    grpc_options : mapping
        Channel arguments, which win over this module's own.

    Returns
    -------
    list of Rpc
        One each.
    """
    options = list({**CHANNEL_OPTIONS, **grpc_options}.items())
    if tls is None:
        return [Rpc(grpc.insecure_channel(address, options), address) for address in addresses]
    credentials = tls.credentials()
    return [Rpc(grpc.secure_channel(address, credentials, options), address) for address in addresses]


def _read(option: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    if "-----BEGIN" in str(path):  # not shown: it may be a key
        raise ConfigError(f"option {option!r} is the path of a PEM file, and what was given is the contents of one")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"option {option!r}: {path} can't be read: {error.strerror or error}") from error
