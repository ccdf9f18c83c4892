"""The sites by name: each is set up once a process, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from etcd_server import crash_etcd
from laboratory import EtcdClusterSite, EtcdSite, EtcdUsersSite, MemorySite, Site, TorchSite

__all__ = ["Sites"]

CRASHING = crash_etcd()
"""The etcd that is killed while losses are counted."""

ALONE = ("--heartbeat-interval", "20", "--election-timeout", "100")
"""An etcd elects itself after this time, in milliseconds, whenever it starts."""

TOGETHER = ("--heartbeat-interval", "100", "--election-timeout", "500")

MAKE: dict[str, Callable[[], Site]] = {
    "memory": MemorySite,
    "tcpstore": TorchSite,
    "etcd": lambda: EtcdSite(*ALONE, binary=CRASHING),
    "etcd-users": lambda: EtcdUsersSite(*ALONE, binary=CRASHING),
    "etcd-cluster": lambda: EtcdClusterSite(*TOGETHER, binary=CRASHING),
}


class Sites:
    """What has been set up, until `close`."""

    def __init__(self) -> None:
        self._sites: dict[str, Site] = {}
        self._running = ExitStack()

    @contextmanager
    def lend(self, name: str) -> Iterator[Site]:
        """Lend a site to one test, in a namespace of its own."""
        if name not in self._sites:
            self._sites[name] = self._running.enter_context(MAKE[name]())
        print(f"on {self._sites[name]!r}")  # pytest shows it where the test fails, however it does
        try:
            yield self._sites[name]
        finally:
            self._sites[name].renew()

    def close(self) -> None:
        """End all servers."""
        self._running.close()
