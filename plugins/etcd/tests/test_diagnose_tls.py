"""What the diagnosis says where TLS or a user is what keeps a store from its servers: what it is, and what to do."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest

from authority import Authority
from doctor_run import said, the_one
from etcd_server import EtcdServer
from etha_kvstore_etcd.diagnose import diagnose
from etha_kvstore_etcd.diagnose_network import Way
from laboratory import Users

pytestmark = pytest.mark.xdist_group("etcd-diagnose-tls")


def at(*endpoints: str, **options: object) -> list[tuple[str, str]]:
    return list(diagnose({"endpoints": list(endpoints), **options}))


# --- TLS ---


def test_with_the_right_authority_nothing_is_bad_or_doubtful(tls_etcd: EtcdServer, authority: Authority) -> None:
    assert said("bad", at(tls_etcd.endpoint, ca_cert=authority.ca)) == []
    assert said("doubtful", at(tls_etcd.endpoint, ca_cert=authority.ca)) == []


def test_a_certificate_of_another_authority(tls_etcd: EtcdServer, stranger: Authority) -> None:
    told = the_one("bad", at(tls_etcd.endpoint, ca_cert=stranger.ca))
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
    with EtcdServer(*pair.as_server, tls=True) as server:
        assert told in the_one("bad", at(server.endpoint, ca_cert=authority.ca))


def test_a_certificate_that_expires_soon_is_doubtful(authority: Authority) -> None:
    with EtcdServer(*authority.issue("soon", "127.0.0.1", ends=3.0).as_server, tls=True) as server:
        told = the_one("doubtful", at(server.endpoint, ca_cert=authority.ca))
    assert "expires in 3.0 days -> renew it" in told


def test_a_client_in_the_clear_on_a_tls_server(tls_etcd: EtcdServer) -> None:
    assert "it speaks TLS, and was spoken to in the clear -> give ca_cert" in the_one("bad", at(tls_etcd.endpoint))


def test_tls_is_heard_even_where_the_server_ends_the_handshake(authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("strict", "127.0.0.1"))
    context.load_verify_locations(authority.ca)
    context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_2

    def refuse(listener: socket.socket) -> None:
        with suppress(ssl.SSLError), listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True):
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = Thread(target=refuse, args=(listener,))
        refusing.start()
        assert Way("127.0.0.1", listener.getsockname()[1], None).speaks_tls()
        refusing.join()


def test_a_tls_client_on_a_server_in_the_clear(etcd: EtcdServer, authority: Authority) -> None:
    told = the_one("bad", at(f"https://{etcd.endpoint}", ca_cert=authority.ca))
    assert "makes no TLS handshake, as one that speaks in the clear -> leave https://" in told


@pytest.mark.parametrize("who", ["no", "another authority's"])
def test_a_client_without_the_certificate_that_the_server_wants(
    authority: Authority, stranger: Authority, who: str
) -> None:
    shown = {} if who == "no" else stranger.issue("client", "rank-0@example.org").as_client
    wanting = ("--client-cert-auth", "--trusted-ca-file", authority.ca)
    with EtcdServer(*authority.issue("mutual", "127.0.0.1").as_server, *wanting, tls=True) as server:
        told = the_one("bad", at(server.endpoint, ca_cert=authority.ca, **shown))
        served = authority.issue("client", "rank-0@example.org").as_client
        assert said("bad", at(server.endpoint, ca_cert=authority.ca, **served)) == []
    assert "cert_cert and cert_key" in told


def test_a_key_that_belongs_to_another_certificate(tls_etcd: EtcdServer, authority: Authority) -> None:
    one, other = (authority.issue(stem, "rank-0@example.org") for stem in ("one", "other"))
    files = {"ca_cert": authority.ca, "cert_cert": one.certificate, "cert_key": other.key}
    assert "check ca_cert, and that cert_key belongs to cert_cert" in the_one("bad", at(tls_etcd.endpoint, **files))


# --- users ---


def test_a_user_with_the_right_password_is_let_in(users_etcd: EtcdServer) -> None:
    (told,) = [text for text in said("good", at(users_etcd.endpoint, **login())) if "quorum" in text]
    assert "it lets the user in" in told


def login(password: str = Users.PASSWORD) -> dict[str, Any]:
    return {"user": Users.NAME, "password": password}


def test_a_wrong_password_is_told_and_not_shown(users_etcd: EtcdServer) -> None:
    secret = "canary-31415"
    told = the_one("bad", at(users_etcd.endpoint, **login(secret)))
    assert "the user was refused" in told
    assert "correct user and password" in told
    assert not any(secret in text for _, text in diagnose({"endpoints": [users_etcd.endpoint], **login(secret)}))


def test_a_cluster_that_wants_a_user(users_etcd: EtcdServer) -> None:
    assert "the cluster wants a user -> give the options user and password" in the_one("bad", at(users_etcd.endpoint))


def test_a_user_where_none_is_asked_for_is_doubtful(etcd: EtcdServer) -> None:
    found = said("doubtful", at(etcd.endpoint, **login()))
    assert any("asks for none" in text and "-> etcdctl auth enable" in text for text in found)
