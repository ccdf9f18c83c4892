"""`close(cleanup=True)` deletes what this store wrote and nobody has overwritten, and nothing else."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer
from etha_kvstore_etcd import EtcdStore

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore


@pytest.fixture
def observer(etcd: EtcdServer, open_store: OpenStore) -> EtcdStore:
    return open_store(etcd.endpoint)


def test_it_deletes_the_keys_that_this_store_wrote_in_every_component(
    etcd: EtcdServer, open_store: OpenStore, observer: EtcdStore
) -> None:
    store = open_store(etcd.endpoint)
    for number in range(250):  # more than two transactions hold
        store.set(f"key-{number}", "value")
    store.set_bytes("blob", b"\0", component="elsewhere")
    store.close()
    assert observer.list_keys() == []
    assert observer.list_keys(component="elsewhere") == []


def test_it_leaves_what_others_wrote_and_what_others_overwrote(
    etcd: EtcdServer, open_store: OpenStore, observer: EtcdStore
) -> None:
    store = open_store(etcd.endpoint)
    store.set("mine", "1")
    store.set("taken", "1")
    observer.set("taken", "1")  # the same value, but another process's write
    observer.set("theirs", "1")
    store.close()
    assert observer.list_keys() == ["taken", "theirs"]


def test_it_leaves_a_key_that_was_deleted_and_written_again_by_another(
    etcd: EtcdServer, open_store: OpenStore, observer: EtcdStore
) -> None:
    store = open_store(etcd.endpoint)
    store.set("key", "1")
    store.delete("key")
    observer.set("key", "2")
    store.close()
    assert observer.get("key") == b"2"


def test_without_cleanup_the_keys_stay(etcd: EtcdServer, open_store: OpenStore, observer: EtcdStore) -> None:
    store = open_store(etcd.endpoint)
    store.set("key", "1")
    store.close(cleanup=False)
    assert observer.get("key") == b"1"


def test_a_server_that_is_away_is_logged_and_not_raised(
    own_etcd: EtcdServer, open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(own_etcd.endpoint, timeout=0.5)
    store.set("key", "1")
    own_etcd.kill()
    with caplog.at_level(logging.WARNING, logger="etha.kvstore"):
        store.close()
    assert "1 keys of this store were left behind" in caplog.text


def test_it_leaves_what_others_wrote_into_a_server_whose_data_were_wiped(
    own_etcd: EtcdServer, open_store: OpenStore
) -> None:
    store = open_store(own_etcd.endpoint, timeout=20.0)
    store.set("key", "ours")
    own_etcd.kill()
    own_etcd.wipe()
    own_etcd.start()
    stranger = open_store(own_etcd.endpoint, timeout=20.0)
    stranger.set("key", "theirs")  # the first write of a new history has the revision that ours had
    store.close()
    assert stranger.get("key") == b"theirs"
