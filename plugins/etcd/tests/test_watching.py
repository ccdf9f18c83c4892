"""Waits and watches that outlast what can happen to a watch: loss, compaction, another history, a silent stream."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from etcd_server import EtcdServer
from etha.kvstore import Change, skeleton
from etha.kvstore.errors import AuthenticationError, WaitTimeoutError
from etha.kvstore.follow import Batch, Selector
from etha_kvstore_etcd import ranges, watching
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.following import EtcdFollower
from etha_kvstore_etcd.watching import CHECK_SECONDS, SPREAD, WatchStream
from laboratory import Users
from tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from plugins.etcd.tests.conftest import OpenStore


@pytest.fixture
def proxy(own_etcd: EtcdServer) -> Iterator[TcpProxy]:
    with TcpProxy(own_etcd.endpoint) as proxy:
        yield proxy


def test_a_watch_resumes_after_a_lost_connection_without_missing_or_repeating_a_change(
    own_etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, writer = open_store(proxy.address), open_store(own_etcd.endpoint)
    with store.watch("n:*") as changes:
        for round_ in range(5):
            writer.set(f"n:{round_}", "before")
            assert changes.next(10) == Change(f"n:{round_}", b"before")
            proxy.reset()
            writer.set(f"n:{round_}", "during")
            writer.delete(f"n:{round_}")
            assert changes.next(10) == Change(f"n:{round_}", b"during")
            assert changes.next(10) == Change(f"n:{round_}", None)
        with pytest.raises(WaitTimeoutError):
            changes.next(0.2)


def test_a_watch_that_lost_its_revision_to_a_compaction_yields_the_net_difference(
    own_etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, writer = open_store(proxy.address), open_store(own_etcd.endpoint)
    writer.set("stays", "1")
    writer.set("goes", "1")
    with store.watch() as changes:
        mirror = dict(changes.state)
        writer.set("first", "1")
        assert changes.next(10) == Change("first", b"1")  # the stream is up
        proxy.hold("requests", "replies")
        writer.set("passes", "1")
        writer.delete("passes")
        writer.delete("goes")
        writer.set("comes", "1")
        own_etcd.compact()
        proxy.reset()
        net = {changes.next(20) for _ in range(2)}
        assert net == {Change("comes", b"1"), Change("goes", None)}
        mirror |= {"first": b"1", "comes": b"1"}
        del mirror["goes"]
        assert sorted(mirror) == writer.list_keys()


def test_a_wait_survives_a_compaction_while_its_connection_is_cut(
    own_etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, writer = open_store(proxy.address), open_store(own_etcd.endpoint)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(store.wait_for_value, "key", "now", 30)
        with store.watch("other") as ready:  # on the same stream, behind the wait's request or before it
            writer.set("other", "1")
            ready.next(10)
        proxy.hold("requests", "replies")
        writer.set("key", "not yet")
        own_etcd.compact()
        proxy.reset()
        writer.set("key", "now")
        assert wait.result(30) == b"now"


def test_a_wait_goes_on_when_a_server_comes_back_with_its_data_wiped(
    own_etcd: EtcdServer, open_store: OpenStore
) -> None:
    store = open_store(own_etcd.endpoint, timeout=20.0)
    for number in range(20):  # history for the new one to lack
        store.set("filler", str(number))
    store.set("gone", "1")
    with store.watch() as changes, ThreadPoolExecutor(1) as pool:
        wait = pool.submit(store.wait_for_key, "key", 60)
        store.set("first", "1")
        assert changes.next(10) == Change("first", b"1")
        own_etcd.kill()
        own_etcd.wipe()
        own_etcd.start()
        store.set("key", "new world")
        assert wait.result(60) == b"new world"
        seen = dict(changes.state) | {"first": b"1"}
        while set(seen) != {"key"}:
            change = changes.next(20)
            if change.value is None:
                del seen[change.key]
            else:
                seen[change.key] = change.value


def test_a_silent_stream_is_found_dead_by_a_second_reading_and_replaced(
    own_etcd: EtcdServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "CHECK_SECONDS", 0.2)
    with TcpProxy(own_etcd.endpoint) as proxy:
        store, writer = open_store(proxy.address, own_etcd.endpoint), open_store(own_etcd.endpoint)
        with store.watch() as changes:
            writer.set("first", "1")
            assert changes.next(10) == Change("first", b"1")
            proxy.hold("replies")  # the connection stays open and says nothing
            writer.set("key", "1")
            assert changes.next(10) == Change("key", b"1")


def test_a_stream_that_is_silent_while_another_member_answers_is_replaced_where_it_was(
    own_etcd: EtcdServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "CHECK_SECONDS", 3600.0)
    with TcpProxy(own_etcd.endpoint) as proxy:
        store, writer = open_store(proxy.address, own_etcd.endpoint), open_store(own_etcd.endpoint)
        with store.watch() as changes:
            writer.set("first", "1")
            assert changes.next(10) == Change("first", b"1")
            proxy.hold("replies")
            writer.set("key", "1")
            assert store.get("key") == b"1"  # the reads have moved on, and know a revision that the watch has not seen
            monkeypatch.setattr(watching, "CHECK_SECONDS", 0.2)
            assert changes.next(10) == Change("key", b"1")


def test_a_watch_that_is_refused_when_it_resumes_says_so(
    own_etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "CHECK_SECONDS", 3600.0)  # nothing but the server's answer tells
    users = Users(own_etcd)
    store = open_store(proxy.address, **users.login)
    with store.watch() as changes:
        store.set("first", "1")
        assert changes.next(10) == Change("first", b"1")
        own_etcd.ctl("--user", users.ROOT, "role", "revoke-permission", "jobs", "--prefix=true", "job")
        proxy.reset()
        with pytest.raises(AuthenticationError, match="permission denied"):
            changes.next(10)


def test_a_member_that_is_behind_does_not_pass_for_another_history(own_etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(own_etcd.endpoint)
    store.set("key", "1")
    follower = store._follow(Selector(store._pattern("*", None)))
    assert isinstance(follower, EtcdFollower)
    follower.next(0.0)
    header = store._connection.call("range", pb.RangeRequest(key=b"x"), float("inf")).header
    assert follower.knows(header)
    header.revision = follower.next_revision - 2
    assert not follower.knows(header)
    follower.interrupt("is behind")
    store.set("key", "2")
    (batch,) = follower.next(float("inf"))
    assert not batch.restart  # it watched on from where it was, since the second reading found the history intact
    assert [value for _, value in batch.changes] == [b"2"]
    follower.close()


def test_what_has_come_by_the_deadline_is_told_and_so_is_a_server_that_has_fallen_silent(
    own_etcd: EtcdServer, open_store: OpenStore
) -> None:
    store = open_store(own_etcd.endpoint)
    follower = store._follow(Selector(store._pattern("*", None), expected=3))
    assert isinstance(follower, EtcdFollower)
    follower.next(0.0)
    follower.enough = 3
    batch = Batch([(store._full("key", None), b"1")])
    own_etcd.freeze()
    follower.push(batch)
    assert follower.next(monotonic()) == [batch]
    assert follower.outage is not None
    since = follower.outage.since
    assert follower.next(monotonic()) == ()
    assert follower.outage.since == since
    own_etcd.thaw()
    own_etcd.await_health()
    assert follower.next(monotonic()) == ()
    assert follower.outage is None
    follower.close()


def test_a_wait_for_many_keys_on_etcd_ends_with_the_last_one(etcd: EtcdServer, open_store: OpenStore) -> None:
    store, writer = open_store(etcd.endpoint), open_store(etcd.endpoint)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(store.wait_for_keys, "rank:*/ready", 100, "1", 60)
        for number in range(100):
            writer.set(f"rank:{number}/ready", "0")
            writer.set(f"rank:{number}/ready", "1")
        assert len(wait.result(60)) == 100


def test_a_thousand_waits_share_one_stream_and_three_threads(etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(etcd.endpoint)
    before = threading.active_count()
    with ThreadPoolExecutor(1000) as pool:
        waits = [pool.submit(store.wait_for_key, f"key-{number}", 60) for number in range(1000)]
        with store.watch("ready") as ready:
            store.set("ready", "1")
            ready.next(30)
        assert threading.active_count() - before - 1000 <= 3
        for number in range(1000):
            store.set(f"key-{number}", str(number))
        assert [wait.result(60) for wait in waits] == [str(number).encode() for number in range(1000)]


def test_a_wait_that_is_over_leaves_no_watch_on_the_server(own_etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(own_etcd.endpoint)
    with store.watch("first") as first, store.watch("last") as last:
        store.set("first", "1")
        assert first.next(10) == Change("first", b"1")  # the stream is up
        for number in range(20):
            with pytest.raises(WaitTimeoutError):
                store.wait_for_key(f"key-{number}", 0.01)
        store.set("last", "1")
        assert last.next(10) == Change("last", b"1")  # it asked behind all the others, and was answered
        with urllib.request.urlopen(f"http://{own_etcd.endpoint}/metrics", timeout=10) as metrics:
            (watches,) = re.findall(r"^etcd_debugging_mvcc_watcher_total (\d+)$", metrics.read().decode(), re.MULTILINE)
    assert int(watches) == 2


def test_a_change_between_two_pages_of_a_listing_is_told(
    etcd: EtcdServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, writer = open_store(etcd.endpoint), open_store(etcd.endpoint)
    for key in "abcd":
        writer.set(key, "before")
    call = store._connection.call

    def call_and_interfere(name: str, request: Any, *arguments: Any, **options: Any) -> Any:
        reply = call(name, request, *arguments, **options)
        if name == "range" and reply.more:
            writer.set("a", "during")  # it is on the page that was just read
        return reply

    monkeypatch.setattr(ranges, "PAGE", 2)
    monkeypatch.setattr(store._connection, "call", call_and_interfere)
    with store.watch() as changes:
        assert changes.state == dict.fromkeys("abcd", b"before")
        assert changes.next(10) == Change("a", b"during")


def test_a_watch_that_has_missed_more_than_a_server_tells_at_once_is_told_all_of_it(
    own_etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, writer = open_store(proxy.address), open_store(own_etcd.endpoint)
    keys = {str(number) for number in range(1500)}  # etcd tells a thousand revisions at once, at the most
    with store.watch() as changes:
        writer.set("first", "1")
        assert changes.next(10) == Change("first", b"1")  # the stream is up
        proxy.hold("requests", "replies")
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: writer.set(key, "1"), keys))
        proxy.reset()
        assert {changes.next(10).key for _ in keys} == keys


def test_a_transaction_that_comes_in_fragments_is_told_whole(
    own_etcd: EtcdServer, proxy: TcpProxy, open_store: OpenStore
) -> None:
    store, writer = open_store(proxy.address), open_store(own_etcd.endpoint)
    transactions = [[f"{number}{part}" for part in "abc"] for number in range(4)]
    value = bytes(450_000)  # a fragment holds four such events, and so ends within a transaction
    with store.watch() as changes:
        writer.set("first", "1")
        assert changes.next(10) == Change("first", b"1")  # the stream is up
        proxy.hold("requests", "replies")
        for keys in transactions:
            puts = [pb.PutRequest(key=store._full(key, None), value=value) for key in keys]
            request = pb.TxnRequest(success=[pb.RequestOp(request_put=put) for put in puts])
            writer._connection.call("txn", request, float("inf"))
        proxy.reset()
        told = [changes.next(10) for keys in transactions for _ in keys]
    assert told == [Change(key, value) for keys in transactions for key in keys]


def test_a_listing_of_several_pages_is_whole(etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(etcd.endpoint)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.set(f"rank:{number}/ready", "1"), range(2500)))
    assert len(store.list_keys()) == 2500
    assert len(store.wait_for_keys("rank:*/ready", 2500, timeout=30)) == 2500
    with store.watch() as changes:
        assert len(changes.state) == 2500


def test_a_listing_of_keys_does_not_read_their_values(
    etcd: EtcdServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(etcd.endpoint)
    for key in ("a", "b"):
        store.set(key, "large" * 1000)
    replies: list[Any] = []
    call = store._connection.call

    def noting(*arguments: Any, **options: Any) -> Any:
        replies.append(call(*arguments, **options))
        return replies[-1]

    monkeypatch.setattr(store._connection, "call", noting)
    assert store.list_keys() == ["a", "b"]
    assert [reply.ByteSize() < 1000 for reply in replies] == [True]


def test_keys_that_others_wrote_and_nobody_can_name_are_left_aside(etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(etcd.endpoint)
    prefix = store._prefix(None)
    strangers = (prefix, prefix + b"\xff\xfe", prefix + b"nul\0")
    with store.watch() as changes:
        for full in strangers:
            store._write(full, b"1", float("inf"))
        store.set("mine", "1")
        assert changes.next(10) == Change("mine", b"1")
    assert store.list_keys() == ["mine"]
    assert store.wait_for_keys("*", 1, timeout=10) == ["mine"]


def test_a_transaction_of_several_keys_is_seen_at_once(etcd: EtcdServer, open_store: OpenStore) -> None:
    store = open_store(etcd.endpoint)
    follower = store._follow(Selector(store._pattern("*", None)))
    follower.next(0.0)
    follower.next(0.0)
    put = [pb.RequestOp(request_put=pb.PutRequest(key=store._full(key, None), value=b"1")) for key in ("a", "b", "c")]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(follower.next, float("inf"))
        store._connection.call("txn", pb.TxnRequest(success=put), float("inf"))
        (batch,) = answer.result(10)
    assert len(batch.changes) == 3
    follower.close()


def test_iterating_over_a_watch_ends_when_the_store_is_closed(etcd: EtcdServer, open_store: OpenStore) -> None:
    store, writer = open_store(etcd.endpoint), open_store(etcd.endpoint)
    seen: list[Change] = []
    both = threading.Event()

    def consume() -> None:
        for change in changes:
            seen.append(change)
            if len(seen) == 2:
                both.set()

    with ThreadPoolExecutor(1) as pool, store.watch() as changes:
        consumer = pool.submit(consume)
        writer.set("a", "1")
        writer.set("b", "2")
        assert both.wait(10)
        store.close(cleanup=False)
        consumer.result(5)
    assert seen == [Change("a", b"1"), Change("b", b"2")]


def test_a_watch_that_is_only_polled_yields_what_happens(etcd: EtcdServer, open_store: OpenStore) -> None:
    store, writer = open_store(etcd.endpoint), open_store(etcd.endpoint)
    with store.watch() as changes, writer.watch() as echo:
        with pytest.raises(WaitTimeoutError):
            changes.next(timeout=0)
        writer.set("key", "1")
        assert echo.next(10) == Change("key", b"1")
        deadline = monotonic() + 10
        while monotonic() < deadline:
            try:
                assert changes.next(timeout=0) == Change("key", b"1")
                return
            except WaitTimeoutError:
                continue
    pytest.fail("the change never came")


def test_a_wait_starts_a_stream_although_an_earlier_one_could_not(
    etcd: EtcdServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, writer = open_store(etcd.endpoint), open_store(etcd.endpoint)

    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "etha-kvstore-etcd-watch":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            store.wait_for_key("key", 5)
    with ThreadPoolExecutor(1) as pool:
        wait = pool.submit(store.wait_for_key, "key", 30)
        writer.set("key", "1")
        assert wait.result(30) == b"1"


def test_stores_that_began_to_wait_together_do_not_check_together() -> None:
    nobody: Any = None
    due = [WatchStream(nobody).next_check() - monotonic() for _ in range(100)]
    assert min(due) > CHECK_SECONDS - 1.0
    assert max(due) <= CHECK_SECONDS * (1.0 + SPREAD)
    assert max(due) - min(due) > 1.0


@pytest.mark.parametrize(("level", "asked"), [("INFO", 4), ("WARNING", 1)])
def test_a_wait_that_goes_on_asks_whether_etcd_answers_only_where_somebody_is_told(
    level: str,
    asked: int,
    etcd: EtcdServer,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(skeleton, "FIRST_REPORT", 0.2)  # then at 0.4 and 0.8 s, and the end at 1.2 s
    looks: list[None] = []
    look = EtcdFollower._see_whether_it_answers
    monkeypatch.setattr(EtcdFollower, "_see_whether_it_answers", lambda follower: looks.append(look(follower)))
    with caplog.at_level(level, "etha.kvstore"), pytest.raises(WaitTimeoutError):
        open_store(etcd.endpoint).wait_for_key("key", timeout=1.2)
    assert len(looks) == asked if asked == 1 else len(looks) > 1  # on a busy machine two reports may become one
