"""Passwords, tokens and keys are shown nowhere, however a store fails: no text, log line, pickle or standard error."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from etcd_server import EtcdServer, free_port
from etha.kvstore import open_store as open_by_name
from etha.kvstore import open_store_from_config
from etha.kvstore.errors import KVStoreError, OutcomeUnknownError, StoreUnavailableError
from etha_kvstore_etcd import EtcdStore
from laboratory import Users
from secrecy import all_texts
from tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore

pytestmark = [pytest.mark.security, pytest.mark.xdist_group("etcd-users")]

CANARY = Users.PASSWORD
WORKER: dict[str, Any] = {"user": Users.NAME, "password": CANARY}
FULL: dict[str, Any] = {"namespace": "job", "component": "c"}

Seen = Callable[[], str]


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Seen:
    """All that was logged, at any level and by anybody, and all that gRPC's core or anybody else has printed."""
    caplog.set_level(0)
    caplog.set_level(0, logger="grpc")
    caplog.set_level(0, logger="etha.kvstore")
    return lambda: caplog.text + "".join(capfd.readouterr())


@pytest.fixture
def proxied(users_etcd: EtcdServer) -> Iterator[TcpProxy]:
    with TcpProxy(users_etcd.endpoint) as proxy:
        yield proxy


def secrets_of(store: EtcdStore) -> list[str]:
    ((_, token),) = store._connection.metadata
    assert len(token) > 10
    return [CANARY, token]


def assert_none_shown(secrets: list[str], shown: str) -> None:
    assert not [number for number, secret in enumerate(secrets) if secret in shown]  # which, but not what


def test_all_texts_finds_a_secret_wherever_it_is() -> None:
    def fail_with(error: Exception) -> None:
        try:
            raise ValueError(CANARY)
        except ValueError:
            raise error from None

    hidden = UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, "of a certain kind")
    assert CANARY not in str(hidden)
    assert CANARY in all_texts(hidden)
    with pytest.raises(KVStoreError) as caught:
        fail_with(KVStoreError("harmless"))
    assert CANARY in all_texts(caught.value)


def test_no_secret_is_shown_in_a_healthy_life(users_etcd: EtcdServer, open_store: OpenStore, seen: Seen) -> None:
    store = open_store(users_etcd.endpoint, **WORKER)
    secrets = secrets_of(store)
    with ThreadPoolExecutor(1) as pool, store.watch() as changes:
        wait = pool.submit(store.wait_for_key, "key", 30)
        store.set("key", "1")
        assert (changes.next(10), wait.result(30)) == (("key", b"1"), b"1")
    shown = [repr(store), str(store), repr(vars(store)), repr(vars(store._connection)["_login"])]
    store.close()
    assert_none_shown(secrets, "\n".join([*shown, repr(store), seen()]))


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda send: send.__name__)
def test_a_store_with_a_login_can_not_be_sent_and_its_refusal_shows_no_secret(
    users_etcd: EtcdServer, open_store: OpenStore, send: Callable[[object], object]
) -> None:
    store = open_store(users_etcd.endpoint, **WORKER)
    with pytest.raises(TypeError, match="can't be pickled") as refusal:
        send(store)
    assert_none_shown(secrets_of(store), all_texts(refusal.value))


CALLS: dict[str, Callable[[EtcdStore], object]] = {
    "a wait that times out": lambda store: store.wait_for_key("absent", 0),
    "a wait for keys that times out": lambda store: store.wait_for_keys("absent*", 1, timeout=0.1),
    "a bad key": lambda store: store.get("\0"),
    "a key that is too long": lambda store: store.get("x" * 4096),
    "a value that is too large": lambda store: store.set("key", "x" * 2_000_000),
    "a value that is no text": lambda store: store.set("key", b"1"),  # type: ignore[arg-type]
    "a denied read": lambda store: elsewhere(store, lambda other: other.get("key")),
    "a denied write": lambda store: elsewhere(store, lambda other: other.set("key", "1")),
    "a denied wait": lambda store: elsewhere(store, lambda other: other.wait_for_key("key", 30)),
    "a denied watch": lambda store: elsewhere(store, lambda other: other.watch().__enter__()),
    "a closed store": lambda store: closed(store).get("key"),
}


def closed(store: EtcdStore) -> EtcdStore:
    store.close()
    return store


def elsewhere(store: EtcdStore, call: Callable[[EtcdStore], object]) -> object:
    """Call where the user has no rights."""
    with EtcdStore("other", "c", endpoints=[store._where()], **WORKER) as other:
        return call(other)


@pytest.mark.parametrize("call", CALLS)
def test_no_secret_is_shown_when_a_call_fails(
    users_etcd: EtcdServer, open_store: OpenStore, seen: Seen, call: str
) -> None:
    store = open_store(users_etcd.endpoint, **WORKER)
    secrets = secrets_of(store)
    with pytest.raises((KVStoreError, TypeError)) as failure:
        CALLS[call](store)
    assert_none_shown(secrets, all_texts(failure.value) + seen())


