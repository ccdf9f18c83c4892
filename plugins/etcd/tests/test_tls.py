"""TLS: whom a store trusts and who trusts it, told at once where one does not; and what is said of the files."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from authority import Authority, Pair
from etcd_server import EtcdServer, crash_etcd, find_etcd
from etha.kvstore import open_store as open_by_name
from etha.kvstore.errors import AuthenticationError, ConfigError, StoreUnavailableError
from secrecy import all_texts

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore

pytestmark = [pytest.mark.security, pytest.mark.xdist_group("etcd-tls")]

CANARY = "canary-31415"


@contextmanager
def serving(pair: Pair, *arguments: str, binary: Path | None = None) -> Iterator[EtcdServer]:
    with EtcdServer(*pair.as_server, *arguments, tls=True, binary=binary) as server:
        yield server


@pytest.fixture(scope="module", params=[find_etcd, crash_etcd], ids=["etcd", "the other etcd"])
def mutual_etcd(authority: Authority, request: pytest.FixtureRequest) -> Iterator[EtcdServer]:
    """A server that serves only whom its authority has given a certificate. The two etcds refuse others differently."""
    pair = authority.issue("mutual", "127.0.0.1")
    trusting = ("--client-cert-auth", "--trusted-ca-file", authority.ca)
    with serving(pair, *trusting, binary=request.param()) as server:
        yield server


# --- the server's certificate ---


def test_tls_with_the_right_authority_connects_and_waits(
    tls_etcd: EtcdServer, authority: Authority, open_store: OpenStore
) -> None:
    store = open_store(f"https://{tls_etcd.endpoint}", ca_cert=authority.ca)
    with store.watch() as changes:
        store.set("key", "value")
        assert changes.next(10) == ("key", b"value")
    assert store.wait_for_key("key", 10) == b"value"


def test_a_server_of_another_authority_is_refused_at_once(
    tls_etcd: EtcdServer, stranger: Authority, open_store: OpenStore
) -> None:
    with pytest.raises(AuthenticationError, match=rf"{tls_etcd.endpoint}.*check the certificates"):
        open_store(tls_etcd.endpoint, ca_cert=stranger.ca)


def test_a_server_is_not_trusted_merely_for_having_a_certificate(tls_etcd: EtcdServer, open_store: OpenStore) -> None:
    with pytest.raises(AuthenticationError, match=rf"{tls_etcd.endpoint}.*check the certificates"):
        open_store(f"https://{tls_etcd.endpoint}")


def test_a_server_with_another_name_is_refused_at_once(authority: Authority, open_store: OpenStore) -> None:
    with (
        serving(authority.issue("elsewhere", "elsewhere.example.org")) as server,
        pytest.raises(AuthenticationError, match=rf"{server.endpoint}.*check the certificates"),
    ):
        open_store(server.endpoint, ca_cert=authority.ca)


def test_a_server_whose_certificate_has_expired_is_refused_at_once(authority: Authority, open_store: OpenStore) -> None:
    with (
        serving(authority.issue("expired", "127.0.0.1", ends=-1.0)) as server,
        pytest.raises(AuthenticationError, match=rf"{server.endpoint}.*expired.*check the certificates"),
    ):
        open_store(server.endpoint, ca_cert=authority.ca)


def test_a_wait_ends_at_once_when_the_server_comes_back_with_a_certificate_of_another_authority(
    tmp_path: Path, open_store: OpenStore
) -> None:
    authority = Authority(tmp_path)
    with serving(authority.issue("server", "127.0.0.1")) as server:
        store = open_store(server.endpoint, ca_cert=authority.ca)
        with ThreadPoolExecutor(1) as pool, store.watch() as changes:
            wait = pool.submit(store.wait_for_key, "key", 100)
            store.set("other", "1")
            assert changes.next(10).key == "other"
            server.kill()
            Authority(tmp_path).issue("server", "127.0.0.1")
            server.start()
            assert isinstance(wait.exception(60), AuthenticationError)
            with pytest.raises(AuthenticationError, match="check the certificates"):
                store.get("key")


# --- the client's certificate ---


def test_mutual_tls_serves_a_client_with_a_certificate(
    mutual_etcd: EtcdServer, authority: Authority, open_store: OpenStore
) -> None:
    client = authority.issue("client", "rank-0@example.org")
    store = open_store(mutual_etcd.endpoint, ca_cert=authority.ca, **client.as_client)
    with store.watch() as changes:
        store.set("key", "value")
        assert changes.next(10) == ("key", b"value")
    assert store.wait_for_key("key", 10) == b"value"


@pytest.mark.parametrize("who", ["no", "an expired", "another authority's"])
def test_mutual_tls_refuses_at_once_a_client_with_the_wrong_certificate(
    mutual_etcd: EtcdServer,
    authority: Authority,
    stranger: Authority,
    open_store: OpenStore,
    who: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(0)
    pairs = {
        "an expired": authority.issue("late-client", "rank-0@example.org", ends=-1.0),
        "another authority's": stranger.issue("client", "rank-0@example.org"),
    }
    shows = pairs[who].as_client if who in pairs else {}
    with pytest.raises(AuthenticationError, match=rf"{mutual_etcd.endpoint}.*check the certificates") as refusal:
        open_store(mutual_etcd.endpoint, ca_cert=authority.ca, **shows)
    seen = all_texts(refusal.value) + caplog.text + "".join(capfd.readouterr())
    for pair in pairs.values():
        assert not any(line in seen for line in key_material(pair.key))


# --- TLS on one side only ---


def test_a_client_in_the_clear_gets_nowhere_on_a_tls_server(tls_etcd: EtcdServer, open_store: OpenStore) -> None:
    with pytest.raises(StoreUnavailableError, match=tls_etcd.endpoint):
        open_store(tls_etcd.endpoint, connect_timeout=0.5)


def test_a_tls_client_gets_nowhere_on_a_server_in_the_clear(
    etcd: EtcdServer, authority: Authority, open_store: OpenStore
) -> None:
    with pytest.raises(StoreUnavailableError, match=etcd.endpoint):
        open_store(f"https://{etcd.endpoint}", ca_cert=authority.ca, connect_timeout=0.5)


def test_a_client_that_wants_tls_says_nothing_in_the_clear(authority: Authority, open_store: OpenStore) -> None:
    def listen(listener: socket.socket) -> bytes:
        with listener, listener.accept()[0] as connection:
            return connection.recv(65_536)

    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(listen, listener)
        with pytest.raises(StoreUnavailableError):
            open_store(f"{host}:{port}", ca_cert=authority.ca, user="worker", password=CANARY, connect_timeout=0.5)
        said = heard.result(10)
    assert said[:2] == b"\x16\x03"  # the handshake of TLS
    assert CANARY.encode() not in said
    assert b"PRI * HTTP/2" not in said


# --- the files ---


def key_material(path: str) -> list[str]:
    """The lines of a key, without those that only say that it is one."""
    return [line for line in Path(path).read_text().splitlines() if line and "-----" not in line]


def missing(directory: Path) -> Path:
    return directory / "missing.pem"


def a_folder(directory: Path) -> Path:
    return directory


def a_loop(directory: Path) -> Path:
    loop = directory / "loop.pem"
    loop.symlink_to(loop)
    return loop


@pytest.mark.parametrize("option", ["ca_cert", "cert_cert", "cert_key"])
@pytest.mark.parametrize("made", [missing, a_folder, a_loop], ids=lambda made: made.__name__)
def test_a_file_that_cannot_be_read_is_named_with_its_option(
    authority: Authority, tmp_path: Path, option: str, made: Callable[[Path], Path], open_store: OpenStore
) -> None:
    path = str(made(tmp_path))
    client = authority.issue("client", "rank-0@example.org")
    files = {"ca_cert": authority.ca, **client.as_client, option: path}
    with pytest.raises(ConfigError) as refusal:
        open_store("127.0.0.1:1", **files)
    assert f"option {option!r}: {path} can't be read" in str(refusal.value)
    assert not any(line in all_texts(refusal.value) for line in key_material(client.key))


@pytest.mark.parametrize("option", ["cert_cert", "cert_key"])
def test_a_certificate_and_its_key_come_together(authority: Authority, option: str, open_store: OpenStore) -> None:
    files = authority.issue("client", "rank-0@example.org").as_client
    with pytest.raises(ConfigError, match="both cert_cert and cert_key"):
        open_store("127.0.0.1:1", ca_cert=authority.ca, **{option: files[option]})


@pytest.mark.parametrize("option", ["ca_cert", "cert_cert", "cert_key"])
@pytest.mark.parametrize("read", [Path.read_text, Path.read_bytes], ids=["text", "bytes"])
def test_the_contents_of_a_file_in_the_place_of_its_path_are_refused_and_not_shown(
    authority: Authority, option: str, read: Callable[[Path], str | bytes]
) -> None:
    client = authority.issue("client", "rank-0@example.org")
    files = {"ca_cert": authority.ca, **client.as_client, option: read(Path(client.key))}
    with pytest.raises(ConfigError, match=option) as refusal:
        open_by_name("etcd", namespace="job", component="c", endpoints=["127.0.0.1:1"], **files)
    assert not any(line in all_texts(refusal.value) for line in key_material(client.key))


@pytest.mark.parametrize("wrong", ["no key", "another's key", "no authority"])
def test_a_file_of_the_wrong_contents_is_refused_at_once_and_not_shown(
    tls_etcd: EtcdServer, authority: Authority, open_store: OpenStore, wrong: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client, other = (authority.issue(stem, "rank-0@example.org") for stem in ("client", "other-client"))
    files = {
        "no key": {"ca_cert": authority.ca, "cert_cert": client.certificate, "cert_key": client.certificate},
        "another's key": {"ca_cert": authority.ca, "cert_cert": client.certificate, "cert_key": other.key},
        "no authority": {"ca_cert": client.key, **client.as_client},
    }
    with pytest.raises((AuthenticationError, ConfigError), match="check the certificates") as refusal:
        open_store(tls_etcd.endpoint, **files[wrong])
    seen = all_texts(refusal.value) + "".join(capfd.readouterr())
    assert not any(line in seen for pair in (client, other) for line in key_material(pair.key))
