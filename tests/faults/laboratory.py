"""The fault laboratory: real servers behind proxies, and stores on them.

A `Site` is one place where faults are done: ``open`` gives a store whose traffic goes through the proxies, ``beside``
one that goes around them and sees what the servers hold. What can be done to the servers and to the traffic are the
verbs of `EtcdServer`, `EtcdCluster`, `TorchHost`, `TcpProxy` and `Users`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from etcd_server import EtcdCluster, EtcdServer, etcd_version, free_port
from etha.kvstore import KVStore
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_tcpstore import TCPKVStore
from tcp_proxy import TcpProxy, proxy_process
from tcpstore_host import TorchHost

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EtcdClusterSite", "EtcdSite", "EtcdUsersSite", "MemorySite", "Site", "Stranger", "TorchSite", "Users"]

OPERATION_TIMEOUT = 2.0
"""Seconds: the operation timeout of the laboratory's stores, where a test does not ask for another."""

_namespaces = (f"job-{number}" for number in itertools.count())


class Site:
    """A backend on real servers, each behind a proxy in a process of its own.

    Used as a context manager; `renew` makes a namespace of its own for each test of a site that tests share.
    """

    backend: str
    versions: str
    """What serves, for the text of a failure."""
    proxies: list[TcpProxy]

    def __init__(self) -> None:
        self.proxies = []
        self.namespace = next(_namespaces)
        self._running = ExitStack()
        self._stores = ExitStack()

    @property
    def proxy(self) -> TcpProxy:
        """The proxy that the stores of `open` ask first."""
        return self.proxies[0]

    def open(self, component: str = "trainer", **options: object) -> KVStore:
        """Open a store whose traffic goes through the proxies; it is closed at the next `renew`, or at the end."""
        return self._open([proxy.address for proxy in self.proxies], component, options)

    def beside(self, component: str = "trainer", **options: object) -> KVStore:
        """Open a store that goes around the proxies."""
        return self._open(self.endpoints, component, options)

    @property
    def endpoints(self) -> list[str]:
        """Where the servers listen."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Tell what `etha.kvstore.open_store` needs to open, in any process, what `open` opens here."""
        raise NotImplementedError

    def renew(self) -> None:
        """Close the stores, mend the traffic, and go to a new namespace."""
        for proxy in self.proxies:
            proxy.release()
        self._stores.close()
        for proxy in self.proxies:
            proxy.reset()
        self.namespace = next(_namespaces)

    def __enter__(self) -> Self:
        for target in self._serve():
            self.proxies.append(self._running.enter_context(proxy_process(target)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._running:
            self.renew()

    def __repr__(self) -> str:
        return f"<{self.backend} on {self.versions}>"

    def _serve(self) -> Sequence[str]:
        """Start the servers and say where they listen."""
        raise NotImplementedError

    def _make(self, addresses: Sequence[str], component: str, options: dict[str, Any]) -> KVStore:
        raise NotImplementedError

    def _open(self, addresses: Sequence[str], component: str, options: dict[str, object]) -> KVStore:
        store = self._make(addresses, component, {"timeout": OPERATION_TIMEOUT, "connect_timeout": 10.0, **options})
        self._stores.callback(store.close, cleanup=False)
        return store


class EtcdSite(Site):
    """One etcd.

    Parameters
    ----------
    *arguments : str
        As `EtcdServer`.
    binary : Path, optional
        As `EtcdServer`.
    """

    backend = "etcd"

    def __init__(self, *arguments: str, binary: Path | None = None) -> None:
        super().__init__()
        self.server = EtcdServer(*arguments, binary=binary)
        self.versions = f"etcd {etcd_version(binary)}"

    @property
    def endpoints(self) -> list[str]:
        return [self.server.endpoint]

    def settings(self) -> dict[str, Any]:
        return {"backend": "etcd", "endpoints": [proxy.address for proxy in self.proxies]}

    def _serve(self) -> Sequence[str]:
        self._running.enter_context(self.server)
        return self.endpoints

    def _make(self, addresses: Sequence[str], component: str, options: dict[str, Any]) -> KVStore:
        return EtcdStore(self.namespace, component, endpoints=addresses, **options)


class EtcdClusterSite(Site):
    """Three members of one etcd cluster; a store of `open` asks the first of them first.

    Parameters
    ----------
    *arguments : str
        As `EtcdServer`.
    binary : Path, optional
        As `EtcdServer`.
    """

    backend = "etcd"

    def __init__(self, *arguments: str, binary: Path | None = None) -> None:
        super().__init__()
        self.cluster = EtcdCluster(3, *arguments, binary=binary)
        self.versions = f"a cluster of three etcd {etcd_version(binary)}"

    @property
    def endpoints(self) -> list[str]:
        return self.cluster.endpoints

    def settings(self) -> dict[str, Any]:
        return {"backend": "etcd", "endpoints": [proxy.address for proxy in self.proxies]}

    def asking_first(self, member: EtcdServer) -> list[str]:
        """The proxies' addresses, that of a member first: the option `endpoints` of a store that asks it first."""
        number = self.cluster.members.index(member)
        addresses = [proxy.address for proxy in self.proxies]
        return addresses[number:] + addresses[:number]

    def _serve(self) -> Sequence[str]:
        self._running.enter_context(self.cluster)
        return self.endpoints

    def _make(self, addresses: Sequence[str], component: str, options: dict[str, Any]) -> KVStore:
        return EtcdStore(self.namespace, component, **{"endpoints": addresses, **options})


class TorchSite(Site):
    """A process that hosts a TCPStore."""

    backend = "tcpstore"
    versions = f"TCPStore of torch {torch.__version__}"

    def __init__(self) -> None:
        super().__init__()
        self.host = TorchHost(free_port())

    @property
    def endpoints(self) -> list[str]:
        return [self.host.endpoint]

    def settings(self) -> dict[str, Any]:
        host, _, port = self.proxy.address.rpartition(":")
        return {"backend": "tcpstore", "host": host, "port": int(port)}

    def _serve(self) -> Sequence[str]:
        self._running.enter_context(self.host)
        return self.endpoints

    def _make(self, addresses: Sequence[str], component: str, options: dict[str, Any]) -> KVStore:
        (address,) = addresses
        host, _, port = address.rpartition(":")
        return TCPKVStore(self.namespace, component, host=host, port=int(port), **options)


class EtcdUsersSite(EtcdSite):
    """One etcd that knows users; the stores of `open` and `beside` are the same user's."""

    users: Users

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **self.users.login}

    def _serve(self) -> Sequence[str]:
        endpoints = super()._serve()
        self.users = Users(self.server)
        return endpoints

    def _make(self, addresses: Sequence[str], component: str, options: dict[str, Any]) -> KVStore:
        return super()._make(addresses, component, {**self.users.login, **options})


class MemorySite(Site):
    """A store in the memory of whatever process opens it: there is no server, and nothing to go around."""

    backend = "memory"
    versions = "the memory of a process"

    @property
    def endpoints(self) -> list[str]:
        return []

    def settings(self) -> dict[str, Any]:
        return {"backend": "memory"}

    def _serve(self) -> Sequence[str]:
        return ()


class Stranger:
    """Somebody else who listens on a port: a web server, which answers what it does not understand with an error.

    Parameters
    ----------
    endpoint : str
        Where, ``host:port``.
    """

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._server = ThreadingHTTPServer((host, int(port)), _QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _QuietHandler(BaseHTTPRequestHandler):
    timeout = 2.0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the class that it overrides)
        """Say nothing."""


class Users:
    """Users on an etcd that had none: root, and one who may do anything with the keys of every job.

    Parameters
    ----------
    server : EtcdServer
        A running server, or a member of the cluster.
    """

    NAME, PASSWORD = "worker", "worker-password"
    ROOT = "root:root-password"

    def __init__(self, server: EtcdServer) -> None:
        self._server = server
        for command in (
            f"user add {self.ROOT}",
            "role add root",
            "user grant-role root root",
            f"user add {self.NAME}:{self.PASSWORD}",
            "role add jobs",
            "role grant-permission jobs --prefix=true readwrite job",
            f"user grant-role {self.NAME} jobs",
            "auth enable",
        ):
            server.ctl(*command.split())

    @property
    def login(self) -> dict[str, str]:
        """The options of a store that is this user's."""
        return {"user": self.NAME, "password": self.PASSWORD}

    def expire_tokens(self) -> None:
        """Make every token that the user holds worthless, at once: etcd does it where a password is set."""
        self._server.ctl(
            "--user", self.ROOT, "user", "passwd", self.NAME, "--interactive=false", reading=f"{self.PASSWORD}\n"
        )
