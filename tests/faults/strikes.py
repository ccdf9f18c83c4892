"""The faults that a schedule draws from, and when each has taken hold: with calls in flight."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import monotonic, sleep

from etcd_server import EtcdServer
from laboratory import EtcdClusterSite, EtcdSite, Site, TorchSite
from tcp_proxy import DIRECTIONS, Direction, TcpProxy
from traffic import Client, Traffic

__all__ = ["ON_THE_WAY", "STRIKES", "InvalidScheduleError", "Stage", "Strike"]

LOOK_AGAIN = 0.04
"""Seconds between two looks at what moves."""

LOOKS_IN_A_ROW = 3
"""At how many looks bytes must have moved through what is called busy.

A client that connects again, to a member that is back, has a few bytes pass at once and may then send no call there.
"""

PATIENCE = 20.0


class InvalidScheduleError(Exception):
    """The schedule shows nothing: too few calls were answered, or a fault struck none."""


class Stage:
    """What a fault is given: where, to whose traffic, and the seed's choices.

    Parameters
    ----------
    site : Site
        Servers and proxies.
    traffic : Traffic
        The clients.
    rng : random.Random
        Makes the choices.
    """

    def __init__(self, site: Site, traffic: Traffic, rng: random.Random) -> None:
        self.site = site
        self.traffic = traffic
        self.rng = rng

    def busy(self) -> list[TcpProxy]:
        """Find the proxies through which replies keep coming, so that a fault there strikes something."""
        deadline = monotonic() + PATIENCE
        rows = dict.fromkeys(self.site.proxies, 0)
        while monotonic() < deadline:
            before = {proxy: proxy.passed("replies") for proxy in rows}
            sleep(LOOK_AGAIN)
            rows = {proxy: row + 1 if proxy.passed("replies") > before[proxy] else 0 for proxy, row in rows.items()}
            if busy := [proxy for proxy, row in rows.items() if row >= LOOKS_IN_A_ROW]:
                return busy
        raise InvalidScheduleError(f"there was no traffic through the proxies of {self.site!r}")

    @contextmanager
    def disturb(
        self, arm: Callable[[TcpProxy, Sequence[Direction]], None], mend: Callable[[TcpProxy], None] = TcpProxy.release
    ) -> Iterator[None]:
        """Arm a proxy with a fault, in one direction or both, and see that it strikes."""
        proxy = self.rng.choice(self.busy())
        ways = self.rng.choice([DIRECTIONS, DIRECTIONS[:1], DIRECTIONS[1:]])
        arm(proxy, ways)
        try:
            proxy.await_struck(ways[0])
            yield
        finally:
            getattr(proxy, mend.__name__)()

    @contextmanager
    def in_flight(self, proxy: TcpProxy) -> Iterator[None]:
        """Keep requests, or replies, from arriving while something befalls the server or the connection."""
        way = self.rng.choice(DIRECTIONS)
        proxy.hold(way)
        try:
            proxy.await_struck(way)
            yield
        finally:
            proxy.release()

    @contextmanager
    def calling(self, client: Client) -> Iterator[None]:
        """Keep all replies from arriving while something befalls a client, so that all its lanes wait for one."""
        for proxy in self.site.proxies:
            proxy.hold("replies")
        try:
            deadline = monotonic() + PATIENCE
            while not client.waits:
                if monotonic() > deadline:
                    raise InvalidScheduleError(f"{client.name} made no calls")
                sleep(LOOK_AGAIN)
            yield
        finally:
            for proxy in self.site.proxies:
                proxy.release()


Strike = Callable[[Stage], AbstractContextManager[None]]
"""A fault. It has taken hold when it is entered, and is mended when it is left."""


def held(stage: Stage) -> AbstractContextManager[None]:
    return stage.disturb(lambda proxy, ways: proxy.hold(*ways))


def black_hole(stage: Stage) -> AbstractContextManager[None]:
    # What has lost bytes stays dark when the hole is closed, and a caller would wait for long.
    return stage.disturb(lambda proxy, ways: proxy.blackhole(*ways), TcpProxy.reset)


def delayed(stage: Stage) -> AbstractContextManager[None]:
    seconds = stage.rng.uniform(0.005, 0.1)
    return stage.disturb(lambda proxy, ways: proxy.delay(seconds, *ways, jitter=seconds))


def cut(stage: Stage) -> AbstractContextManager[None]:
    size = stage.rng.randrange(200)
    return stage.disturb(lambda proxy, ways: proxy.cut_after(size, ways[0]))


@contextmanager
def dropped_replies(stage: Stage) -> Iterator[None]:
    proxy = stage.rng.choice(stage.busy())
    proxy.drop_replies()
    try:
        proxy.await_struck("replies")
        yield
    finally:
        proxy.release()


@contextmanager
def reset(stage: Stage) -> Iterator[None]:
    proxy = stage.rng.choice(stage.busy())
    with stage.in_flight(proxy):
        proxy.reset()
    yield


@contextmanager
def client_frozen(stage: Stage) -> Iterator[None]:
    client = stage.rng.choice(stage.traffic.clients)
    with stage.calling(client):
        client.freeze()
    try:
        yield
    finally:
        client.thaw()


@contextmanager
def client_killed(stage: Stage) -> Iterator[None]:
    client = stage.rng.choice(stage.traffic.clients)
    with stage.calling(client):
        client.kill()
    stage.traffic.replace(client)
    yield


@contextmanager
def compacted(stage: Stage) -> Iterator[None]:
    assert isinstance(stage.site, (EtcdSite, EtcdClusterSite))
    server = stage.site.server if isinstance(stage.site, EtcdSite) else stage.site.cluster.leader
    server.compact()
    yield


@contextmanager
def host_frozen(stage: Stage) -> Iterator[None]:
    assert isinstance(stage.site, TorchSite)
    (proxy,) = stage.busy()
    with stage.in_flight(proxy):
        stage.site.host.freeze()
    try:
        yield
    finally:
        stage.site.host.thaw()


Victims = Callable[[Stage], "tuple[Sequence[EtcdServer], TcpProxy]"]
"""Chooses members, and a proxy at which to see that calls are in flight."""


def server(stage: Stage) -> tuple[Sequence[EtcdServer], TcpProxy]:
    assert isinstance(stage.site, EtcdSite)
    return [stage.site.server], stage.site.proxy


def leader(stage: Stage) -> tuple[Sequence[EtcdServer], TcpProxy]:
    assert isinstance(stage.site, EtcdClusterSite)
    return [stage.site.cluster.leader], stage.rng.choice(stage.busy())


def follower(stage: Stage) -> tuple[Sequence[EtcdServer], TcpProxy]:
    """Choose a follower that is asked; any, where all ask the leader."""
    assert isinstance(stage.site, EtcdClusterSite)
    followers, busy = stage.site.cluster.followers, stage.busy()
    proxies = dict(zip(stage.site.cluster.members, stage.site.proxies, strict=True))
    asked = [each for each in followers if proxies[each] in busy]
    chosen = stage.rng.choice(asked or followers)
    return [chosen], proxies[chosen] if asked else busy[0]


def quorum(stage: Stage) -> tuple[Sequence[EtcdServer], TcpProxy]:
    """Choose the leader and a follower, without whom nothing can be decided."""
    assert isinstance(stage.site, EtcdClusterSite)
    followers = stage.site.cluster.followers
    victims = [each for each in stage.site.cluster.members if each is not followers[0]]
    return victims, stage.rng.choice(stage.busy())


def everybody(stage: Stage) -> tuple[Sequence[EtcdServer], TcpProxy]:
    assert isinstance(stage.site, EtcdClusterSite)
    return stage.site.cluster.members, stage.rng.choice(stage.busy())


def befalls(choose: Victims, harm: Callable[[EtcdServer], None], mend: Callable[[EtcdServer], None]) -> Strike:
    @contextmanager
    def strike(stage: Stage) -> Iterator[None]:
        members, proxy = choose(stage)
        with stage.in_flight(proxy):
            for member in members:
                harm(member)
        try:
            yield
        finally:
            for member in members:
                mend(member)
            for member in members:
                member.await_health()

    return strike


def frozen(choose: Victims) -> Strike:
    return befalls(choose, EtcdServer.freeze, EtcdServer.thaw)


def killed(choose: Victims) -> Strike:
    return befalls(choose, EtcdServer.kill, EtcdServer.launch)


ON_THE_WAY: dict[str, Strike] = {
    "bytes held": held,
    "black hole": black_hole,
    "delay": delayed,
    "connection cut": cut,
    "replies dropped": dropped_replies,
    "reset": reset,
}

CLIENTS: dict[str, Strike] = {"client frozen": client_frozen, "client killed": client_killed}

STRIKES: dict[str, dict[str, Strike]] = {
    "memory": {},
    "tcpstore": {**ON_THE_WAY, **CLIENTS, "host frozen": host_frozen},
    "etcd": {
        **ON_THE_WAY,
        **CLIENTS,
        "server frozen": frozen(server),
        "server killed": killed(server),
        "compaction": compacted,
    },
    "etcd-cluster": {
        **ON_THE_WAY,
        **CLIENTS,
        "leader frozen": frozen(leader),
        "leader killed": killed(leader),
        "follower frozen": frozen(follower),
        "follower killed": killed(follower),
        "quorum frozen": frozen(quorum),
        "all members killed": killed(everybody),
        "compaction": compacted,
    },
}
"""What can befall a site of `sites.Sites`."""
