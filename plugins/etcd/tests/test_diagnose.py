"""What the diagnosis says of a server that is well, of one that can't be reached, and of options that make no sense."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from time import time

import pytest

from doctor_run import said, the_one
from etcd_server import EtcdServer, crash_etcd, etcd_version, free_port
from etha_kvstore_etcd import diagnose_member
from etha_kvstore_etcd.diagnose import diagnose
from etha_kvstore_etcd.known_versions import judge_version
from etha_kvstore_testkit.observe import takes
from laboratory import Stranger

pytestmark = pytest.mark.xdist_group("etcd-diagnose")


def at(*endpoints: str, **options: object) -> list[tuple[str, str]]:
    return list(diagnose({"endpoints": list(endpoints), **options}))


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
    assert said("bad", at(host=host, port=port)) == said("doubtful", at(host=host, port=port)) == []


@pytest.mark.parametrize(
    ("version", "users", "fault"),
    [
        ("3.5.0", False, "may lose writes in a crash"),
        ("3.5.2", False, "may lose writes in a crash"),
        ("3.4.23", False, "gets no fixes"),
        ("3.5.32", True, "watch every later key"),
        ("3.6.13", True, "watch every later key"),
    ],
)
def test_a_version_that_is_known_for_a_fault_is_doubtful_and_its_fault_named(
    version: str, users: bool, fault: str
) -> None:
    judged = judge_version(version, users=users)
    assert judged is not None
    level, text = judged
    assert level == "doubtful"
    assert fault in text
    assert "-> upgrade to" in text


@pytest.mark.parametrize(
    ("version", "users"),
    [("3.5.3", False), ("3.5.33", True), ("3.6.14", True), ("3.6.0", False), ("3.7.0", True), ("unknown", True)],
)
def test_nothing_is_said_against_other_versions(version: str, users: bool) -> None:
    assert judge_version(version, users=users) is None


def test_clocks_that_differ_are_doubtful(monkeypatch: pytest.MonkeyPatch, etcd: EtcdServer) -> None:
    monkeypatch.setattr(diagnose_member, "time", lambda: time() + 3600.0)
    assert "s behind this machine's -> set both by NTP" in the_one("doubtful", at(etcd.endpoint))


# --- no way there ---


def test_a_port_where_nobody_listens() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    assert f"etcd at {endpoint}: nobody listens there -> start etcd" in the_one("bad", at(endpoint))


def test_a_name_that_does_not_resolve() -> None:
    assert "'etcd.invalid' does not resolve -> correct the endpoint" in the_one("bad", at("etcd.invalid:2379"))


def test_a_frozen_server(own_etcd: EtcdServer) -> None:
    own_etcd.freeze()
    assert "takes connections and says nothing within 1.5 s -> is the process frozen" in the_one(
        "bad", at(own_etcd.endpoint)
    )


def test_several_silent_endpoints_take_no_longer_than_one() -> None:
    with ExitStack() as listening:
        silent = [listening.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        endpoints = [f"127.0.0.1:{each.getsockname()[1]}" for each in silent]
        with takes(at_most=diagnose_member.LONGEST + 1.0):
            each = said("bad", at(*endpoints))
    assert len(each) == 4
    assert all("says nothing" in text for text in each)


def test_a_web_server_that_is_no_etcd() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    stranger = Stranger(endpoint)
    try:
        told = the_one("bad", at(endpoint))
    finally:
        stranger.leave()
    assert "does not answer as etcd does -> correct the endpoint" in told


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

    monkeypatch.setattr(diagnose_member, "_space", fail)
    assert "failed with RuntimeError -> run it again" in the_one("bad", at(etcd.endpoint))


def test_nothing_is_written(own_etcd: EtcdServer) -> None:
    assert said("bad", at(own_etcd.endpoint)) == []
    assert own_etcd.ctl("get", "", "--from-key", "--keys-only") == ""
