"""What the diagnosis says of members and the cluster that they make: alarms, space, quorum, learners, who belongs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from doctor_run import said, the_one
from etcd_server import EtcdCluster, EtcdServer
from etcd_troubles import SMALL, fill, learner_beside, make_data_differ
from etha_kvstore_etcd import diagnose_member
from etha_kvstore_etcd.diagnose import diagnose

pytestmark = pytest.mark.xdist_group("etcd-diagnose-cluster")


def at(*endpoints: str, **options: object) -> list[tuple[str, str]]:
    return list(diagnose({"endpoints": list(endpoints), **options}))


# --- one member ---


def test_a_server_whose_quota_is_used_is_out_of_space_until_what_is_said_is_done() -> None:
    with EtcdServer(*SMALL) as server:
        fill(server)
        told = the_one("bad", at(server.endpoint))
        assert f"the member at {server.endpoint} is out of space (alarm NOSPACE)" in told
        assert "and the cluster takes no writes -> compact and defragment it" in told
        assert told.endswith("then etcdctl alarm disarm")
        server.compact()
        server.ctl("defrag")
        server.ctl("alarm", "disarm")
        server.ctl("put", "job/trainer/small", "1")
        assert said("bad", at(server.endpoint)) == []


def test_a_server_whose_space_is_nearly_used(monkeypatch: pytest.MonkeyPatch, etcd: EtcdServer) -> None:
    monkeypatch.setattr(diagnose_member, "DEFAULT_QUOTA", 16_384)  # before 3.6 a server does not tell its own
    assert "takes no writes -> compact and defragment it" in the_one("doubtful", at(etcd.endpoint))


def test_a_request_size_that_the_server_does_not_take(etcd: EtcdServer) -> None:
    told = the_one("bad", at(etcd.endpoint, max_request_bytes=3_000_000))
    assert "takes requests of 1572864 bytes at the most, and max_request_bytes is 3000000 -> set the option to" in told


def test_a_request_size_that_the_server_takes_is_good() -> None:
    with EtcdServer("--max-request-bytes", "3000000") as server:
        assert said("bad", at(server.endpoint, max_request_bytes=3_000_000)) == []
        assert "to 3000000, or start" in the_one("bad", at(server.endpoint, max_request_bytes=3_000_001))


# --- several members ---


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster(3) as running:
        yield running


def test_endpoints_that_leave_members_out_are_doubtful(cluster: EtcdCluster) -> None:
    told = the_one("doubtful", at(cluster.endpoints[0]))
    assert "1 of 3 members" in told
    assert all(endpoint in told for endpoint in cluster.endpoints[1:])
    assert said("doubtful", at(*cluster.endpoints)) == said("bad", at(*cluster.endpoints)) == []


def test_a_member_that_is_away_is_doubtful_while_the_rest_has_a_quorum(cluster: EtcdCluster) -> None:
    away = cluster.followers[0]
    away.kill()
    try:
        away_told, others_told = said("doubtful", at(*cluster.endpoints))
        assert said("bad", at(*cluster.endpoints)) == []
    finally:
        away.start()
    assert f"etcd at {away.endpoint}: nobody listens there" in away_told
    assert "2 of 3 members" in others_told


def test_a_cluster_without_a_quorum_is_bad(cluster: EtcdCluster) -> None:
    away = cluster.followers
    for member in away:
        member.kill()
    try:
        found = said("bad", at(*cluster.endpoints))
    finally:
        cluster.start(away)
    assert sum("nobody listens there" in text for text in found) == 2
    assert any("a read that needs a quorum failed" in text and "-> start the members" in text for text in found)


def test_members_whose_data_differ_are_bad_and_told_once() -> None:
    with make_data_differ() as differing:
        told = the_one("bad", at(*differing.endpoints))
    assert "holds other data than the rest (alarm CORRUPT), and the cluster takes no writes" in told
    assert "-> find it with etcdctl endpoint hashkv --cluster, remove it, add it with no data" in told


def test_a_learner_is_bad_alone_and_doubtful_beside_one_who_votes(own_etcd: EtcdServer) -> None:
    with learner_beside(own_etcd) as learner:
        alone = the_one("bad", at(learner.endpoint))
        beside = at(learner.endpoint, own_etcd.endpoint)
    assert "it is a learner, which serves nobody -> name voting members, or promote it" in alone
    assert said("doubtful", beside) == [alone]
    assert said("bad", beside) == []


def test_endpoints_of_different_clusters_are_bad(etcd: EtcdServer, own_etcd: EtcdServer) -> None:
    assert "belong to different clusters" in the_one("bad", at(etcd.endpoint, own_etcd.endpoint))
