"""Where races are run: each backend, tapped between its look and its watch.

A tap tells where a write fell, and can hold the gap open; it changes nothing of how the store waits.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any

import grpc

from etha.kvstore.follow import Bell, Follower, PushFollower, Selector
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_etcd.address import CHANNEL_OPTIONS
from etha_kvstore_memory import MemoryStore
from etha_kvstore_memory.hub import HubFollower, MemoryHub
from etha_kvstore_tcpstore import TCPKVStore
from etha_kvstore_tcpstore.following import CandidatesFollower
from races import COMPONENT, METHODS, NAMESPACE, Ground, Race, Where

__all__ = ["EtcdGround", "MemoryGround", "News", "PollTap", "TappedHub", "TorchGround"]


class MemoryGround(Ground):
    """Memory: the watch is on when the waiting thread goes to sleep.

    There are two gaps before that. In the first, the hub has looked and has not noted whom to tell; its lock keeps a
    write out, so where this one is held the write stands at the lock. In the second, the follower has found nothing and
    does not sleep yet. Half of the lanes hold the one open, half the other.

    Parameters
    ----------
    hub : type
        The hub to race on.
    news : type
        What its followers sleep on.
    """

    switch_seconds = 1e-6

    def __init__(self, hub: type[TappedHub] | None = None, news: type[News] | None = None) -> None:
        super().__init__()
        self.news = news or News
        self.hub = (hub or TappedHub)(self)
        self.waiting = [_TappedMemoryStore(self)]
        self.writing = _TappedMemoryStore(self)

    def judge(self, race: Race) -> Where:
        told = race.at["told"]
        if told < race.at["looked"]:
            return Where.BEFORE
        if "stood" in race.at:
            return Where.GAP
        return Where.AFTER if race.at.get("asleep", told) < told else Where.GAP

    def leave(self, race: Race) -> None:
        for key in self.writing.list_keys(race.pattern):  # a hub's look goes over all its keys
            self.writing.delete(key)


class TappedHub(MemoryHub):
    """A hub that tells when it has looked and when it tells of a write."""

    def __init__(self, ground: MemoryGround) -> None:
        super().__init__()
        self._find = ground.find
        self._here = threading.local()
        self._lock = _TellingLock(self)  # type: ignore[assignment]
        self._by_key = _ByKey(self)
        self._by_pattern = _ByPattern(self)

    def write(self, key: bytes, value: bytes) -> None:
        race = self._find(key)
        self._here.race = race if race.is_written_by(key, value) else None
        super().write(key, value)

    def has_looked(self, sought: bytes) -> None:
        """Note, under the lock, that a follower's state was read and the follower is about to be noted."""
        race = self._find(sought)
        race.at.setdefault("looked", monotonic())
        if _holds_the_lock(race):
            race.stand_at_the_seam()

    def stands_at_the_lock(self) -> None:
        """Note that a thread finds the lock taken."""
        race: Race | None = getattr(self._here, "race", None)
        if race is not None and race.held and _holds_the_lock(race):
            race.at["stood"] = monotonic()
            race.through.set()

    def _tell(self, key: bytes, value: bytes | None) -> None:
        race = self._find(key)
        if race.is_written_by(key, value):
            race.at["told"] = monotonic()
        super()._tell(key, value)


class News(Bell):
    """What a follower sleeps on, which tells when it does."""

    def __init__(self, race: Race) -> None:
        super().__init__()
        self._race = race

    def fall_asleep(self) -> None:
        """Note that the follower has found nothing and is about to sleep."""
        if not _holds_the_lock(self._race):
            self._race.stand_at_the_seam()
        self._race.at.setdefault("asleep", monotonic())

    def wait(self, timeout: float) -> bool:
        self.fall_asleep()
        return super().wait(timeout)


class _TellingLock:
    def __init__(self, hub: TappedHub) -> None:
        self._hub = hub
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._hub.stands_at_the_lock()
            self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


class _ByKey(dict[bytes, set[HubFollower]]):
    def __init__(self, hub: TappedHub) -> None:
        super().__init__()
        self._hub = hub

    def setdefault(self, key: bytes, default: set[HubFollower]) -> set[HubFollower]:
        self._hub.has_looked(key)
        return super().setdefault(key, default)


class _ByPattern(set[HubFollower]):
    def __init__(self, hub: TappedHub) -> None:
        super().__init__()
        self._hub = hub

    def add(self, follower: HubFollower) -> None:
        self._hub.has_looked(follower.pattern.literal_prefix)
        super().add(follower)


class _TappedMemoryStore(MemoryStore):
    def __init__(self, ground: MemoryGround) -> None:
        super().__init__(NAMESPACE, COMPONENT, hub=ground.hub)
        self._ground = ground

    def _follow(self, selector: Selector) -> Follower:
        follower = super()._follow(selector)
        assert isinstance(follower, PushFollower)
        follower._news = self._ground.news(self._ground.find(selector.pattern.literal_prefix))
        return follower


