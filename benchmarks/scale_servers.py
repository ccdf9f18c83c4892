"""The servers that the measurements of scale run against, each with the counts that it gives of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil

from etcd_server import EtcdServer
from scale_counts import etcd_counts, tcp_counts
from tcpstore_host import TorchHost

__all__ = ["Server", "serve"]


class Server(NamedTuple):
    """A server that runs.

    Attributes
    ----------
    backend : str
        The backend's name.
    endpoint : str
        Where it listens, ``host:port``.
    process : psutil.Process
        Its process.
    """

    backend: str
    endpoint: str
    process: psutil.Process

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.endpoint.rpartition(":")[2])

    def options(self) -> dict[str, Any]:
        """Give the options of a store that connects to it."""
        if self.backend == "etcd":
            return {"endpoints": [self.endpoint]}
        return {"host": "127.0.0.1", "port": self.port}

    def counts(self) -> Mapping[str, float]:
        """Give what it has done so far: its seconds of CPU, the bytes of open connections, on etcd the messages."""
        used = self.process.cpu_times()
        said = etcd_counts(self.endpoint) if self.backend == "etcd" else {}
        return {**said, **tcp_counts(self.port), "server_cpu": used.user + used.system}


@contextmanager
def serve(backend: str) -> Iterator[Server]:
    """Run a server of a backend, on a free port of this machine."""
    with EtcdServer() if backend == "etcd" else TorchHost() as server:
        yield Server(backend, server.endpoint, psutil.Process(server.pid))
