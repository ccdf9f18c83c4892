"""``etha-kv doctor`` on an etcd that is well, and on those that are not: the way there, the servers, the cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from doctor_run import Diagnosis, run_doctor
from etcd_server import EtcdCluster, EtcdServer, crash_etcd, etcd_version, free_port
from etcd_troubles import SMALL, fill, learner_beside, make_data_differ

pytestmark = pytest.mark.xdist_group("doctor-etcd")


@pytest.fixture(scope="module")
def older() -> Iterator[EtcdServer]:
    with EtcdServer(binary=crash_etcd()) as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster(3) as running:
        yield running


def examine(*endpoints: str, query: str = "", **environment: str) -> Diagnosis:
    return run_doctor("--url", f"etcd://{','.join(endpoints)}/job/trainer?{query}".rstrip("?"), environment=environment)


# --- all is well ---


def test_a_healthy_store_is_good_but_for_the_age_of_its_server(older: EtcdServer) -> None:
    found = examine(older.endpoint)
    assert found.code == 0
    assert found.of("bad") == []
    (old,) = found.of("doubtful")
    assert old.startswith(f"etcd at {older.endpoint} is {etcd_version(crash_etcd())}, which")
    assert " -> upgrade to" in old
    good = found.of("good")
    assert any(f"etcd at {older.endpoint} answers in" in text for text in good)
    for what in ("read", "list", "write", "read back", "watch", "delete"):
        assert any(text.startswith(f"{what}: works") for text in good), what
    assert any(
        text.startswith("limits: timeout=10.0, connect_timeout=30.0, max_request_bytes=1572864") for text in good
    )
    assert older.ctl("get", "", "--from-key", "--keys-only") == "", "the key of the probe is gone"


# --- no way there ---


def test_a_port_where_nobody_listens_ends_with_3_and_is_the_first_to_be_mended() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    found = examine(endpoint)
    assert found.code == 3
    reached, opened = found.of("bad")
    assert reached.startswith(f"etcd at {endpoint}: nobody listens there -> start etcd")
    assert opened.startswith("the store can't be opened")
    assert opened.endswith("-> see the bad lines before this one")


def test_a_name_that_does_not_resolve_ends_with_3() -> None:
    found = examine("etcd.invalid:2379")
    assert found.code == 3
    assert "the name 'etcd.invalid' does not resolve -> correct the endpoint" in found.of("bad")[0]


def test_one_that_takes_connections_and_says_nothing_ends_with_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = examine(f"127.0.0.1:{silent.getsockname()[1]}")
    assert found.code == 3
    assert "says nothing within 1.5 s -> is the process frozen" in found.of("bad")[0]


def test_a_frozen_server_ends_with_3_within_seconds() -> None:
    with EtcdServer() as server:
        server.freeze()
        began = monotonic()
        found = examine(server.endpoint)
        took = monotonic() - began
    assert found.code == 3
    assert "says nothing within 1.5 s -> is the process frozen" in found.of("bad")[0]
    assert took < 15.0


# --- one server ---


def test_a_server_that_is_out_of_space_is_told_with_the_cure() -> None:
    with EtcdServer(*SMALL) as server:
        fill(server)
        found = examine(server.endpoint)
    assert found.code == 1
    alarm, written = found.of("bad")
    assert "alarm NOSPACE" in alarm
    assert "etcdctl alarm disarm" in alarm
    assert written.startswith("write: failed")


def test_a_request_size_that_the_server_does_not_take_is_told(older: EtcdServer) -> None:
    found = examine(older.endpoint, query="max_request_bytes=3000000")
    assert found.code == 1
    assert "takes requests of 1572864 bytes at the most" in found.of("bad")[0]


def test_a_clock_an_hour_ahead_is_told(older: EtcdServer, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import time\nright = time.time\ntime.time = lambda: right() + 3600\n")
    found = examine(older.endpoint, PYTHONPATH=str(tmp_path))
    assert any("behind this machine's -> set both by NTP" in text for text in found.of("doubtful"))


def test_a_learner_ends_with_3() -> None:
    with EtcdServer() as voter, learner_beside(voter) as learner:
        found = examine(learner.endpoint)
    assert found.code == 3
    assert "is a learner, which serves nobody -> name voting members, or promote it" in found.of("bad")[0]


# --- a cluster ---


def test_one_of_three_members_that_is_away_is_doubtful_and_the_rest_works(cluster: EtcdCluster) -> None:
    away = cluster.followers[0]
    away.kill()
    try:
        found = examine(*cluster.endpoints)
    finally:
        cluster.start([away])
    assert found.code == 0
    assert found.of("bad") == []
    assert any(text.startswith(f"etcd at {away.endpoint}: nobody listens there") for text in found.of("doubtful"))
    assert any(text.startswith("delete: works") for text in found.of("good"))


def test_a_cluster_without_a_quorum_ends_with_3(cluster: EtcdCluster) -> None:
    away = cluster.followers
    for member in away:
        member.kill()
    try:
        found = examine(*cluster.endpoints)
    finally:
        cluster.start(away)
    assert found.code == 3
    assert any("a read that needs a quorum failed" in text and "start the members" in text for text in found.of("bad"))


def test_members_whose_data_differ_are_told_and_nothing_is_blamed_on_the_backend() -> None:
    with make_data_differ() as differing:
        found = examine(*differing.endpoints)
    assert found.code == 1
    bad = found.of("bad")
    assert "holds other data than the rest (alarm CORRUPT)" in bad[0]
    assert not any("report it to who makes that backend" in text for text in bad)


# --- the configuration ---


def test_a_name_in_the_configuration_that_is_no_option_ends_with_2() -> None:
    found = examine("127.0.0.1:2379", query="pasword=canary-31415")
    assert found.code == 2
    assert any("did you mean 'password'?" in text for text in found.of("bad"))
    assert "canary-31415" not in found.text


def test_a_file_that_can_not_be_read_is_named_although_its_option_may_hold_a_secret(tmp_path: Path) -> None:
    found = examine("127.0.0.1:2379", query=f"ca_cert={tmp_path}/ca.pem")
    assert found.code == 2
    assert all(f"{tmp_path}/ca.pem can't be read: No such file" in text for text in found.of("bad"))