def _holds_the_lock(race: Race) -> bool:
    """Tell which of memory's two gaps a race holds open, if any, rather than the second."""
    return race.number // len(METHODS) % 2 == 0


class TorchGround(Ground):
    """TCPStore: the gap lies between the first look of a wait and the second, and the looks after it are the watch.

    Parameters
    ----------
    port : int
        Where the server listens.
    follower : type
        How its waits poll.
    """

    methods = ("wait_for_key", "wait_for_value", "wait_for_keys")

    def __init__(self, port: int, follower: type[PollTap] | None = None) -> None:
        super().__init__()
        ground, tap = self, follower or PollTap

        class TappedTorchStore(TCPKVStore):
            def _follow(self, selector: Selector) -> Follower:
                return tap(self, selector, ground.find(selector.pattern.literal_prefix))

        self.waiting = [TappedTorchStore(NAMESPACE, COMPONENT, host="127.0.0.1", port=port)]
        self.writing = TCPKVStore(NAMESPACE, COMPONENT, host="127.0.0.1", port=port)

    def judge(self, race: Race) -> Where:
        if "found" in race.at:
            return Where.BEFORE
        needless = sum(began > race.acknowledged for began in race.looks) - 1
        if needless > 0:
            race.complaint = race.complaint or f"{needless} looks that began after the write did not end the wait"
        return Where.AFTER if any(began < race.acknowledged for began in race.looks[1:2]) else Where.GAP


class PollTap(CandidatesFollower):
    """A follower that tells when it looked.

    Parameters
    ----------
    store : TCPKVStore
        The store to look through.
    selector : Selector
        What to look at.
    race : Race
        Whom to tell.
    """

    def __init__(self, store: TCPKVStore, selector: Selector, race: Race) -> None:
        super().__init__(store, selector)
        self._race = race

    def _look(self, deadline: float, *, thorough: bool) -> list[tuple[bytes, bytes | None]]:
        self._race.looks.append(monotonic())
        changes = super()._look(deadline, thorough=thorough)
        if len(self._race.looks) == 1:
            if any(self._race.is_written_by(*change) for change in changes):
                self._race.at["found"] = monotonic()
            self._race.stand_at_the_seam()
        return changes


class EtcdGround(Ground):
    """etcd: its revisions tell where a write fell, and the gap is held open on the wire.

    The look is at revision R; the watch is asked for from R + 1, and the server's answer tells the revision C that it
    had come to when the watch was on. A write that the look did not find fell in the gap if its revision is at most C.

    Parameters
    ----------
    endpoint : str
        Where the server listens.
    store : type
        The store to race on.
    """

    lanes = 48  # etcd brings a watch that begins in the past up to date at its leisure, within a tenth of a second

    def __init__(self, endpoint: str, store: type[EtcdStore] = EtcdStore) -> None:
        super().__init__()
        self._channels = [
            grpc.insecure_channel(endpoint, [("tap", number), *CHANNEL_OPTIONS.items()]) for number in range(4)
        ]
        clients = [SimpleNamespace(channel=_Tap(self, channel), metadata=None) for channel in self._channels]
        self.waiting = [store(NAMESPACE, COMPONENT, client=client) for client in clients]
        self.writing = EtcdStore(NAMESPACE, COMPONENT, endpoints=[endpoint])

    def close(self) -> None:
        super().close()
        for channel in self._channels:
            channel.close()

    def judge(self, race: Race) -> Where:
        if "asked" not in race.at:
            return Where.BEFORE
        return Where.AFTER if race.at.get("created", math.inf) < race.at.get("written", 0.0) else Where.GAP


class _Tap:
    """A channel on which the watch stream is tapped."""

    def __init__(self, ground: EtcdGround, channel: grpc.Channel) -> None:
        self._ground = ground
        self._channel = channel
        self._watched: dict[int, Race] = {}

    def unary_unary(self, *arguments: Any) -> Any:
        return self._channel.unary_unary(*arguments)

    def unary_stream(self, *arguments: Any) -> Any:
        return self._channel.unary_stream(*arguments)

    def stream_stream(self, path: str, serialize: Callable[[Any], bytes], parse: Callable[[bytes], Any]) -> Any:
        def send(request: Any) -> bytes:
            if request.HasField("create_request"):
                self._asked(request.create_request)
            return serialize(request)

        def receive(data: bytes) -> Any:
            response = parse(data)
            self._answered(response)
            return response

        return self._channel.stream_stream(path, send, receive)

    def _asked(self, creation: Any) -> None:
        race = self._watched[creation.watch_id] = self._ground.find(creation.key)
        race.at["asked"] = monotonic()
        race.stand_at_the_seam()

    def _answered(self, response: Any) -> None:
        race = self._watched[response.watch_id]
        if response.created:
            race.at["created"] = response.header.revision
        for event in response.events:
            if race.is_written_by(event.kv.key, event.kv.value):
                race.at["written"] = event.kv.mod_revision
