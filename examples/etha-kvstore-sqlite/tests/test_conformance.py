"""The whole contract, on a file that several stores share, also where it is locked or gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etha.kvstore import KVStore
from etha_kvstore_sqlite import SqliteStore
from etha_kvstore_sqlite.plugin import SPEC
from etha_kvstore_sqlite.store import MAX_VALUE_BYTES
from etha_kvstore_testkit import OpenStores, ServerFault, StoreConformance


class TestSqlite(StoreConformance):
    spec = SPEC
    value_limit = MAX_VALUE_BYTES

    @pytest.fixture
    def open_stores(self, path: Path) -> OpenStores:
        def open_stores(
            count: int = 1, *, namespace: str = "conformance", component: str = "suite", **options: Any
        ) -> list[KVStore]:
            return [SqliteStore(namespace, component, path=path, **options) for _ in range(count)]

        return open_stores

    @pytest.fixture
    def fault(self, file_fault: ServerFault) -> ServerFault:
        return file_fault
