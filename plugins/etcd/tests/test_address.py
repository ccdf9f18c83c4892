"""Endpoints and connection options are checked before anything is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from etcd_server import EtcdServer
from etha.kvstore.errors import ConfigError
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_etcd.address import parse_endpoints
from etha_kvstore_etcd.ranges import prefix_end

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore


@pytest.mark.parametrize(
    ("endpoint", "address", "scheme"),
    [
        ("h:1", "h:1", None),
        ("h", "h:2379", None),
        ("http://h:1/", "h:1", "http"),
        ("https://10.0.0.1", "10.0.0.1:2379", "https"),
        ("[::1]:1", "[::1]:1", None),
        ("[::1]", "[::1]:2379", None),
    ],
)
def test_an_endpoint_names_a_host_a_port_and_perhaps_a_scheme(endpoint: str, address: str, scheme: str | None) -> None:
    assert parse_endpoints([endpoint]) == ([address], scheme)


@pytest.mark.parametrize(
    "endpoint",
    ["", ":1", "h:", "h:0", "h:65536", "h:x", "::1", "ftp://h:1", "://h:1", "http://", "u:secret@h:1"],
)
def test_a_malformed_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint") as refusal:
        parse_endpoints([endpoint])
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"endpoints": []},
        {"endpoints": "h:1"},
        {"endpoints": ["http://h:1", "https://i:1"]},
        {"endpoints": ["h:1"], "host": "h"},
        {"port": 1},
        {"endpoints": ["h:1"], "user": "u"},
        {"endpoints": ["h:1"], "password": "p"},
        {"endpoints": ["http://h:1"], "ca_cert": "ca.pem"},
        {"endpoints": ["h:1"], "ca_cert": "/does/not/exist.pem"},
        {"endpoints": ["https://h:1"], "cert_cert": "c.pem"},
        {"endpoints": ["h:1"], "client": object()},
        {"endpoints": ["h:1"], "max_request_bytes": 10},
    ],
)
def test_options_that_say_too_little_or_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EtcdStore("job", "trainer", **options)


def test_host_and_port_stand_for_one_endpoint(etcd: EtcdServer, open_store: OpenStore) -> None:
    host, _, port = etcd.endpoint.rpartition(":")
    store = EtcdStore("job", "trainer", host=host, port=int(port))
    assert etcd.endpoint in repr(store)
    store.close()


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a/", b"a0"), (b"a\xff", b"b"), (b"a\xfe\xff\xff", b"a\xff"), (b"\xff\xff", b"\0"), (b"", b"\0")],
)
def test_the_end_of_a_prefix_carries(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end
