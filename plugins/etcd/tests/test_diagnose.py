"""What the diagnosis says of servers that are well, and of those that are not: what it is, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import time
from typing import Any

import pytest

from authority import Authority
from etcd_server import EtcdCluster, EtcdServer, crash_etcd, etcd_version, free_port
from etha_kvstore_etcd import diagnose as diagnosis
from etha_kvstore_etcd.diagnose import diagnose, judge_version
from etha_kvstore_testkit.observe import takes
from laboratory import Stranger, Users

pytestmark = pytest.mark.xdist_group("etcd-diagnose")

IS_KNOWN_BAD = judge_version(etcd_version(), users=False)


def said(level: str, *endpoints: str, **options: object) -> list[str]:
    """Give what is said on one level, but for what is known of the version of the servers that the tests run on."""
    found = diagnose({"endpoints": list(endpoints), **options})
    return [text for each, text in found if each == level and (IS_KNOWN_BAD is None or IS_KNOWN_BAD[1] not in text)]


def the_one(level: str, *endpoints: str, **options: object) -> str:
    (text,) = said(level, *endpoints, **options)
    what, arrow, cure = text.partition(" -> ")
    assert what
    assert arrow
    assert cure
    return text


def first(level: str, *endpoints: str, **options: object) -> str:
    """Give what is said of the only endpoint, where the cluster is then said to be out of reach as well."""
    text, last = said(level, *endpoints, **options)
    assert "none of the endpoints can be used" in last
    assert " -> " in text
    return text


@contextmanager
def serving(*arguments: str, tls: bool = False) -> Iterator[EtcdServer]:
    with EtcdServer(*arguments, tls=tls) as server:
        yield server


# --- servers that are well ---


def test_of_a_server_that_is_well_nothing_is_bad() -> None:
    with EtcdServer(binary=crash_etcd()) as server:
        found = list(diagnose({"endpoints": [server.endpoint]}))
    version = etcd_version(crash_etcd())
    judged = judge_version(version, users=False)
    assert [each for each in found if each[0] != "good"] == (
        [] if judged is None else [(judged[0], f"etcd at {server.endpoint} is {version}, which {judged[1]}")]
    )
    texts = [text for level, text in found if level == "good"]
    assert f"etcd at {server.endpoint} answers in" in texts[0]
    assert f"version {version}, 0.0 MB of data, it leads" in texts[0]
    assert "lets anybody in" in texts[1]


def test_host_and_port_serve_as_well_as_an_endpoint(etcd: EtcdServer) -> None:
    host, _, port = etcd.endpoint.partition(":")
    assert said("bad", host=host, port=port) == said("doubtful", host=host, port=port) == []


@pytest.mark.parametrize(
    ("version", "users", "level", "told"),
    [
        ("3.5.0", False, "bad", "lose data"),
        ("3.5.2", False, "bad", "lose data"),
        ("3.4.23", False, "doubtful", "no fixes"),
        ("3.5.32", True, "doubtful", "watch every later key"),
        ("3.6.13", True, "doubtful", "watch every later key"),
    ],
)
def test_a_version_that_is_known_to_be_bad_is_named_with_what_to_do(
    version: str, users: bool, level: str, told: str
) -> None:
    judged = judge_version(version, users=users)
    assert judged is not None
    assert judged[0] == level
    assert told in judged[1]
    assert "-> upgrade to" in judged[1]


@pytest.mark.parametrize(
    ("version", "users"),
    [("3.5.3", False), ("3.5.33", True), ("3.6.14", True), ("3.6.0", False), ("3.7.0", True), ("unknown", True)],
)
def test_nothing_is_said_against_other_versions(version: str, users: bool) -> None:
    assert judge_version(version, users=users) is None


# --- no way there ---


def test_a_port_where_nobody_listens() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    assert f"etcd at {endpoint}: nobody listens there -> start etcd" in first("bad", endpoint)


def test_a_name_that_does_not_resolve() -> None:
    assert "'etcd.invalid' does not resolve -> correct the endpoint" in first("bad", "etcd.invalid:2379")


def test_a_frozen_server(own_etcd: EtcdServer) -> None:
    own_etcd.freeze()
    assert "takes connections and says nothing within 1.5 s -> is the process frozen" in first("bad", own_etcd.endpoint)


def test_several_silent_endpoints_take_no_longer_than_one() -> None:
    with ExitStack() as listening:
        silent = [listening.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        endpoints = [f"127.0.0.1:{each.getsockname()[1]}" for each in silent]
        with takes(at_most=diagnosis.LONGEST + 1.0):
            *each, _ = said("bad", *endpoints)
    assert len(each) == 4
    assert all("says nothing" in text for text in each)


def test_a_web_server_that_is_no_etcd() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    stranger = Stranger(endpoint)
    try:
        told = first("bad", endpoint)
    finally:
        stranger.leave()
    assert "does not answer as etcd does -> correct the endpoint" in told


# --- TLS ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def tls_etcd(authority: Authority) -> Iterator[EtcdServer]:
    with serving(*authority.issue("server", "127.0.0.1").as_server, tls=True) as server:
        yield server


def test_with_the_right_authority_nothing_is_bad_or_doubtful(tls_etcd: EtcdServer, authority: Authority) -> None:
    assert said("bad", tls_etcd.endpoint, ca_cert=authority.ca) == []
    assert said("doubtful", tls_etcd.endpoint, ca_cert=authority.ca) == []


def test_a_certificate_of_another_authority(tls_etcd: EtcdServer, stranger: Authority) -> None:
    told = first("bad", tls_etcd.endpoint, ca_cert=stranger.ca)
    assert "of an authority that is not trusted here (" in told
    assert "-> give that authority's file as ca_cert" in told


@pytest.mark.parametrize(
    ("identity", "begins", "ends", "told"),
    [
        ("127.0.0.1", None, -1.0, "its certificate has expired -> renew it"),
        ("127.0.0.1", 1.0, 9.0, "its certificate is not yet valid -> is a clock wrong"),
        ("elsewhere.example.org", None, None, "is for another name than '127.0.0.1' -> connect by a name"),
    ],
    ids=["expired", "not yet valid", "another name"],
)
def test_a_certificate_that_does_not_serve(
    authority: Authority, identity: str, begins: float | None, ends: float | None, told: str
) -> None:
    pair = authority.issue("faulty", identity, begins=begins, ends=ends)
    with serving(*pair.as_server, tls=True) as server:
        assert told in first("bad", server.endpoint, ca_cert=authority.ca)


def test_a_certificate_that_expires_soon_is_doubtful(authority: Authority) -> None:
    with serving(*authority.issue("soon", "127.0.0.1", ends=3.0).as_server, tls=True) as server:
        told = the_one("doubtful", server.endpoint, ca_cert=authority.ca)
    assert "expires in 3.0 days -> renew it" in told


def test_a_client_in_the_clear_on_a_tls_server(tls_etcd: EtcdServer) -> None:
    assert "it speaks TLS, and was spoken to in the clear -> write https://" in first("bad", tls_etcd.endpoint)


def test_a_tls_client_on_a_server_in_the_clear(etcd: EtcdServer, authority: Authority) -> None:
    told = first("bad", f"https://{etcd.endpoint}", ca_cert=authority.ca)
    assert "makes no TLS handshake, as one that speaks in the clear -> write http://" in told


@pytest.mark.parametrize("who", ["no", "another authority's"])
def test_a_client_without_the_certificate_that_the_server_wants(
    authority: Authority, stranger: Authority, who: str
) -> None:
    shown = {} if who == "no" else stranger.issue("client", "rank-0@example.org").as_client
    wanting = ("--client-cert-auth", "--trusted-ca-file", authority.ca)
    with serving(*authority.issue("mutual", "127.0.0.1").as_server, *wanting, tls=True) as server:
        told = first("bad", server.endpoint, ca_cert=authority.ca, **shown)
        served = authority.issue("client", "rank-0@example.org").as_client
        assert said("bad", server.endpoint, ca_cert=authority.ca, **served) == []
    assert "cert_cert and cert_key" in told


def test_a_key_that_belongs_to_another_certificate(tls_etcd: EtcdServer, authority: Authority) -> None:
    one, other = (authority.issue(stem, "rank-0@example.org") for stem in ("one", "other"))
    files = {"ca_cert": authority.ca, "cert_cert": one.certificate, "cert_key": other.key}
    assert "check ca_cert, and that cert_key belongs to cert_cert" in first("bad", tls_etcd.endpoint, **files)


# --- users ---


def test_a_user_with_the_right_password_is_let_in(users_etcd: EtcdServer) -> None:
    (told,) = [text for text in said("good", users_etcd.endpoint, **login()) if "quorum" in text]
    assert "it lets the user in" in told


def login(password: str = Users.PASSWORD) -> dict[str, Any]:
    return {"user": Users.NAME, "password": password}


def test_a_wrong_password_is_told_and_not_shown(users_etcd: EtcdServer) -> None:
    secret = "canary-31415"
    told = the_one("bad", users_etcd.endpoint, **login(secret))
    assert "the user was refused" in told
    assert "correct user and password" in told
    assert not any(secret in text for _, text in diagnose({"endpoints": [users_etcd.endpoint], **login(secret)}))


def test_a_cluster_that_wants_a_user(users_etcd: EtcdServer) -> None:
    assert "the cluster wants a user -> give the options user and password" in the_one("bad", users_etcd.endpoint)


def test_a_user_where_none_is_asked_for_is_doubtful(etcd: EtcdServer) -> None:
    found = said("doubtful", etcd.endpoint, **login())
    assert any("asks for none" in text and "-> etcdctl auth enable" in text for text in found)


# --- the servers' state ---


def test_a_server_that_is_out_of_space(own_etcd: EtcdServer) -> None:
    own_etcd.run_out_of_space()
    told = the_one("bad", own_etcd.endpoint)
    assert "alarm NOSPACE" in told
    assert "etcdctl alarm disarm" in told


def test_a_server_whose_space_is_nearly_used(monkeypatch: pytest.MonkeyPatch, etcd: EtcdServer) -> None:
    monkeypatch.setattr(diagnosis, "DEFAULT_QUOTA", 16_384)  # before 3.6 a server does not tell its own
    assert "takes no writes -> compact and defragment it" in the_one("doubtful", etcd.endpoint)


def test_a_request_size_that_the_server_does_not_take(etcd: EtcdServer) -> None:
    told = the_one("bad", etcd.endpoint, max_request_bytes=3_000_000)
    assert "takes requests of 1572864 bytes at the most, and max_request_bytes is 3000000 -> set the option to" in told


def test_a_request_size_that_the_server_takes_is_good() -> None:
    with serving("--max-request-bytes", "3000000") as server:
        assert said("bad", server.endpoint, max_request_bytes=3_000_000) == []
        assert "to 3000000, or start" in the_one("bad", server.endpoint, max_request_bytes=3_000_001)


def test_clocks_that_differ_are_doubtful(monkeypatch: pytest.MonkeyPatch, etcd: EtcdServer) -> None:
    monkeypatch.setattr(diagnosis, "time", lambda: time() + 3600.0)
    assert "s behind this machine's -> set both by NTP" in the_one("doubtful", etcd.endpoint)


# --- several members ---


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster(3) as running:
        yield running


def test_endpoints_that_leave_members_out_are_doubtful(cluster: EtcdCluster) -> None:
    told = the_one("doubtful", cluster.endpoints[0])
    assert "1 of 3 members" in told
    assert all(endpoint in told for endpoint in cluster.endpoints[1:])
    assert said("doubtful", *cluster.endpoints) == said("bad", *cluster.endpoints) == []


def test_a_member_that_is_away_is_doubtful_while_the_rest_has_a_quorum(cluster: EtcdCluster) -> None:
    away = cluster.followers[0]
    away.kill()
    try:
        away_told, others_told = said("doubtful", *cluster.endpoints)
        assert said("bad", *cluster.endpoints) == []
    finally:
        away.start()
    assert f"etcd at {away.endpoint}: nobody listens there" in away_told
    assert "2 of 3 members" in others_told


def test_a_cluster_without_a_quorum_is_bad(cluster: EtcdCluster) -> None:
    away = cluster.followers
    for member in away:
        member.kill()
    try:
        found = said("bad", *cluster.endpoints)
    finally:
        cluster.start(away)
    assert sum("nobody listens there" in text for text in found) == 2
    assert any("a read that needs a quorum failed" in text and "-> start the members" in text for text in found)


def test_endpoints_of_different_clusters_are_bad(etcd: EtcdServer, own_etcd: EtcdServer) -> None:
    assert "belong to different clusters" in the_one("bad", etcd.endpoint, own_etcd.endpoint)


# --- options that make no sense ---


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"endpoints": []},
        {"endpoints": ["nonsense:port"]},
        {"endpoints": ["127.0.0.1:1"], "no_such_option": 1},
        {"endpoints": ["https://127.0.0.1:1"], "ca_cert": "/no/such/file.pem"},
        {"endpoints": ["127.0.0.1:1"], "grpc_options": "text"},
        {"host": "h" * 300},
        {"host": "127.0.0.1", "port": "many"},
    ],
)
def test_options_that_make_no_sense_are_told_and_raise_nothing(options: dict[str, object]) -> None:
    found = list(diagnose(options))
    assert found
    assert all(level == "bad" and " -> " in text for level, text in found)


def test_a_failure_of_the_examination_itself_is_told(monkeypatch: pytest.MonkeyPatch, etcd: EtcdServer) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(diagnosis, "_space", fail)
    assert "failed with RuntimeError -> run it again" in first("bad", etcd.endpoint)


def test_nothing_is_written(own_etcd: EtcdServer) -> None:
    assert said("bad", own_etcd.endpoint) == []
    assert own_etcd.ctl("get", "", "--from-key", "--keys-only") == ""
