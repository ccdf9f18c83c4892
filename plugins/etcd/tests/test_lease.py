"""`lease_ttl`: the keys of a killed process go, those of a living one stay or come back before anything is claimed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import TYPE_CHECKING, Any

import pytest

from etcd_server import EtcdCluster, EtcdServer
from etha.kvstore import Change
from etha.kvstore import open_store as open_by_name
from etha.kvstore.errors import (
    ConfigError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreFullError,
    WaitTimeoutError,
)
from etha_kvstore_etcd import EtcdStore
from tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore

TTL = 1
"""Seconds."""

LONGER_TTL = 3
"""Seconds: for a lease that must not run out although the machine is busy with other things."""

PATIENCE = 60.0

QUICK = ("--heartbeat-interval", "10", "--election-timeout", "100")
"""The shortest lease that a server grants is one and a half times its election timeout."""

RANK = """
import sys
from etha_kvstore_etcd import EtcdStore

endpoint, namespace, ttl = sys.argv[1:]
with EtcdStore(namespace, "trainer", endpoints=[endpoint], lease_ttl=int(ttl)) as store:
    store.set("rank", "ready")
    print("ready", flush=True)
    for line in sys.stdin:
        print(store.exists("rank"), flush=True)
"""


@pytest.fixture(scope="module")
def quick() -> Iterator[EtcdServer]:
    """A server that grants leases of a second; tests share it, each in a namespace of its own."""
    with EtcdServer(*QUICK) as server:
        yield server


@pytest.fixture
def observer(quick: EtcdServer, open_store: OpenStore) -> EtcdStore:
    return open_store(quick.endpoint)


@pytest.fixture
def store(quick: EtcdServer, open_store: OpenStore) -> EtcdStore:
    return open_store(quick.endpoint, lease_ttl=TTL)


@contextmanager
def rank(server: EtcdServer, observer: EtcdStore) -> Iterator[subprocess.Popen[str]]:
    """A process that has published that it is ready, and looks at its own key for each line that it is given."""
    command = [sys.executable, "-c", RANK, server.endpoint, observer.namespace, str(TTL)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def await_absence(observer: EtcdStore, key: str, component: str | None = None) -> None:
    with observer.watch(key, component=component) as changes:
        if key in changes.state:
            assert changes.next(PATIENCE) == Change(key, None)


def outlive_a_lease(server: EtcdServer, observer: EtcdStore, ttl: int = TTL) -> None:
    """Wait until a lease of the same time, which nobody renews, has run out."""
    lease = f"{json.loads(server.ctl('lease', 'grant', str(ttl), '--write-out', 'json'))['ID']:x}"
    server.ctl("put", f"{observer.namespace}/elsewhere/reference", "", "--lease", lease)
    await_absence(observer, "reference", "elsewhere")


def leases(server: EtcdServer, namespace: str) -> dict[str, list[str]]:
    """The leases that hold keys of a namespace, with these keys."""
    listed = json.loads(server.ctl("lease", "list", "--write-out", "json")).get("leases", [])
    held = {}
    for lease in (f"{each['id']:x}" for each in listed):
        told = json.loads(server.ctl("lease", "timetolive", lease, "--keys", "--write-out", "json"))
        keys = [base64.b64decode(key).decode() for key in told.get("keys") or ()]
        if any(key.startswith(f"{namespace}/") for key in keys):
            held[lease] = keys
    return held


def lose_lease(server: EtcdServer, namespace: str) -> None:
    for lease in leases(server, namespace):
        server.ctl("lease", "revoke", lease)


def test_the_keys_of_a_killed_process_go_and_the_others_stay(
    quick: EtcdServer, observer: EtcdStore, store: EtcdStore
) -> None:
    observer.set("unleased", "1")
    store.set("living", "1")
    with rank(quick, observer) as process:
        process.send_signal(SIGKILL)
        await_absence(observer, "rank")
    assert observer.list_keys() == ["living", "unleased"]


def test_a_living_process_keeps_its_keys(quick: EtcdServer, observer: EtcdStore, open_store: OpenStore) -> None:
    store = open_store(quick.endpoint, lease_ttl=LONGER_TTL)
    store.set("key", "value")
    with observer.watch() as changes:
        for _ in range(2):
            outlive_a_lease(quick, observer, LONGER_TTL)
        with pytest.raises(TimeoutError):
            changes.next(0)
    assert observer.get("key") == b"value"


def test_a_process_that_stood_still_for_too_long_has_its_keys_again_before_it_says_anything_of_them(
    quick: EtcdServer, observer: EtcdStore
) -> None:
    with rank(quick, observer) as process:
        process.send_signal(SIGSTOP)
        await_absence(observer, "rank")
        process.send_signal(SIGCONT)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True\n"
        assert observer.get("rank") == b"ready"


def test_a_process_that_was_cut_off_for_too_long_writes_its_keys_again(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore
) -> None:
    with TcpProxy(quick.endpoint) as proxy:
        store = open_store(proxy.address, lease_ttl=TTL)
        values = {"small": b"1", "empty": b"", "large": bytes(100_000), "overwritten": b"2"}
        store.set("overwritten", "1")
        for key, value in values.items():
            store.set_bytes(key, value)
        proxy.hold("requests", "replies")
        await_absence(observer, "small")
        proxy.release()
        assert {key: store.get_bytes(key) for key in values} == values
        assert {key: observer.get_bytes(key) for key in values} == values
        store.close()


def test_what_others_deleted_or_overwrote_while_the_lease_was_alive_is_left_to_them(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore
) -> None:
    store = open_store(quick.endpoint, lease_ttl=LONGER_TTL)
    for key in ("deleted", "overwritten", "overwritten and deleted", "deleted here", "kept"):
        store.set(key, "1")
    observer.set("overwritten", "2")
    observer.set("overwritten and deleted", "2")
    for key in ("deleted", "overwritten and deleted"):
        observer.delete(key)
    store.delete("deleted here")
    outlive_a_lease(quick, observer, LONGER_TTL)  # ours has been renewed meanwhile
    with observer.watch("kept") as changes:
        lose_lease(quick, observer.namespace)
        assert changes.next(PATIENCE) == Change("kept", None)
        assert changes.next(PATIENCE) == Change("kept", b"1")
    assert observer.list_keys() == ["kept", "overwritten"]
    assert observer.get("overwritten") == b"2"


def test_a_key_that_somebody_took_after_the_lease_was_lost_is_left_to_him(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore
) -> None:
    with TcpProxy(quick.endpoint) as proxy:
        store = open_store(proxy.address, lease_ttl=TTL)
        store.set("taken", "mine")
        store.set("kept", "mine")
        proxy.hold("requests", "replies")
        await_absence(observer, "taken")
        observer.set("taken", "theirs")
        proxy.release()
        assert (store.get("taken"), store.get("kept")) == (b"theirs", b"mine")
        store.close()
    assert observer.list_keys() == ["taken"]


def test_a_write_under_a_lease_that_was_lost_takes_effect_under_a_new_one_once(
    quick: EtcdServer, observer: EtcdStore, store: EtcdStore
) -> None:
    store.set("key", "1")
    with observer.watch("other") as changes:
        lose_lease(quick, observer.namespace)
        store.set("other", "2")
        assert changes.next(PATIENCE) == Change("other", b"2")
    assert store.wait_for_key("key", PATIENCE) == b"1"
    (held,) = leases(quick, observer.namespace).values()
    assert sorted(held) == [f"{observer.namespace}/trainer/{key}" for key in ("key", "other")]


def test_a_wait_goes_on_while_a_lease_is_lost_and_sees_the_key_again(
    quick: EtcdServer, observer: EtcdStore, store: EtcdStore
) -> None:
    store.set("rank:0", "1")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait_for_keys, "rank:*", 2, timeout=PATIENCE)
        lose_lease(quick, observer.namespace)
        assert observer.wait_for_key("rank:0", PATIENCE) == b"1"
        observer.set("rank:1", "1")
        assert waiting.result(PATIENCE) == ["rank:0", "rank:1"]


def test_a_server_that_was_wiped_is_given_the_keys_again(open_store: OpenStore) -> None:
    with EtcdServer(*QUICK) as server:
        store = open_store(server.endpoint, lease_ttl=TTL, timeout=30.0)
        store.set("key", "value")
        server.wipe_and_restart()
        assert open_store(server.endpoint).wait_for_key("key", PATIENCE) == b"value"
        store.close()


def test_a_set_whose_reply_is_lost_is_known_by_its_lease_and_written_again_with_the_others(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore
) -> None:
    with TcpProxy(quick.endpoint) as proxy:
        store = open_store(proxy.address, lease_ttl=600)  # no reply to a renewal is lost instead
        store.set("first", "1")  # a lease is there
        proxy.drop_replies()
        with ThreadPoolExecutor(1) as pool:
            setting = pool.submit(store.set, "key", "value")
            assert observer.wait_for_key("key", PATIENCE) == b"value"
            proxy.release()
            setting.result(PATIENCE)
        with observer.watch("key") as changes:
            lose_lease(quick, observer.namespace)
            store.set("first", "2")
            assert changes.next(PATIENCE) == Change("key", None)
            assert changes.next(PATIENCE) == Change("key", b"value")
        store.close()


def test_anothers_write_of_the_same_value_does_not_confirm_a_set(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore
) -> None:
    with TcpProxy(quick.endpoint) as proxy:
        store = open_store(proxy.address, lease_ttl=600)
        store.set("first", "1")
        proxy.hold("requests")
        with ThreadPoolExecutor(1) as pool:
            setting = pool.submit(store.set, "key", "value")
            proxy.await_struck("requests")
            observer.set("key", "value")
            proxy.reset()
            with pytest.raises(OutcomeUnknownError, match="'key'"):
                setting.result(PATIENCE)
        store.close()


def test_a_set_that_is_answered_after_its_lease_was_lost_is_what_the_key_holds_and_not_what_it_held_before(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore
) -> None:
    with TcpProxy(quick.endpoint) as slow, TcpProxy(quick.endpoint) as other:
        store = open_store(slow.address, other.address, lease_ttl=TTL, timeout=PATIENCE)
        store.set("key", "old")
        store.set("witness", "1")
        slow.hold("replies")
        with ThreadPoolExecutor(2) as pool:
            setting = pool.submit(store.set, "key", "new")
            assert observer.wait_for_value("key", "new", PATIENCE)
            slow.hold("requests")
            other.refuse()
            await_absence(observer, "key")
            other.release()
            asking = pool.submit(store.exists, "witness")
            with pytest.raises(WaitTimeoutError):  # nothing is written again while the set is under way
                observer.wait_for_key("witness", 3 * TTL)
            slow.release()
            setting.result(PATIENCE)
            assert asking.result(PATIENCE) is True
        assert store.get("key") == b"new"
        assert observer.get("key") == b"new"
        store.close()


def test_a_key_that_was_deleted_while_its_lease_ran_out_stays_deleted(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore
) -> None:
    with TcpProxy(quick.endpoint) as proxy:
        store = open_store(proxy.address, lease_ttl=TTL)
        for key in ("deleted", "kept"):
            store.set(key, "1")
        proxy.hold("replies")
        with ThreadPoolExecutor(1) as pool, observer.watch() as changes:
            deleting = pool.submit(store.delete, "deleted")
            assert changes.next(PATIENCE) == Change("deleted", None)
            proxy.hold("requests")
            assert changes.next(PATIENCE) == Change("kept", None)
            proxy.release()
            assert deleting.result(PATIENCE) is True
            assert store.get("kept") == b"1"
            assert changes.next(PATIENCE) == Change("kept", b"1")
            assert observer.list_keys() == ["kept"]
        store.close()


READS: dict[str, tuple[Callable[[EtcdStore], object], object]] = {
    "get": (lambda store: store.get("key"), b"1"),
    "exists": (lambda store: store.exists("key"), True),
    "list_keys": (lambda store: store.list_keys(), ["key"]),
    "wait_for_keys": (lambda store: store.wait_for_keys("*", 0, timeout=0), ["key"]),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_during_which_the_lease_ran_out_finds_the_stores_own_key(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore, read: str
) -> None:
    call, expected = READS[read]
    with TcpProxy(quick.endpoint) as proxy:
        store = open_store(proxy.address, lease_ttl=TTL)
        store.set("key", "1")
        proxy.hold("requests", "replies")
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(call, store)
            await_absence(observer, "key")
            proxy.release()
            assert reading.result(PATIENCE) == expected
        store.close()


def test_a_wiped_server_that_others_have_written_to_since_is_given_the_keys_again(open_store: OpenStore) -> None:
    with EtcdServer(*QUICK) as server:
        store, others = open_store(server.endpoint, lease_ttl=TTL, timeout=30.0), open_store(server.endpoint)
        store.set("key", "value")
        outlive_a_lease(server, others)  # it has been renewed at a revision beyond the write
        server.wipe_and_restart()
        for number in range(20):
            others.set(f"other-{number}", "1")
        assert others.wait_for_key("key", PATIENCE) == b"value"
        store.close()


@pytest.mark.parametrize("cleanup", [True, False])
def test_close_ends_a_wait_that_tries_to_renew_a_lease(
    quick: EtcdServer, observer: EtcdStore, open_store: OpenStore, cleanup: bool
) -> None:
    with TcpProxy(quick.endpoint) as proxy:
        store = open_store(proxy.address, lease_ttl=TTL, timeout=PATIENCE)
        store.set("key", "1")
        proxy.blackhole("requests", "replies")
        await_absence(observer, "key")
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(store.wait_for_key, "another", PATIENCE)
            closing = pool.submit(store.close, cleanup)
            with pytest.raises(StoreClosedError):
                waiting.result(timeout=1)
            proxy.reset()
            closing.result(PATIENCE)


def test_a_keeper_that_could_not_be_started_is_started_at_the_next_write(
    quick: EtcdServer, observer: EtcdStore, store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "etcd leases":
            raise RuntimeError("can't start new thread")
        really_start(thread)

    really_start = threading.Thread.start
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            store.set("key", "1")
    store.set("key", "1")
    outlive_a_lease(quick, observer)
    assert observer.get("key") == b"1"


def test_a_lease_holds_a_thousand_keys_at_the_most(quick: EtcdServer, observer: EtcdStore, store: EtcdStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.set(f"key-{number}", "1"), range(2_100)))
    held = leases(quick, observer.namespace)
    assert sorted(len(keys) for keys in held.values()) == [100, 1000, 1000]
    for number in range(500):
        store.set(f"key-{number}", "2")
    assert {lease: len(keys) for lease, keys in leases(quick, observer.namespace).items()} == {
        lease: len(keys) for lease, keys in held.items()
    }


def test_close_ends_the_leases_and_what_others_overwrote_stays(
    quick: EtcdServer, observer: EtcdStore, store: EtcdStore
) -> None:
    store.set("mine", "1")
    store.set("taken", "1")
    observer.set("taken", "1")
    assert leases(quick, observer.namespace)
    store.close()
    assert observer.list_keys() == ["taken"]
    assert not leases(quick, observer.namespace)
    for thread in threading.enumerate():
        if thread.name == "etcd leases":
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_without_cleanup_the_keys_stay_for_the_time_of_the_lease(observer: EtcdStore, store: EtcdStore) -> None:
    store.set("key", "1")
    store.close(cleanup=False)
    assert observer.get("key") == b"1"
    await_absence(observer, "key")


def test_a_store_that_writes_nothing_has_no_lease_and_no_thread(quick: EtcdServer, store: EtcdStore) -> None:
    before = threading.active_count()
    assert store.get("key") is None
    assert threading.active_count() == before
    store.set("key", "1")
    store.set("other", "1")
    assert threading.active_count() <= before + 1


def test_keys_that_can_not_be_written_again_are_told_of_in_every_call_until_they_can(open_store: OpenStore) -> None:
    with EtcdServer(*QUICK) as server, TcpProxy(server.endpoint) as proxy:
        store, observer = open_store(proxy.address, lease_ttl=TTL), open_store(server.endpoint)
        store.set("key", "value")
        server.run_out_of_space()
        proxy.hold("requests", "replies")
        await_absence(observer, "key")
        proxy.release()
        told = "lease of 1 s ran out.*could not all be written again"
        with pytest.raises(StoreFullError, match=told):
            store.get("another")
        with pytest.raises(StoreFullError, match=told):
            store.wait_for_key("another", PATIENCE)
        server.have_space_again()
        assert store.get("key") == b"value"
        store.close()


@pytest.mark.parametrize("harm", ["freeze", "kill"])
def test_a_member_that_goes_away_costs_no_key(open_store: OpenStore, harm: str) -> None:
    with EtcdCluster(3) as cluster:
        victim, *others = cluster.members
        store = open_store(*cluster.endpoints, lease_ttl=LONGER_TTL, timeout=20.0)
        observer = open_store(*(member.endpoint for member in others), timeout=20.0)
        store.set("key", "value")
        with observer.watch() as changes:
            getattr(victim, harm)()
            assert observer.exists("key")  # there is a leader again
            for _ in range(2):
                outlive_a_lease(others[0], observer, ttl=LONGER_TTL)
            with pytest.raises(TimeoutError):
                changes.next(0)
        assert store.get("key") == b"value"
        if harm == "freeze":
            victim.thaw()
        store.close()


@pytest.mark.parametrize("ttl", [0, -1, 9_000_000_001, 1.5, "soon", True])
def test_a_time_that_no_lease_can_have_is_refused(ttl: Any) -> None:
    with pytest.raises(ConfigError, match="lease_ttl"):
        open_by_name("etcd", namespace="job", component="trainer", endpoints=["127.0.0.1:1"], lease_ttl=ttl)
