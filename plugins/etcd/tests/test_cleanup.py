"""`close(cleanup=True)` deletes what this store wrote and nobody has overwritten, and nothing else."""

from __future__ import annotations

import logging
import subprocess
import sys
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


@pytest.mark.security
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


@pytest.mark.security
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


@pytest.mark.security
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


ANOTHER_PROCESS = """
import sys
from etha_kvstore_etcd import EtcdStore

store = EtcdStore(sys.argv[2], "trainer", endpoints=[sys.argv[1]])
store.set("theirs", "1")
store.set("taken", "1")
store.close(cleanup=False)
"""


@pytest.mark.security
def test_it_leaves_the_keys_of_another_process_in_the_same_component(
    etcd: EtcdServer, open_store: OpenStore, observer: EtcdStore
) -> None:
    store = open_store(etcd.endpoint)
    store.set("mine", "1")
    store.set("taken", "1")
    subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, etcd.endpoint, store.namespace], check=True)
    store.close()
    assert observer.list_keys() == ["taken", "theirs"]


@pytest.mark.security
@pytest.mark.parametrize("lease_ttl", [None, 60])
def test_it_leaves_every_key_whose_name_merely_begins_or_ends_like_one_of_its_own(
    own_etcd: EtcdServer, open_store: OpenStore, lease_ttl: int | None
) -> None:
    store = open_store(own_etcd.endpoint, component="c", lease_ttl=lease_ttl)
    own, beside = f"{store.namespace}/c/", store.namespace + "0"
    neighbours = [f"{beside}/c/key", f"{store.namespace}/c0/key", f"{own}key0", f"{own}key/", f"{own}ke"]
    own_etcd.ctl("txn", reading="\n" + "".join(f"put {neighbour} theirs\n" for neighbour in neighbours) + "\n\n")
    ours = ["key", f"../../{beside}/c/key", "../c0/key", "/", "*"]
    for key in ours:
        store.set(key, "ours")
    held = dict.fromkeys(neighbours, "theirs")
    assert all_of(own_etcd) == held | {own + key: "ours" for key in ours}
    store.close()
    assert all_of(own_etcd) == held


def all_of(etcd: EtcdServer) -> dict[str, str]:
    """All keys of an etcd and their values."""
    lines = etcd.ctl("get", "--prefix", "").splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))
