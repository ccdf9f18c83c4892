"""The whole contract, with every fault that it speaks of, on a real TCPStore server in another process."""

from __future__ import annotations

import pytest

from etha.kvstore import KVStore
from etha_kvstore_tcpstore import TCPKVStore
from etha_kvstore_tcpstore.plugin import SPEC
from etha_kvstore_testkit import OpenStores, ServerFault, StoreConformance
from tcpstore_host import TorchHost


class HostFault:
    """What the suite does to the server."""

    def __init__(self, host: TorchHost) -> None:
        self.freeze, self.thaw, self.stop, self.start = host.freeze, host.thaw, host.kill, host.start


class TestTCPStore(StoreConformance):
    spec = SPEC
    value_limit = 8 * 1024 * 1024

    @pytest.fixture
    def open_stores(self, mended_host: TorchHost) -> OpenStores:
        def open_stores(
            count: int = 1, *, namespace: str = "conformance", component: str = "suite", **options: object
        ) -> list[KVStore]:
            arguments: dict[str, object] = {"host": "127.0.0.1", "port": mended_host.port, **options}
            return [TCPKVStore(namespace, component, **arguments) for _ in range(count)]  # type: ignore[arg-type]

        return open_stores

    @pytest.fixture
    def fault(self, mended_host: TorchHost) -> ServerFault:
        return HostFault(mended_host)
