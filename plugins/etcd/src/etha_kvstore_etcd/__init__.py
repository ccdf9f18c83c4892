"""The etcd backend of etha-kvstore; `EtcdStore` is fetched, and grpcio loaded, when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etha_kvstore_etcd.store import EtcdStore

__all__ = ["EtcdStore"]


def __getattr__(name: str) -> object:
    if name != "EtcdStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from etha_kvstore_etcd.store import EtcdStore

    return EtcdStore
