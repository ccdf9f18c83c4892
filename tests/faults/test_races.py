"""No wait misses a write, however close to its start that comes; and a store that has the classic gap is found out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from etcd_server import EtcdServer
from etha.kvstore.follow import Batch, Follower, Selector
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_etcd.following import EtcdFollower
from etha_kvstore_etcd.watching import CHECK_SECONDS
from etha_kvstore_memory.hub import HubFollower
from race_grounds import EtcdGround, MemoryGround, News, PollTap, TappedHub, TorchGround
from races import LIMIT, Ground, Where, run_races
from tcpstore_host import TorchHost

RACES = 10_000

FREE_IN_THE_GAP = 50
"""How many writes must have fallen in the gap without its being held open."""

BROKEN_RACES, BROKEN_LIMIT = 96, 0.3
"""How many races a broken store runs, and how long each wait may last, in seconds: those it misses last as long."""


@contextmanager
def memory(hub: type[TappedHub] = TappedHub, news: type[News] = News, lanes: int = 8) -> Iterator[Ground]:
    with closing(MemoryGround(hub, news)) as ground:
        ground.lanes = lanes
        yield ground


@contextmanager
def tcpstore(follower: type[PollTap] = PollTap) -> Iterator[Ground]:
    with TorchHost() as host, closing(TorchGround(host.port, follower)) as ground:
        yield ground


@contextmanager
def etcd(store: type[EtcdStore] = EtcdStore) -> Iterator[Ground]:
    with EtcdServer() as server, closing(EtcdGround(server.endpoint, store)) as ground:
        yield ground


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", [memory, tcpstore, etcd])
def test_no_wait_misses_a_write_that_races_with_its_start(
    backend: Callable[[], AbstractContextManager[Ground]], record_property: Callable[[str, object], None]
) -> None:
    assert LIMIT < CHECK_SECONDS, "etcd's check of a silent stream must not be what ends a wait"
    seed = random.randrange(2**32)
    with backend() as ground:
        report = run_races(ground, RACES, seed)
    assert not report.missed, f"seed {seed}: {report}"
    held = sum(race.held for race in report.races)
    assert held == report.count(Where.GAP, held=True) > 0, f"a gap was not held open: {report}"
    assert report.count(Where.GAP, held=False) >= FREE_IN_THE_GAP, f"too few writes fell in the gap: {report}"
    record_property("races", len(report.races))
    record_property(f"where the writes fell on {backend.__name__}", report.histogram)


class HubThatLetsGoOfItsLock(TappedHub):
    """Reads under the lock, lets go of it, and takes it again to note whom to tell."""

    def follow(self, selector: Selector) -> HubFollower:
        follower = HubFollower(self, selector)
        sought = selector.pattern.literal_prefix
        follower.push(Batch(self.snapshot(sought), restart=True))
        self.has_looked(sought)
        with self._lock:
            if selector.pattern.is_literal:
                self._by_key.setdefault(sought, set()).add(follower)
            else:
                self._by_pattern.add(follower)
        return follower


class NewsForgottenBeforeSleep(News):
    """Clears the flag after the look instead of before it."""

    def fall_asleep(self) -> None:
        super().fall_asleep()
        self.clear()


class PollThatComparesWithALaterLook(PollTap):
    """Tells what the first look found, and only what differs from a second one after that."""

    def _look(self, deadline: float, *, thorough: bool) -> list[tuple[bytes, bytes | None]]:
        changes = super()._look(deadline, thorough=thorough)
        return [] if len(self._race.looks) == 2 else changes


class FollowerWithoutARevision(EtcdFollower):
    """Looks, and then watches from whatever the revision is by then."""

    def _list(self, deadline: float) -> Sequence[Batch]:
        state = super()._list(deadline)
        self.next_revision = 0
        return state


class StoreWithoutARevision(EtcdStore):
    def _follow(self, selector: Selector) -> Follower:
        return FollowerWithoutARevision(self._connection, self._stream, selector, self.timeout)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda: memory(hub=HubThatLetsGoOfItsLock, lanes=1), id="memory-lock"),
        pytest.param(lambda: memory(news=NewsForgottenBeforeSleep), id="memory-sleep"),
        pytest.param(lambda: tcpstore(PollThatComparesWithALaterLook), id="tcpstore"),
        pytest.param(lambda: etcd(StoreWithoutARevision), id="etcd"),
    ],
)
def test_a_store_that_misses_what_comes_between_look_and_watch_is_found_out(
    broken: Callable[[], AbstractContextManager[Ground]],
) -> None:
    with broken() as ground:
        report = run_races(ground, BROKEN_RACES, seed=random.randrange(2**32), limit=BROKEN_LIMIT)
    caught = [race for race in report.missed if race.held and race.where is Where.GAP]
    assert {race.method for race in caught} == set(ground.methods), report
