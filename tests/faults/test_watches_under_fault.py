"""Watches on real servers that lose connections, processes and histories: every guarantee holds for every watcher."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from etcd_server import EtcdServer, crash_etcd
from etha.kvstore import KVStore
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_etcd.connection import Login
from etha_kvstore_memory import MemoryStore
from etha_kvstore_memory.hub import MemoryHub
from laboratory import EtcdClusterSite, EtcdSite, EtcdUsersSite
from tcp_proxy import Direction, TcpProxy
from watch_guarantees import GUARANTEES, convergent, resumable
from watch_log import Written
from watch_traffic import Run, run_on_etcd
from watch_writers import COMPONENTS, KEYS, EtcdWriter, MemoryWriter, RecordedDict

SEED = "2026"

QUICK = {"grpc.keepalive_time_ms": 1000}
"""So that a silent connection is tried after a second, where a user's is after ten; it has as long to answer."""

ETCD = ("--grpc-keepalive-min-time", "100ms", "--heartbeat-interval", "100", "--election-timeout", "500")
"""So that etcd takes no offence at that, and is soon there again."""

MORE_THAN_PINGS = 400
"""Bytes: what HTTP/2 says of its own accord while something is held is less."""

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def shared_etcd() -> Iterator[EtcdSite]:
    with EtcdSite(*ETCD, binary=crash_etcd()) as site:
        yield site


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[EtcdClusterSite]:
    with EtcdClusterSite(*ETCD, binary=crash_etcd()) as site:
        yield site


@pytest.fixture
def etcd(shared_etcd: EtcdSite) -> Iterator[EtcdSite]:
    yield shared_etcd
    shared_etcd.renew()


@pytest.fixture
def cluster(shared_cluster: EtcdClusterSite) -> Iterator[EtcdClusterSite]:
    yield shared_cluster
    shared_cluster.renew()


@pytest.fixture
def run(etcd: EtcdSite, record_property: Record) -> Iterator[Run]:
    """Run two stores on one etcd, with five watchers each."""
    with run_on_etcd(etcd.namespace, SEED, etcd.endpoints) as run:
        run.write(10)
        run.watch_all(etcd.open(grpc_options=QUICK), etcd.open(grpc_options=QUICK))
        run.write(100)
        run.settle()
        record_property("watch runs", 1)
        yield run


def lose_replies(run: Run, proxy: TcpProxy) -> None:
    """Have the server tell both stores of changes that do not arrive."""
    proxy.hold("replies")
    run.write(15)
    proxy.await_struck("replies", links=2, size=MORE_THAN_PINGS)


@pytest.mark.xdist_group("watches")
def test_a_watch_whose_connections_are_cut_goes_on_where_it_was(etcd: EtcdSite, run: Run) -> None:
    idle = run.watch(etcd.open(grpc_options=QUICK), paused=True)  # nobody consumes it until the end
    for _ in range(5):
        lose_replies(run, etcd.proxy)
        late = [etcd.beside() for _ in range(2)]
        run.cut()
        etcd.proxy.reset()
        with run.writing(40):
            for store in late:  # a watch that begins in the midst of it
                run.watch(store)
        run.settle()
    assert not idle.log.changes
    run.write(30)
    run.verdict(least=10)
    assert not any(watcher.log.relists for watcher in run.watchers)


@pytest.mark.xdist_group("watches")
def test_a_watch_whose_history_is_compacted_away_reads_again_and_converges(etcd: EtcdSite, run: Run) -> None:
    for _ in range(4):
        lose_replies(run, etcd.proxy)
        run.compact(etcd.server)
        run.cut()
        etcd.proxy.reset()
        run.write(10)
        run.settle()
    run.verdict()
    assert {watcher.log.relists for watcher in run.watchers} == {4}


@pytest.mark.xdist_group("watches")
@pytest.mark.parametrize("puts", [0, 1], ids=["a deletion", "a transaction with a deletion"])
def test_a_deletion_at_the_very_revision_of_a_compaction_is_not_missed(etcd: EtcdSite, run: Run, puts: int) -> None:
    prefix = f"{run.namespace}/{COMPONENTS[0]}/"
    writer = run.writers[0]
    for _ in range(2):
        writer.write({prefix + "rank:2": writer.value()})
        run.settle()
        etcd.proxy.hold("replies")
        writer.write({prefix + "rank:2": None} | {prefix + f"rank:{n}": writer.value() for n in (0, 10)[: 2 * puts]})
        etcd.proxy.await_struck("replies", links=2)
        run.compact(etcd.server)
        run.cut()
        etcd.proxy.reset()
        run.settle()
    run.verdict()


@pytest.mark.xdist_group("watches")
@pytest.mark.parametrize("end", [EtcdServer.kill, EtcdServer.stop])
def test_a_watch_outlasts_a_server_that_restarts_with_its_data(
    etcd: EtcdSite, run: Run, end: Callable[[EtcdServer], None]
) -> None:
    for held in (True, False):
        if held:
            lose_replies(run, etcd.proxy)
        with run.writing(50):
            run.cut()
            end(etcd.server)
            etcd.proxy.reset()
            etcd.server.start()
        run.settle()
    run.verdict()


