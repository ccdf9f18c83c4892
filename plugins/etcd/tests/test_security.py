"""TLS, users and secrets: who is refused is told at once, who is renewed notices nothing, no secret is shown."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from etcd_server import EtcdServer
from etha.kvstore import open_store as open_by_name
from etha.kvstore.errors import AuthenticationError, StoreUnavailableError

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore

CANARY = "canary-5f1d"


class Certificates:
    """An authority, a server's certificate and a client's, as files."""

    def __init__(self, directory: Path, server_name: str = "127.0.0.1") -> None:
        authority = trustme.CA()
        self.ca = str(directory / "ca.pem")
        authority.cert_pem.write_to_path(self.ca)
        self.server = self._write(authority.issue_cert(server_name), directory / "server")
        self.client = self._write(authority.issue_cert("client@example.org"), directory / "client")

    @staticmethod
    def _write(issued: trustme.LeafCert, stem: Path) -> tuple[str, str]:
        certificate, key = f"{stem}.pem", f"{stem}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key

    @property
    def server_arguments(self) -> list[str]:
        return ["--cert-file", self.server[0], "--key-file", self.server[1]]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def tls_etcd(certificates: Certificates) -> Iterator[EtcdServer]:
    with EtcdServer(*certificates.server_arguments, tls=True) as server:
        yield server


@pytest.fixture
def auth_etcd() -> Iterator[EtcdServer]:
    """A server with users: root, and one who may do what it likes with keys that begin with ``job``."""
    with EtcdServer("--auth-token-ttl", "3") as server:
        for line in (
            "user add root:root-password",
            "user grant-role root root",
            f"user add worker:{CANARY}",
            "role add jobs",
            "role grant-permission jobs --prefix=true readwrite job",
            "user grant-role worker jobs",
            "auth enable",
        ):
            if line == "user grant-role root root":
                server.ctl("role", "add", "root")
            server.ctl(*line.split())
        yield server


def test_tls_with_the_right_authority_connects_and_waits(
    tls_etcd: EtcdServer, certificates: Certificates, open_store: OpenStore
) -> None:
    store = open_store(f"https://{tls_etcd.endpoint}", ca_cert=certificates.ca)
    store.set("key", "value")
    assert store.wait_for_key("key", 10) == b"value"


def test_a_server_of_another_authority_is_refused_at_once(
    tls_etcd: EtcdServer, tmp_path: Path, open_store: OpenStore
) -> None:
    (tmp_path / "other").mkdir()
    other = Certificates(tmp_path / "other")
    with pytest.raises(AuthenticationError, match="certificates"):
        open_store(tls_etcd.endpoint, ca_cert=other.ca)


def test_a_server_with_another_name_is_refused_at_once(tmp_path: Path, open_store: OpenStore) -> None:
    certificates = Certificates(tmp_path, server_name="elsewhere.example.org")
    with (
        EtcdServer(*certificates.server_arguments, tls=True) as server,
        pytest.raises(AuthenticationError, match="certificates"),
    ):
        open_store(server.endpoint, ca_cert=certificates.ca)


def test_mutual_tls_takes_the_clients_certificate_and_refuses_a_client_without(
    certificates: Certificates, open_store: OpenStore
) -> None:
    arguments = [*certificates.server_arguments, "--client-cert-auth", "--trusted-ca-file", certificates.ca]
    with EtcdServer(*arguments, tls=True) as server:
        with pytest.raises((AuthenticationError, StoreUnavailableError)):
            open_store(server.endpoint, ca_cert=certificates.ca, connect_timeout=1.0)
        certificate, key = certificates.client
        store = open_store(server.endpoint, ca_cert=certificates.ca, cert_cert=certificate, cert_key=key)
        store.set("key", "value")
        assert store.get("key") == b"value"
        store.close()


def test_a_client_in_the_clear_gets_nowhere_on_a_tls_server(tls_etcd: EtcdServer, open_store: OpenStore) -> None:
    with pytest.raises(StoreUnavailableError, match=tls_etcd.endpoint):
        open_store(tls_etcd.endpoint, connect_timeout=0.5)


def test_a_user_with_the_right_password_works(auth_etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(auth_etcd.endpoint, user="worker", password=CANARY)
    store.set("key", "value")
    assert store.wait_for_keys("*", 1, value="value", timeout=10) == ["key"]


@pytest.mark.parametrize("login", [{}, {"user": "worker", "password": "wrong"}, {"user": "nobody", "password": CANARY}])
def test_a_wrong_user_or_password_is_refused_at_once(
    auth_etcd: EtcdServer, open_store: OpenStore, login: dict[str, str]
) -> None:
    with pytest.raises(AuthenticationError):
        open_store(auth_etcd.endpoint, **login)


def test_a_key_outside_the_users_role_is_refused_in_every_call(auth_etcd: EtcdServer) -> None:
    store = open_by_name(
        "etcd", namespace="other", component="c", endpoints=[auth_etcd.endpoint], user="worker", password=CANARY
    )
    with store:
        for call in (
            lambda: store.get("key"),
            lambda: store.set("key", "1"),
            lambda: store.delete("key"),
            lambda: store.exists("key"),
            lambda: store.wait_for_key("key", 30),
            lambda: store.wait_for_keys("*", 1, timeout=30),
            lambda: store.list_keys(),
            lambda: store.watch().__enter__(),
        ):
            with pytest.raises(AuthenticationError, match="permission denied"):
                call()


def test_a_token_that_expires_in_mid_wait_is_renewed(auth_etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(auth_etcd.endpoint, user="worker", password=CANARY)
    writer = open_store(auth_etcd.endpoint, user="worker", password=CANARY)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(store.wait_for_key, "key", 30)
        with pytest.raises(TimeoutError):
            writer.wait_for_key("nobody-writes-this", timeout=4.0)  # longer than a token lives
        writer.set("key", "value")
        assert wait.result(30) == b"value"
        assert store.get("key") == b"value"


def test_a_restart_that_forgets_all_tokens_does_not_end_a_wait(auth_etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(auth_etcd.endpoint, user="worker", password=CANARY, timeout=20.0)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(store.wait_for_key, "key", 60)
        with store.watch() as changes:
            store.set("first", "1")
            changes.next(10)
            auth_etcd.kill()
            auth_etcd.start()
            store.set("key", "value")
            assert wait.result(60) == b"value"


def test_no_secret_is_shown_anywhere(auth_etcd: EtcdServer, caplog: pytest.LogCaptureFixture) -> None:
    shown = []
    with caplog.at_level(logging.DEBUG):
        store = open_by_name(
            "etcd", namespace="job", component="c", endpoints=[auth_etcd.endpoint], user="worker", password=CANARY
        )
        store.set("key", "1")
        (_, token) = store._connection.metadata[0]  # type: ignore[attr-defined]
        shown += [repr(store), str(store), repr(vars(store))]
        with pytest.raises(TypeError) as raised:
            pickle.dumps(store)
        shown.append(str(raised.value))
        for call in (
            lambda: store.get("key", component="x" * 4090),
            lambda: store.wait_for_key("absent", 0),
            lambda: open_by_name(
                "etcd", namespace="job", component="c", endpoints=[auth_etcd.endpoint], user="nobody", password=CANARY
            ),
            lambda: open_by_name("etcd", namespace="job", component="c", user="nobody", password=CANARY),
        ):
            with pytest.raises(Exception) as failed:
                call()
            shown += traceback.format_exception(failed.value)
        auth_etcd.kill()
        store.timeout = 0.5  # type: ignore[attr-defined]
        with pytest.raises(StoreUnavailableError) as gone:
            store.get("key")
        shown += traceback.format_exception(gone.value)
        store.close()
    shown.append(caplog.text)
    assert token
    assert not [text for text in shown if CANARY in text.replace(f'password="{CANARY}"', "") or token in text]


def test_a_wait_that_begins_after_the_streams_token_has_expired_is_served(
    auth_etcd: EtcdServer, open_store: OpenStore
) -> None:
    store = open_store(auth_etcd.endpoint, user="worker", password=CANARY)
    writer = open_store(auth_etcd.endpoint, user="worker", password=CANARY)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(TimeoutError):
            store.wait_for_key("opens-the-stream", timeout=4.0)  # longer than a token lives
        for key in ("first", "second"):
            wait = pool.submit(store.wait_for_keys, f"{key}*", 1, "1", 30)
            with pytest.raises(TimeoutError):
                writer.wait_for_key("nobody-writes-this", timeout=0.5)
            writer.set(key, "1")
            assert wait.result(30) == [key]
