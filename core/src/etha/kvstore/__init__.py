"""A coordination key-value store for distributed jobs, with the backend chosen by name.

>>> from etha.kvstore import open_store
>>> with open_store("memory", namespace="job-42", component="trainer") as store:
...     store.set("rank:0/ready", "1")
...     store.wait_for_key("rank:0/ready", timeout=60)
b'1'

Importing this package loads none of its modules: each name below is fetched when it is first used, so that a program
that only might need a store does not pay for one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etha.kvstore.base import Change, KVStore, Watch
    from etha.kvstore.config import open_store_from_config
    from etha.kvstore.registry import open_store

__all__ = ["Change", "KVStore", "Watch", "open_store", "open_store_from_config"]

_HOMES = {
    "Change": "base",
    "KVStore": "base",
    "Watch": "base",
    "open_store": "registry",
    "open_store_from_config": "config",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
