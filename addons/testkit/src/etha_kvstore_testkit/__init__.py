"""The conformance suite of etha-kvstore: subclass `StoreConformance`, and pytest holds your backend to the contract.

The names below are fetched when first used, since pytest loads this package's plugin in every run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from etha_kvstore_testkit.harness import OpenStores, ServerFault
    from etha_kvstore_testkit.suite import StoreConformance

__all__ = ["OpenStores", "ServerFault", "StoreConformance"]

_HOMES = {"OpenStores": "harness", "ServerFault": "harness", "StoreConformance": "suite"}

# A failed assert then shows its operands, as in a test module.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in ("harness", "observe", "promises")))


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
