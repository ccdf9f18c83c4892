"""The whole contract, with every fault that it speaks of, on a real etcd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etcd_server import EtcdServer
from etha.kvstore import KVStore
from etha_kvstore_etcd import EtcdStore
from etha_kvstore_etcd.plugin import SPEC
from etha_kvstore_testkit import OpenStores, ServerFault, StoreConformance


class EtcdFault:
    """What the suite does to the server."""

    def __init__(self, server: EtcdServer) -> None:
        self.freeze, self.thaw, self.stop = server.freeze, server.thaw, server.kill
        self._server = server

    def start(self) -> None:
        self._server.start()


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    """A server for this module alone, since its tests harm it, and mend it afterwards."""
    with EtcdServer() as server:
        yield server


class TestEtcd(StoreConformance):
    spec = SPEC
    value_limit = 1_572_864 - 16_384

    @pytest.fixture
    def open_stores(self, server: EtcdServer) -> OpenStores:
        def open_stores(
            count: int = 1, *, namespace: str = "conformance", component: str = "suite", **options: object
        ) -> list[KVStore]:
            arguments: dict[str, object] = {"endpoints": [server.endpoint], **options}
            return [EtcdStore(namespace, component, **arguments) for _ in range(count)]  # type: ignore[arg-type]

        return open_stores

    @pytest.fixture
    def fault(self, server: EtcdServer) -> ServerFault:
        return EtcdFault(server)
