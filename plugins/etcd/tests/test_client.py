"""A store on the channel of an etcd3 client: it works as any other, and leaves the client open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from etcd_server import EtcdServer
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_etcd.etcd3_compat import import_etcd3


@pytest.fixture
def client(etcd: EtcdServer) -> Iterator[Any]:
    host, _, port = etcd.endpoint.rpartition(":")
    client = import_etcd3().client(host=host, port=int(port))
    yield client
    client.channel.close()


def test_a_store_and_the_client_share_a_channel_and_its_keys(client: Any) -> None:
    with EtcdStore("job", "shared", client=client) as store:
        store.set("key", "value")
        assert client.get("job/shared/key")[0] == b"value"
        client.put("job/shared/other", "1")
        assert store.wait_for_keys("*", 1, timeout=10) == ["other"]


def test_closing_the_store_cleans_up_and_leaves_the_client_open(client: Any) -> None:
    store = EtcdStore("job", "shared", client=client)
    store.set("key", "value")
    store.close()
    assert client.get("job/shared/key")[0] is None
