"""The memory backend keeps the contract."""

from __future__ import annotations

from typing import Any

import pytest

from etha.kvstore.base import KVStore
from etha_kvstore_memory import MemoryHub, MemoryStore
from etha_kvstore_memory.plugin import SPEC
from etha_kvstore_testkit import OpenStores, StoreConformance


class TestMemory(StoreConformance):
    spec = SPEC

    @pytest.fixture
    def open_stores(self) -> OpenStores:
        hub = MemoryHub()

        def open_stores(
            count: int = 1, *, namespace: str = "conformance", component: str = "suite", **options: Any
        ) -> list[KVStore]:
            return [MemoryStore(namespace, component, hub=hub, **options) for _ in range(count)]

        return open_stores
