"""The memory backend of etha-kvstore; `MemoryStore` and `MemoryHub` are fetched when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etha_kvstore_memory.hub import MemoryHub
    from etha_kvstore_memory.store import MemoryStore

__all__ = ["MemoryHub", "MemoryStore"]

_HOMES = {"MemoryHub": "hub", "MemoryStore": "store"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
