"""The scene of a cell: who is there, and what is known of them, while a fault is done."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import Enum
from typing import Any, Literal, cast

from clients import Client, ClientProcess, Thread
from etcd_server import EtcdCluster, EtcdServer
from etha.kvstore import KVStore
from etha.kvstore.errors import OutcomeUnknownError
from laboratory import EtcdClusterSite, EtcdSite, MemorySite, Site, TorchSite
from tcp_proxy import Direction, TcpProxy
from tcpstore_host import TorchHost

__all__ = ["Phase", "Scene", "Victims", "surely"]

Victims = Literal["leader", "follower", "all", "others"]

SAID_UNASKED = 40
"""Bytes: more than gRPC says on a connection of its own accord, two pings, and less than a request or a reply."""

IMPATIENCE = 3.0
"""Seconds for a call to a cluster whose leader may be going: what is lost with it is not answered for long."""

PATIENCE = 20.0
"""Seconds within which a store that works again has to."""


class Phase(Enum):
    """Where an operation is when the fault strikes."""

    REQUEST = "request-in-flight"
    """Its request has left the client; a wait's is its first look."""
    REPLY = "reply-in-flight"
    """The server has answered."""
    STANDING = "standing"
    """A wait has looked, and waits."""
    POLLING = "polling"
    """A wait has looked, and its next look is under way."""
    EVENT = "event-in-flight"
    """The condition of a wait has come true, and the server has said so."""


class Inside:
    """The store of a client's process, as far as its state is made and read from here.

    Parameters
    ----------
    process : ClientProcess
        The process.
    """

    def __init__(self, process: ClientProcess) -> None:
        self._process = process

    def __getattr__(self, method: str) -> Any:
        return lambda *arguments: self._process.tell(method, *arguments)


