"""The TCPStore backend of etha-kvstore; `TCPKVStore` is fetched, and torch loaded, when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etha_kvstore_tcpstore.store import TCPKVStore

__all__ = ["TCPKVStore"]


def __getattr__(name: str) -> object:
    if name != "TCPKVStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from etha_kvstore_tcpstore.store import TCPKVStore

    return TCPKVStore
