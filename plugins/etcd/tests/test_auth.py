"""Users: who is refused is told at once and told what is missing; who is let in notices nothing when a token dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
import pytest

from etcd_server import EtcdServer
from etha.kvstore import KVStore, open_store_from_config
from etha.kvstore import open_store as open_by_name
from etha.kvstore.errors import AuthenticationError, WaitTimeoutError
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.rpc import Rpc
from laboratory import Users
from tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore

pytestmark = [pytest.mark.security, pytest.mark.xdist_group("etcd-users")]

WORKER = {"user": Users.NAME, "password": Users.PASSWORD}
"""May do anything with keys that begin with ``job``, and nothing else."""

OpenAs = Callable[..., KVStore]


def entered(store: KVStore) -> dict[str, bytes]:
    with store.watch() as changes:
        return changes.state


READS: dict[str, Callable[[KVStore], object]] = {
    "get": lambda store: store.get("key"),
    "get_bytes": lambda store: store.get_bytes("key"),
    "exists": lambda store: store.exists("key"),
    "list_keys": lambda store: store.list_keys(),
    "wait_for_key": lambda store: store.wait_for_key("key", 60),
    "wait_for_value": lambda store: store.wait_for_value("key", "theirs", 60),
    "wait_for_keys": lambda store: store.wait_for_keys("k*", 1, "theirs", 60),
    "watch": entered,
}
WRITES: dict[str, Callable[[KVStore], object]] = {
    "set": lambda store: store.set("key", "ours"),
    "set_bytes": lambda store: store.set_bytes("key", b"ours"),
    "delete": lambda store: store.delete("key"),
}


def as_root(server: EtcdServer, *command: str, reading: str = "") -> str:
    return server.ctl("--user", Users.ROOT, *command, reading=reading)


def add_user(server: EtcdServer, name: str, password: str, *rights: str) -> dict[str, str]:
    """Make a user with a role of the same name, and give the options with which a store is that user's."""
    as_root(server, "user", "add", name, "--interactive=false", reading=f"{password}\n")
    as_root(server, "role", "add", name)
    for right in rights:
        as_root(server, "role", "grant-permission", name, *right.split())
    as_root(server, "user", "grant-role", name, name)
    return {"user": name, "password": password}


@pytest.fixture(scope="module")
def reader(users_etcd: EtcdServer) -> dict[str, str]:
    """One who may read the keys of a component, and write nothing."""
    return add_user(users_etcd, "reader", "reader-password", "read --prefix=true shared/c/")


@pytest.fixture(scope="module")
def owner(users_etcd: EtcdServer) -> dict[str, str]:
    """One who may do anything with the keys of one component of a namespace."""
    return add_user(users_etcd, "owner", "owner-password", "readwrite --prefix=true own/c/")


@pytest.fixture
def open_as(users_etcd: EtcdServer) -> Iterator[OpenAs]:
    """Open a store of somebody's on any namespace, and close it after the test."""
    with ExitStack() as closing:

        def open_one(login: dict[str, str], namespace: str, component: str = "c") -> KVStore:
            where = {"namespace": namespace, "component": component, "endpoints": [users_etcd.endpoint]}
            store = open_by_name("etcd", **where, **login)  # type: ignore[arg-type]
            closing.callback(store.close)
            return store

        yield open_one


# --- passwords ---


