"""``etha-kv doctor`` on an etcd that is well, and on those that are not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority import Authority
from doctor_run import Diagnosis, run_doctor
from etcd_server import EtcdCluster, EtcdServer, crash_etcd, etcd_version, free_port
from laboratory import Users

pytestmark = pytest.mark.xdist_group("doctor-etcd")

USER = f"{Users.NAME}:{Users.PASSWORD}"


@pytest.fixture(scope="module")
def older() -> Iterator[EtcdServer]:
    with EtcdServer(binary=crash_etcd()) as server:
        yield server


def examine(endpoints: str, *arguments: str, where: str = "job/trainer", query: str = "") -> Diagnosis:
    return run_doctor("--url", f"etcd://{endpoints}/{where}?{query}".rstrip("?"), *arguments)


def but_for_the_version(found: Diagnosis, *levels: str) -> list[str]:
    return [text for text in found.of(*levels) if "-> upgrade to" not in text]


# --- all is well ---


def test_a_healthy_store_is_good_but_for_the_age_of_its_server(older: EtcdServer) -> None:
    found = examine(older.endpoint)
    assert but_for_the_version(found, "bad", "doubtful") == []
    told = found.of("good")
    assert any(f"etcd at {older.endpoint} answers in" in text for text in told)
    for what in ("read", "list", "write", "read back", "watch", "delete"):
        assert any(text.startswith(f"{what}: works") for text in told), what
    assert any(
        text.startswith("limits: timeout=10.0, connect_timeout=30.0, max_request_bytes=1572864") for text in told
    )
    assert older.ctl("get", "", "--from-key", "--keys-only") == "", "the key of the probe is gone"


def test_an_old_server_is_named_with_what_to_do(older: EtcdServer) -> None:
    version = etcd_version(crash_etcd())
    found = examine(older.endpoint, "--read-only")
    told = [text for text in found.of("bad", "doubtful") if "-> upgrade to" in text]
    assert len(told) == 1
    assert f"etcd at {older.endpoint} is {version}, which" in told[0]


# --- no way there ---


def test_a_port_where_nobody_listens_ends_with_3() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    found = examine(endpoint)
    assert found.code == 3
    assert any(text.startswith(f"etcd at {endpoint}: nobody listens there -> start etcd") for text in found.of("bad"))


def test_one_that_takes_connections_and_says_nothing_ends_with_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = examine(f"127.0.0.1:{silent.getsockname()[1]}")
    assert found.code == 3
    assert any("says nothing within 1.5 s -> is the process frozen" in text for text in found.of("bad"))


# --- TLS ---


def test_another_authority_ends_with_3(tmp_path: Path) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
    ours, theirs = (Authority(tmp_path / folder) for folder in ("ours", "theirs"))
    with EtcdServer(*theirs.issue("server", "127.0.0.1").as_server, tls=True) as server:
        found = examine(server.endpoint, query=f"ca_cert={ours.ca}")
        assert but_for_the_version(examine(server.endpoint, query=f"ca_cert={theirs.ca}"), "bad") == []
    assert found.code == 3
    assert any("not trusted here" in text and "-> give that authority's file" in text for text in found.of("bad"))


def test_an_expired_certificate_ends_with_3(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with EtcdServer(*authority.issue("server", "127.0.0.1", ends=-1.0).as_server, tls=True) as server:
        found = examine(server.endpoint, query=f"ca_cert={authority.ca}")
    assert found.code == 3
    assert any("its certificate has expired -> renew it" in text for text in found.of("bad"))


# --- users ---


@pytest.fixture(scope="module")
def users_etcd() -> Iterator[EtcdServer]:
    with EtcdServer("--bcrypt-cost", "4") as server:
        Users(server)
        yield server


def test_a_wrong_password_ends_with_3_and_is_not_shown(users_etcd: EtcdServer) -> None:
    found = examine(f"{Users.NAME}:canary-31415@{users_etcd.endpoint}")
    assert found.code == 3
    assert any("the user was refused" in text and "-> correct user and password" in text for text in found.of("bad"))
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
    found = examine(f"reader:reader-password@{users_etcd.endpoint}", where="shared/c")
    told = [text.partition(" refused: ")[0] for text in found.of("bad") if "permission denied" in text]
    assert told == ["write:"]
    allowed = [text.partition(":")[0] for text in found.of("good") if ": works" in text]
    assert allowed == ["read", "list"]
    assert found.code == 1
    assert (
        but_for_the_version(
            examine(f"reader:reader-password@{users_etcd.endpoint}", "--read-only", where="shared/c"), "bad"
        )
        == []
    )


# --- the servers' state ---


def test_a_server_that_is_out_of_space_is_told_with_the_cure() -> None:
    with EtcdServer() as server:
        server.run_out_of_space()
        found = examine(server.endpoint)
    assert found.code == 1
    assert any("alarm NOSPACE" in text and "etcdctl alarm disarm" in text for text in found.of("bad"))
    assert any(text.startswith("write: failed") for text in found.of("bad"))


def test_a_cluster_without_a_quorum_ends_with_3() -> None:
    with EtcdCluster(3) as cluster:
        for member in cluster.followers:
            member.kill()
        found = examine(",".join(cluster.endpoints))
    assert found.code == 3
    assert any("a read that needs a quorum failed" in text and "start the members" in text for text in found.of("bad"))


def test_a_name_in_the_configuration_that_is_no_option_ends_with_2() -> None:
    found = examine("127.0.0.1:2379", query="pasword=canary-31415")
    assert found.code == 2
    assert any("did you mean 'password'?" in text for text in found.of("bad"))
    assert "canary-31415" not in found.text