def test_no_secret_is_shown_when_the_connection_is_lost(proxied: TcpProxy, open_store: OpenStore, seen: Seen) -> None:
    store = open_store(proxied.address, timeout=1.0, **WORKER)
    secrets = secrets_of(store)
    proxied.await_quiet()
    proxied.blackhole("replies")
    with pytest.raises(OutcomeUnknownError) as unknown:
        store.set("key", "1")
    proxied.refuse()
    with pytest.raises(StoreUnavailableError) as gone:
        store.get("key")
    with pytest.raises(TimeoutError) as late:
        store.wait_for_key("key", 0.5)
    store.close()
    shown = [all_texts(each.value) for each in (unknown, gone, late)]
    assert_none_shown(secrets, "\n".join([*shown, seen()]))


OPENINGS: dict[str, Callable[[str], object]] = {
    "a wrong password": lambda at: EtcdStore(**FULL, endpoints=[at], user="worker", password=f"{CANARY}?"),
    "an unknown user": lambda at: EtcdStore(**FULL, endpoints=[at], user="nobody", password=CANARY),
    "a password without a user": lambda at: EtcdStore(**FULL, endpoints=[at], password=CANARY),
    "nobody there": lambda at: EtcdStore(**FULL, endpoints=[f"127.0.0.1:{free_port()}"], connect_timeout=0.3, **WORKER),
    "a login in an endpoint": lambda at: EtcdStore(**FULL, endpoints=[f"worker:{CANARY}@{at}"]),
    "TLS that the server lacks": lambda at: EtcdStore(
        **FULL, endpoints=[f"https://{at}"], connect_timeout=0.3, **WORKER
    ),
    "a bad timeout": lambda at: EtcdStore(**FULL, endpoints=[at], connect_timeout=-1, **WORKER),
    "a bad namespace": lambda at: EtcdStore("job/42", "c", endpoints=[at], **WORKER),
    "a password that is not UTF-8": lambda at: EtcdStore(
        **FULL, endpoints=[at], user="worker", password=f"{CANARY}\udce9"
    ),
    "a password of bytes": lambda at: EtcdStore(
        **FULL,
        endpoints=[at],
        user="worker",
        password=CANARY.encode() + b"\xe9",  # type: ignore[arg-type]
    ),
    "a list of passwords": lambda at: open_by_name("etcd", **FULL, endpoints=[at], user="worker", password=[CANARY]),
    "a misspelt option": lambda at: open_by_name("etcd", **FULL, endpoints=[at], pasword=CANARY),
    "a configuration with a bad option": lambda at: open_store_from_config(
        {"backend": "etcd", **FULL, "options": {"endpoints": [at], "timeout": "soon", **WORKER}}
    ),
    "a URL with a wrong password": lambda at: open_store_from_config(f"etcd://worker:{CANARY}%3F@{at}/job/c"),
    "a URL whose password is not encoded": lambda at: open_store_from_config(
        f"etcd://worker:{CANARY}?{CANARY}@{at}/job/c", **FULL
    ),
}


@pytest.mark.parametrize("opening", OPENINGS)
def test_no_secret_is_shown_when_an_opening_fails(users_etcd: EtcdServer, seen: Seen, opening: str) -> None:
    with pytest.raises(KVStoreError) as failure:
        OPENINGS[opening](users_etcd.endpoint)
    assert_none_shown([CANARY], all_texts(failure.value) + seen())


CHATTY = """
import logging, os, sys
logging.basicConfig(level=1)
from etha_kvstore_etcd import EtcdStore

endpoint, user, password = sys.argv[1], "worker", os.environ["CANARY"]
store = EtcdStore("job", "c", endpoints=[endpoint], user=user, password=password)
store.set("key", "1")
store.wait_for_key("key", 10)
with store.watch():
    print("TOKEN", dict(store._connection.metadata)["token"])
store.close()
for login in ({"user": "nobody", "password": password}, {"user": user, "password": password + "?"}, {}):
    try:
        EtcdStore("job", "c", endpoints=[endpoint], **login)
    except PermissionError:
        logging.exception("refused")
"""


def test_no_secret_is_shown_when_grpc_and_all_logging_are_told_to_say_everything(users_etcd: EtcdServer) -> None:
    environment = os.environ | {"CANARY": CANARY, "GRPC_VERBOSITY": "debug"}
    command = [sys.executable, "-c", CHATTY, users_etcd.endpoint]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    marker, token = ended.stdout.split()
    assert marker == "TOKEN"
    assert ended.stderr.count("AuthenticationError: ") >= 3
    assert_none_shown([CANARY, token], ended.stderr)
