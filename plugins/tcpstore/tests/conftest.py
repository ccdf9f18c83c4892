"""Servers for the tests of this plugin, each in a process of its own, and stores on them that are closed afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from etcd_server import free_port
from etha_kvstore_tcpstore import TCPKVStore
from tcpstore_host import TorchHost

OpenStore = Callable[..., TCPKVStore]

_namespaces = (f"job-{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def host() -> Iterator[TorchHost]:
    """A server that tests share, each in a namespace of its own; nobody harms it."""
    with TorchHost() as process:
        yield process


@pytest.fixture
def own_host() -> Iterator[TorchHost]:
    """A server that the test may do anything to."""
    with TorchHost() as process:
        yield process


@pytest.fixture(scope="module")
def mended_host() -> Iterator[TorchHost]:
    """A server for the tests of a module, which harm it, and mend it afterwards."""
    with TorchHost(free_port()) as process:
        yield process


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    """Open a store in the test's namespace, and close it after the test, the first one last: it may host the server."""
    namespace = next(_namespaces)
    with ExitStack() as closing:

        def open_one(component: str = "trainer", **options: object) -> TCPKVStore:
            arguments: dict[str, object] = {"timeout": 5.0, "connect_timeout": 10.0, **options}
            store = TCPKVStore(namespace, component, **arguments)  # type: ignore[arg-type]
            closing.callback(store.close)
            return store

        yield open_one


@pytest.fixture
def on(open_store: OpenStore) -> OpenStore:
    """Open a store on a server in another process."""

    def open_on(process: TorchHost, **options: object) -> TCPKVStore:
        return open_store(host="127.0.0.1", port=process.port, **options)

    return open_on
