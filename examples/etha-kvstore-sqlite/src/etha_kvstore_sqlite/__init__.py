"""A SQLite backend of etha-kvstore; `SqliteStore` is fetched when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etha_kvstore_sqlite.store import SqliteStore

__all__ = ["SqliteStore"]


def __getattr__(name: str) -> object:
    if name != "SqliteStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from etha_kvstore_sqlite.store import SqliteStore

    return SqliteStore
