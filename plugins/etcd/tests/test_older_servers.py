"""The etcd that users still run: what 3.4 does otherwise than 3.5, where that etcd can be had."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer, crash_etcd
from etha.kvstore import Change
from etha.kvstore.errors import AuthenticationError
from etha_kvstore_etcd.following import EtcdFollower
from etha_kvstore_testkit.observe import takes
from tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore


@pytest.fixture
def older() -> Iterator[EtcdServer]:
    with EtcdServer("--auth-token-ttl", "3", binary=crash_etcd()) as server:
        yield server


def test_a_watch_that_is_refused_without_its_number_ends_the_wait_that_asked_for_it_and_no_other(
    older: EtcdServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        "user add root:root-password",
        "role add root",
        "user grant-role root root",
        "user add worker:worker-password",
        "role add jobs",
        "role grant-permission jobs --prefix=true readwrite job",
        "user grant-role worker jobs",
        "auth enable",
    ):
        older.ctl(*command.split())
    store = open_store(older.endpoint, user="worker", password="worker-password")
    kept = f"{store.namespace}/trainer/kept"
    add = store._stream.add

    def add_late(follower: EtcdFollower) -> None:
        """Between the reading and the watch, the role shrinks to one key."""
        root = ("--user", "root:root-password", "role")
        older.ctl(*root, "grant-permission", "jobs", "readwrite", kept)
        older.ctl(*root, "revoke-permission", "jobs", "job", "--prefix=true")
        add(follower)

    with ThreadPoolExecutor(1) as pool, store.watch("kept") as changes:
        store.set("kept", "0")
        assert changes.next(10) == Change("kept", b"0")
        waiting = pool.submit(store.wait_for_value, "kept", "1", 60)
        with pytest.raises(TimeoutError):
            store.wait_for_value("kept", "1", 0.3)  # longer than the other took to be under way
        monkeypatch.setattr(store._stream, "add", add_late)
        # Sooner than the check that a store makes every 10 s.
        with takes(at_most=6.0), pytest.raises(AuthenticationError, match="permission denied"):
            store.wait_for_key("not allowed", 60)
        store.set("kept", "1")
        assert waiting.result(60) == b"1"
        assert changes.next(10) == Change("kept", b"1")


def test_a_stream_that_resumes_gives_no_change_twice(older: EtcdServer, open_store: OpenStore) -> None:
    writer = open_store(older.endpoint)
    with TcpProxy(older.endpoint) as proxy:
        store = open_store(proxy.address)
        with store.watch() as changes:
            seen = []
            for number in range(60):
                writer.set("key", str(number))
                if number % 20 == 10:
                    seen.append(changes.next(30))
                    proxy.reset()
            while len(seen) < 60:
                seen.append(changes.next(30))
            assert seen == [Change("key", str(number).encode()) for number in range(60)]
        store.close()