@pytest.mark.xdist_group("watches")
@pytest.mark.parametrize("end", ["release", "reset"])
@pytest.mark.parametrize(
    "directions", [("requests", "replies"), ("requests",), ("replies",)], ids=["both ways", "requests", "replies"]
)
def test_a_watch_outlasts_a_black_hole(etcd: EtcdSite, run: Run, directions: tuple[Direction, ...], end: str) -> None:
    run.cut()
    etcd.proxy.blackhole(*directions)
    run.write(20)
    for direction in directions:
        etcd.proxy.await_struck(direction, links=2)
    getattr(etcd.proxy, end)()
    run.settle()
    run.verdict()


@pytest.mark.xdist_group("watches")
def test_a_transaction_that_comes_in_fragments_is_seen_whole(etcd: EtcdSite, run: Run) -> None:
    prefix = f"{run.namespace}/{COMPONENTS[0]}/rank:"
    writer = run.writers[0]
    for _ in range(2):
        etcd.proxy.hold("replies")
        for _ in range(4):  # together more than etcd sends at once, and no whole number of transactions fits in that
            large = writer.value().ljust(450_000, b".")
            writer.write({prefix + rank: large for rank in ("0", "2", "10")})
        etcd.proxy.await_struck("replies", links=2, size=MORE_THAN_PINGS)
        run.cut()
        etcd.proxy.reset()
        run.settle()
    run.verdict()


@pytest.mark.xdist_group("watches")
def test_a_watch_of_a_server_that_lost_everything_ends_in_the_state_of_the_new_one(etcd: EtcdSite, run: Run) -> None:
    run.write(100)
    run.settle()
    lose_replies(run, etcd.proxy)
    etcd.server.wipe_and_restart()
    for writer in run.writers:
        assert isinstance(writer, EtcdWriter)
        writer.forget()
    run.cut()
    etcd.proxy.reset()
    run.write(10)
    run.verdict([convergent])  # the others compare with a history, and there are two
    assert all(watcher.log.relists for watcher in run.watchers)


@pytest.mark.xdist_group("watches-cluster")
@pytest.mark.parametrize("fault", ["killed", "frozen", "frozen, and thawed before anybody noticed"])
def test_a_watch_outlasts_the_leader(cluster: EtcdClusterSite, fault: str, record_property: Record) -> None:
    leader = cluster.cluster.leader
    number = cluster.cluster.members.index(leader)
    ahead: dict[str, Any] = {
        "endpoints": cluster.asking_first(leader),
        "grpc_options": {} if "thawed" in fault else QUICK,
    }
    with run_on_etcd(cluster.namespace, SEED, cluster.endpoints[number:] + cluster.endpoints[:number]) as run:
        run.watch_all(cluster.open(**ahead), cluster.open(**ahead))
        run.write(100)
        run.settle()
        lose_replies(run, cluster.proxies[number])
        run.cut()
        if fault == "killed":
            leader.kill()
        else:
            leader.freeze()
        cluster.proxies[number].release()
        run.write(30)
        if "thawed" not in fault:
            run.settle()
        if fault == "killed":
            leader.start()
        else:
            leader.thaw()
        run.write(20)
        run.settle()
        assert cluster.cluster.leader is not leader
        run.verdict()
    record_property("watch runs", 1)


@pytest.mark.xdist_group("watches-users")
def test_a_watch_outlasts_its_token(record_property: Record) -> None:
    with EtcdUsersSite(*ETCD, binary=crash_etcd()) as site:
        login = Login(*site.users.login.values())
        with run_on_etcd(site.namespace, SEED, site.endpoints, login) as run:
            stores = [site.open(), site.open()]
            run.watch_all(*stores)
            for cut in (False, True):
                run.write(20)
                run.settle()
                tokens = [token(store) for store in stores]
                site.users.expire_tokens()
                if cut:
                    lose_replies(run, site.proxy)
                    run.cut()
                    site.proxy.reset()
                else:
                    run.write(10)
                    run.cut()  # what a store does to its own stream when it has another token
                    for store in stores:
                        run.watch(store)
                run.settle()
                assert all(token(store) != old for store, old in zip(stores, tokens, strict=True))
            run.verdict(least=10)
    record_property("watch runs", 1)


def token(store: KVStore) -> object:
    """Tell with which token a store comes."""
    assert isinstance(store, EtcdStore)
    return store._connection.metadata


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient")
def test_watches_of_memory_stores_keep_every_guarantee_that_needs_no_connection(record_property: Record) -> None:
    name, neighbour = "job", "job-2"
    written: list[Written] = []
    hub = MemoryHub()
    hub._values = RecordedDict(written)
    with (
        MemoryStore(name, COMPONENTS[0], hub=hub) as one,
        MemoryStore(name, COMPONENTS[1], hub=hub) as other,
        MemoryStore(neighbour, COMPONENTS[0], hub=hub) as beside,
    ):
        stores = {name: one, neighbour: beside}
        writers = [MemoryWriter(name, KEYS, f"{SEED} {number}", stores) for number in range(3)]
        with Run(name, writers, written) as run:
            run.watch_all(one, other)
            slow = run.watch(one, paused=True)
            for _ in range(5):
                with run.writing(200):
                    run.watch(one)
                    run.watch(other, "rank:*")
                run.settle()
            assert not slow.log.changes
            run.verdict([guarantee for guarantee in GUARANTEES if guarantee is not resumable])
            assert len(slow.log.changes) > 500
    record_property("watch runs", 1)