class Scene:
    """What a fault is given, to do its harm to.

    Parameters
    ----------
    site : Site
        Where it happens.
    phase : Phase
        Where the operations are when it does.
    victims : str
        Whom it strikes in a cluster.
    """

    def __init__(self, site: Site, phase: Phase, victims: Victims) -> None:
        self.site = site
        self.phase = phase
        self.undo = ExitStack()
        """What mends the fault; each fault that lasts pushes what undoes it."""
        self.hit: float | None = None
        """When something was in flight, and the fault was done, or had begun."""
        self.victims: Sequence[EtcdServer | TorchHost] = ()
        self.asked: EtcdServer | None = None
        """The member of a cluster that the clients ask first."""
        self.clients: list[Client] = []
        self._bystanders: list[Client] = []
        self._answered = 0
        self._choose(victims)

    def _choose(self, victims: Victims) -> None:
        """Choose whom the fault strikes, and whom the clients ask first."""
        if isinstance(self.site, EtcdClusterSite):
            leader, *followers = sorted(self.site.cluster.members, key=lambda member: not member.leads)
            choice = {"leader": [leader], "follower": followers[:1], "others": followers, "all": [leader, *followers]}
            self.victims = choice[victims]
            self.asked = followers[0] if victims == "follower" else leader
        elif isinstance(self.site, EtcdSite):
            self.victims = [self.site.server]
        elif isinstance(self.site, TorchSite):
            self.victims = [self.site.host]

    @property
    def proxy(self) -> TcpProxy:
        """The proxy that the clients ask first."""
        return self.site.proxies[0 if self.asked is None else self.cluster.members.index(self.asked)]

    @property
    def cluster(self) -> EtcdCluster:
        """The cluster, where there is one."""
        assert isinstance(self.site, EtcdClusterSite)
        return self.site.cluster

    @property
    def etcd(self) -> EtcdServer:
        """The one etcd, or the cluster's leader."""
        return self.site.server if isinstance(self.site, EtcdSite) else self.cluster.leader

    @property
    def said_unasked(self) -> int:
        """How many bytes the protocol of the site may say that belong to no request and no reply."""
        return 0 if isinstance(self.site, TorchSite) else SAID_UNASKED

    @property
    def process(self) -> ClientProcess:
        """The client, where it is a process of its own."""
        (client,) = self.clients
        assert isinstance(client, ClientProcess)
        return client

    def bystander(self) -> Client:
        """Give the scene one client more, which the fault is not done to."""
        options = {} if isinstance(self.site, MemorySite) else {"timeout": PATIENCE}
        self._bystanders.append(Thread(self.site, **options))
        return self._bystanders[-1]

    def client(self, *, in_a_process: bool, **options: object) -> Client:
        """Give the scene one client more, whose operation the fault strikes."""
        if self.asked is not None and isinstance(self.site, EtcdClusterSite):
            options["endpoints"] = self.site.asking_first(self.asked)
        made: Client = ClientProcess(self.site, **options) if in_a_process else Thread(self.site, **options)
        self.clients.append(made)
        return made

    def beside(self) -> KVStore:
        """Give a store that the fault does not strike, as long as there is a server that it does not."""
        if isinstance(self.site, MemorySite):
            return cast("KVStore", Inside(self.process))
        if isinstance(self.site, EtcdClusterSite):
            spared = [member.endpoint for member in self.site.cluster.members if member not in self.victims]
            return self.site.beside(timeout=IMPATIENCE, endpoints=spared or self.site.endpoints)
        return self.site.beside(timeout=PATIENCE)

    def hold(self, direction: Direction) -> None:
        """Keep what the stores send, or are sent, for `let_go`."""
        self.proxy.hold(direction)

    def note_hit(self) -> None:
        """Note that the fault is done, while all that was in flight is still held."""
        self.hit = time.monotonic()

    def let_go(self) -> None:
        """Pass on what was held."""
        for proxy in self.site.proxies:
            proxy.release()

    def start_again(self) -> None:
        """Start the victims, which don't run."""
        if isinstance(self.site, EtcdClusterSite):
            self.site.cluster.start([member for member in self.site.cluster.members if member in self.victims])
        else:
            self.victims[0].start()

    def await_health(self) -> None:
        """Wait until every etcd says that it is healthy; a TCPStore has no way to say so."""
        if isinstance(self.site, EtcdClusterSite):
            self.site.cluster.await_health()
        elif isinstance(self.site, EtcdSite):
            self.site.server.await_health()

    def await_quiet(self) -> None:
        """Wait until nobody says anything, so that what is said next is the next operation's; a poll is never quiet."""
        for proxy in self.site.proxies:
            if self.phase is not Phase.POLLING:
                proxy.await_quiet()

    def await_standing(self, number: int) -> None:
        """Wait until so many waits have looked, and stand: etcd counts them, and so does a process for its own memory.

        TCPStore does not; there it is the answer to one look that is waited for, from when none was under way.
        """
        if isinstance(self.site, TorchSite):
            if number == 0:
                self._answered = self.proxy.passed("replies")
            else:
                self.proxy.await_passed("replies", self._answered + 1)
            return
        count = self.process.waits if isinstance(self.site, MemorySite) else self._watchers
        deadline = time.monotonic() + PATIENCE
        while (counted := count()) != number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{counted} waits stand, not {number}")
            time.sleep(0.005)

    def _watchers(self) -> int:
        """Ask all members how many watches they serve."""
        said = ""
        for endpoint in self.site.endpoints:
            with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=PATIENCE) as answer:
                said += answer.read().decode()
        return sum(map(int, re.findall(r"^etcd_debugging_mvcc_watcher_total (\d+)$", said, re.MULTILINE)))

    def mend(self) -> None:
        """Undo the fault."""
        self.undo.close()
        for proxy in self.site.proxies:
            proxy.release()

    def clear(self) -> None:
        """Mend everything, and let the clients go."""
        self.mend()
        for proxy in self.site.proxies:
            proxy.reset()  # a store that closes is not to wait for a silent connection
        for client in (*self.clients, *self._bystanders):
            client.end()


def surely(write: Callable[..., None], *arguments: object) -> None:
    """Write until it is acknowledged; what is written is the same each time, so once more does no harm."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return write(*arguments)
        except (OutcomeUnknownError, ConnectionError):
            if time.monotonic() > deadline:
                raise
