"""``etha-kv doctor`` where TLS or the user is what keeps a store from an etcd that is well."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from authority import Authority
from doctor_run import Diagnosis, run_doctor
from etcd_server import EtcdServer
from laboratory import Users

pytestmark = pytest.mark.xdist_group("doctor-etcd-access")

USER = f"{Users.NAME}:{Users.PASSWORD}"


def examine(endpoint: str, *arguments: str, where: str = "job/trainer", **options: str) -> Diagnosis:
    return run_doctor("--url", f"etcd://{endpoint}/{where}?{urlencode(options)}".rstrip("?"), *arguments)


def refused(found: Diagnosis) -> str:
    """Give what is said first where the store can't be opened, once it is sure that the rest points at it."""
    assert found.code == 3
    cause, opened = found.of("bad")
    assert opened.endswith("-> see the bad lines before this one")
    return cause


# --- TLS ---


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def tls_etcd(ours: Authority) -> Iterator[EtcdServer]:
    with EtcdServer(*ours.issue("server", "127.0.0.1").as_server, tls=True) as server:
        yield server


def test_with_tls_as_it_should_be_nothing_is_bad(tls_etcd: EtcdServer, ours: Authority) -> None:
    found = examine(tls_etcd.endpoint, ca_cert=ours.ca)
    assert found.code == 0
    assert found.of("bad") == []


def test_another_authority_ends_with_3(tls_etcd: EtcdServer, theirs: Authority) -> None:
    told = refused(examine(tls_etcd.endpoint, ca_cert=theirs.ca))
    assert "not trusted here" in told
    assert "-> give that authority's file as ca_cert" in told


def test_another_host_name_ends_with_3(tls_etcd: EtcdServer, ours: Authority) -> None:
    port = tls_etcd.endpoint.rpartition(":")[2]
    told = refused(examine(f"localhost:{port}", ca_cert=ours.ca))
    assert "for another name than 'localhost' -> connect by a name that the certificate holds" in told


def test_an_expired_certificate_ends_with_3(ours: Authority) -> None:
    with EtcdServer(*ours.issue("expired", "127.0.0.1", ends=-1.0).as_server, tls=True) as server:
        assert "its certificate has expired -> renew it" in refused(examine(server.endpoint, ca_cert=ours.ca))


def test_a_server_that_wants_a_clients_certificate_ends_with_3(ours: Authority) -> None:
    wanting = ("--client-cert-auth", "--trusted-ca-file", ours.ca)
    with EtcdServer(*ours.issue("mutual", "127.0.0.1").as_server, *wanting, tls=True) as server:
        assert "cert_cert and cert_key" in refused(examine(server.endpoint, ca_cert=ours.ca))


def test_tls_on_the_servers_side_only_ends_with_3(tls_etcd: EtcdServer) -> None:
    told = refused(examine(tls_etcd.endpoint))
    assert "it speaks TLS, and was spoken to in the clear -> give ca_cert, or endpoints with https://" in told


def test_tls_on_the_clients_side_only_ends_with_3(users_etcd: EtcdServer, ours: Authority) -> None:
    told = refused(examine(users_etcd.endpoint, ca_cert=ours.ca))
    assert "as one that speaks in the clear -> leave https:// and the certificates away" in told


# --- users ---


@pytest.fixture(scope="module")
def users_etcd() -> Iterator[EtcdServer]:
    with EtcdServer("--bcrypt-cost", "4") as server:
        Users(server)
        yield server


def test_no_user_where_one_is_wanted_ends_with_3(users_etcd: EtcdServer) -> None:
    told = refused(examine(users_etcd.endpoint))
    assert "the cluster wants a user -> give the options user and password" in told


def test_a_wrong_password_ends_with_3_and_is_not_shown(users_etcd: EtcdServer) -> None:
    found = examine(f"{Users.NAME}:canary-31415@{users_etcd.endpoint}")
    told = refused(found)
    assert "the user was refused" in told
    assert "-> correct user and password" in told
    assert "canary-31415" not in found.text


def test_a_user_without_the_right_to_the_namespace_is_told_which_it_is(users_etcd: EtcdServer) -> None:
    found = examine(f"{USER}@{users_etcd.endpoint}", where="other/trainer")
    assert found.code == 1
    told = [text.partition(" refused: ")[0] for text in found.of("bad") if "permission denied" in text]
    assert told == ["read:", "list:", "write:"]
    assert any("'other/trainer/etha-kv-doctor/" in text and "grant-permission" in text for text in found.of("bad"))


def test_a_user_who_may_only_read_is_told_that_writing_is_refused(users_etcd: EtcdServer) -> None:
    root = ("--user", Users.ROOT)
    users_etcd.ctl(*root, "user", "add", "reader:reader-password")
    users_etcd.ctl(*root, "role", "add", "reader")
    users_etcd.ctl(*root, "role", "grant-permission", "reader", "read", "--prefix=true", "shared/c/")
    users_etcd.ctl(*root, "user", "grant-role", "reader", "reader")
    reader = f"reader:reader-password@{users_etcd.endpoint}"
    found = examine(reader, where="shared/c")
    told = [text.partition(" refused: ")[0] for text in found.of("bad") if "permission denied" in text]
    assert told == ["write:"]
    allowed = [text.partition(":")[0] for text in found.of("good") if ": works" in text]
    assert allowed == ["read", "list"]
    assert found.code == 1
    only_reading = examine(reader, "--read-only", where="shared/c")
    assert only_reading.code == 0
    assert only_reading.of("bad") == []