def test_a_user_with_the_right_password_works(users_etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(users_etcd.endpoint, **WORKER)
    store.set("key", "value")
    assert store.wait_for_keys("*", 1, value="value", timeout=10) == ["key"]


@pytest.mark.parametrize(
    "login",
    [{}, {**WORKER, "password": "wrong"}, {**WORKER, "password": ""}, {**WORKER, "user": "nobody"}],
    ids=["no user", "a wrong password", "no password", "an unknown user"],
)
def test_a_wrong_user_or_password_is_refused_at_once(
    users_etcd: EtcdServer, open_store: OpenStore, login: dict[str, str]
) -> None:
    with pytest.raises(AuthenticationError, match=users_etcd.endpoint):
        open_store(users_etcd.endpoint, connect_timeout=100.0, **login)


def test_a_password_that_was_changed_meanwhile_is_refused_at_the_next_call(
    users_etcd: EtcdServer, open_as: OpenAs
) -> None:
    login = add_user(users_etcd, "changing", "old-password", "readwrite --prefix=true changing/c/")
    store = open_as(login, "changing")
    store.set("key", "1")
    as_root(users_etcd, "user", "passwd", "changing", "--interactive=false", reading="new-password\n")
    for call in (*READS.values(), *WRITES.values()):
        with pytest.raises(AuthenticationError, match="invalid user ID or password"):
            call(store)
    assert open_as({**login, "password": "new-password"}, "changing").get("key") == b"1"


def test_a_configuration_takes_the_password_from_the_environment_or_percent_encoded(
    users_etcd: EtcdServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "p@ss:/?#[%41]é"
    add_user(users_etcd, "special", password, "readwrite --prefix=true special/c/")
    monkeypatch.setenv("ETCD_PASSWORD", password)
    file = tmp_path / "kvstore.toml"
    file.write_text(
        '[kvstore]\nbackend = "etcd"\nnamespace = "special"\ncomponent = "c"\n[kvstore.options]\n'
        f'endpoints = ["{users_etcd.endpoint}"]\nuser = "special"\npassword = "${{ETCD_PASSWORD}}"\n'
    )
    for source in (
        file,
        f"etcd://special:${{ETCD_PASSWORD}}@{users_etcd.endpoint}/special/c",
        f"etcd://special:{quote(password, safe='')}@{users_etcd.endpoint}/special/c",
    ):
        with open_store_from_config(source) as store:
            store.set("key", "value")
            assert store.get("key") == b"value"


# --- roles ---


@pytest.mark.parametrize("call", [*READS, *WRITES])
def test_a_key_outside_the_users_role_is_refused_in_every_call_and_named_with_what_to_do(
    users_etcd: EtcdServer, open_as: OpenAs, call: str
) -> None:
    as_root(users_etcd, "put", "other/c/key", "theirs")
    store = open_as(WORKER, "other")
    with pytest.raises(AuthenticationError, match="permission denied") as refusal:
        (READS | WRITES)[call](store)
    told = "other/c/" if call in ("list_keys", "watch") else "other/c/k" if call == "wait_for_keys" else "other/c/key"
    assert f"'{told}'" in str(refusal.value)
    assert "grant" in str(refusal.value)
    assert as_root(users_etcd, "get", "other/c/key", "--print-value-only") == "theirs\n"


def test_a_role_with_only_its_own_prefix_serves_every_call_there_and_the_clean_up(
    users_etcd: EtcdServer, owner: dict[str, str], open_as: OpenAs
) -> None:
    store = open_as(owner, "own")
    for write in WRITES.values():
        write(store)
    store.set("key", "theirs")
    for read in READS.values():
        assert read(store)
    with store.watch() as changes:
        store.set("later", "1")
        assert changes.next(10) == ("later", b"1")
    store.close()
    assert as_root(users_etcd, "get", "own/c/", "--prefix") == ""


@pytest.mark.parametrize(("namespace", "component"), [("own0", "c"), ("own", "c1"), ("ow", "c"), ("own", "d")])
def test_a_role_does_not_reach_a_namespace_or_component_whose_name_begins_alike(
    owner: dict[str, str], open_as: OpenAs, namespace: str, component: str
) -> None:
    store = open_as(owner, namespace, component)
    for call in (*READS.values(), *WRITES.values()):
        with pytest.raises(AuthenticationError, match="permission denied"):
            call(store)


def test_one_who_may_only_read_reads_waits_and_watches_but_writes_nothing(
    users_etcd: EtcdServer, reader: dict[str, str], open_as: OpenAs
) -> None:
    as_root(users_etcd, "put", "shared/c/key", "theirs")
    store = open_as(reader, "shared")
    for read in READS.values():
        assert read(store)
    with ThreadPoolExecutor(1) as pool, store.watch() as changes:
        wait = pool.submit(store.wait_for_key, "late", 60)
        as_root(users_etcd, "put", "shared/c/late", "1")
        assert wait.result(60) == b"1"
        assert changes.next(10) == ("late", b"1")
    for write in WRITES.values():
        with pytest.raises(AuthenticationError, match="permission denied"):
            write(store)
    assert as_root(users_etcd, "get", "shared/c/key", "--print-value-only") == "theirs\n"


# --- tokens ---


def token_of(store: EtcdStore) -> str:
    ((name, token),) = store._connection.metadata
    assert name == "token"
    return token


def is_known(token: str, server: EtcdServer) -> bool:
    with grpc.insecure_channel(server.endpoint) as channel:
        ask = Rpc(channel, server.endpoint).range
        try:
            ask(pb.RangeRequest(key=b"job"), metadata=(("token", token),), timeout=10.0)
        except grpc.RpcError as refusal:
            return "invalid auth token" not in str(refusal)
        return True


def await_death(token: str, server: EtcdServer, meanwhile: EtcdStore) -> None:
    """Let time pass until the server does not know a token any more; each time that it is asked, the token lives on."""
    while True:
        with pytest.raises(TimeoutError):
            meanwhile.wait_for_key("nobody-writes-this", timeout=2.5)
        if not is_known(token, server):
            return


@pytest.fixture
def proxied(users_etcd: EtcdServer) -> Iterator[TcpProxy]:
    with TcpProxy(users_etcd.endpoint) as proxy:
        yield proxy


@pytest.fixture
def writer(users_etcd: EtcdServer, open_store: OpenStore) -> EtcdStore:
    return open_store(users_etcd.endpoint, **WORKER)


def test_a_token_that_expires_in_mid_wait_is_renewed(
    users_etcd: EtcdServer, open_store: OpenStore, writer: EtcdStore
) -> None:
    store = open_store(users_etcd.endpoint, **WORKER)
    token = token_of(store)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(store.wait_for_key, "key", 60)
        await_death(token, users_etcd, writer)
        writer.set("key", "value")
        assert wait.result(60) == b"value"
        assert store.get("key") == b"value"
    assert token_of(store) != token


def test_a_wait_and_a_watch_whose_connection_is_lost_after_their_token_has_expired_miss_nothing(
    users_etcd: EtcdServer, proxied: TcpProxy, open_store: OpenStore, writer: EtcdStore
) -> None:
    store = open_store(proxied.address, **WORKER)
    token = token_of(store)
    with ThreadPoolExecutor(1) as pool, store.watch() as changes:
        wait = pool.submit(store.wait_for_value, "key", "2", 60)
        writer.set("key", "0")
        assert changes.next(30) == ("key", b"0")
        await_death(token, users_etcd, writer)
        proxied.hold("replies")
        writer.set("key", "1")
        proxied.await_struck("replies")
        proxied.reset()
        writer.set("key", "2")
        assert [changes.next(30), changes.next(30)] == [("key", b"1"), ("key", b"2")]
        assert wait.result(60) == b"2"
    assert token_of(store) != token


def test_a_watch_that_is_polled_outlives_its_token_where_a_new_one_takes_longer_than_a_poll(
    users_etcd: EtcdServer, proxied: TcpProxy, open_store: OpenStore, writer: EtcdStore
) -> None:
    store = open_store(proxied.address, **WORKER)
    token = token_of(store)
    with store.watch() as changes:
        with pytest.raises(WaitTimeoutError):
            changes.next(0.1)
        await_death(token, users_etcd, writer)
        proxied.reset()
        proxied.delay(0.3, "replies")
        writer.set("key", "value")
        change = None
        while change is None:
            with suppress(WaitTimeoutError):
                change = changes.next(0.1)
        assert change == ("key", b"value")


def test_a_wait_that_begins_after_the_streams_token_has_expired_is_served(
    users_etcd: EtcdServer, open_store: OpenStore, writer: EtcdStore
) -> None:
    store = open_store(users_etcd.endpoint, **WORKER)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(TimeoutError):
            store.wait_for_key("opens-the-stream", timeout=0.1)
        await_death(token_of(store), users_etcd, writer)
        for key in ("first", "second"):
            wait = pool.submit(store.wait_for_keys, f"{key}*", 1, "1", 60)
            with pytest.raises(TimeoutError):
                writer.wait_for_key("nobody-writes-this", timeout=0.5)
            writer.set(key, "1")
            assert wait.result(60) == [key]


def test_a_restart_that_forgets_all_tokens_does_not_end_a_wait(users_etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(users_etcd.endpoint, timeout=20.0, **WORKER)
    with ThreadPoolExecutor(1) as pool, store.watch() as changes:
        wait = pool.submit(store.wait_for_key, "key", 60)
        store.set("first", "1")
        assert changes.next(10) == ("first", b"1")
        users_etcd.kill()
        users_etcd.start()
        store.set("key", "value")
        assert wait.result(60) == b"value"
        assert changes.next(10) == ("key", b"value")
