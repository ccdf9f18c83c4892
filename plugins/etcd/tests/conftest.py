"""Real etcds for the tests of this plugin, and stores on it that are closed afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from authority import Authority
from etcd_server import EtcdServer
from etha_kvstore_etcd import EtcdStore
from laboratory import Users

OpenStore = Callable[..., EtcdStore]
_namespaces = (f"job-{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    """A server that tests share, each in a namespace of its own; nobody harms it."""
    with EtcdServer() as server:
        yield server


@pytest.fixture
def own_etcd() -> Iterator[EtcdServer]:
    """A server that the test may do anything to."""
    with EtcdServer() as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that a store of the tests trusts."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def tls_etcd(authority: Authority) -> Iterator[EtcdServer]:
    """A server with TLS that tests share; nobody harms it."""
    with EtcdServer(*authority.issue("shared", "127.0.0.1").as_server, tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def users_etcd() -> Iterator[EtcdServer]:
    """A server that knows `Users`, whose tokens live for a second or two when they are not used."""
    with EtcdServer("--auth-token-ttl", "1", "--bcrypt-cost", "4") as server:
        Users(server)
        yield server


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    """Open a store at an address or several, in the test's namespace, and close it after the test."""
    namespace = next(_namespaces)
    opened: list[EtcdStore] = []

    def open_one(*endpoints: str, component: str = "trainer", **options: object) -> EtcdStore:
        arguments: dict[str, object] = {
            "endpoints": list(endpoints),
            "timeout": 5.0,
            "connect_timeout": 10.0,
            **options,
        }
        opened.append(EtcdStore(namespace, component, **arguments))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for store in opened:
        store.close(cleanup=False)
