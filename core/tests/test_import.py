"""Importing the package: it loads next to nothing, and its names are fetched when they are used."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import etha.kvstore
from etha.kvstore import base, config, registry

ROOTS = "torch, grpc, pluggy, importlib_metadata, etha_kvstore_memory, etha_kvstore_tcpstore, etha_kvstore_etcd"
LOADED = f"print([root for root in {ROOTS.split(', ')!r} if root in sys.modules])"


def test_importing_the_package_loads_none_of_its_modules_and_nobody_elses(full_python: Callable[[str], str]) -> None:
    script = "import sys; before = set(sys.modules); import etha.kvstore; print(sorted(set(sys.modules) - before))"
    loaded = full_python(script)
    assert "'etha.kvstore'" in loaded
    assert "'etha.kvstore." not in loaded
    assert not [root for root in ROOTS.split(", ") if f"'{root}" in loaded]


def test_the_contracts_class_is_imported_without_the_machinery_of_plugins(full_python: Callable[[str], str]) -> None:
    assert full_python(f"import sys, etha.kvstore.base; {LOADED}") == "[]\n"


def test_what_a_plugins_light_module_imports_is_pluggy_alone(full_python: Callable[[str], str]) -> None:
    assert full_python(f"import sys, etha.kvstore.hookspecs; {LOADED}") == "['pluggy']\n"


def test_opening_a_store_loads_its_own_backend_and_no_other(full_python: Callable[[str], str]) -> None:
    script = "from etha.kvstore import open_store; open_store('memory', namespace='n', component='c').close()"
    assert full_python(f"import sys; {script}; {LOADED}") == "['pluggy', 'importlib_metadata', 'etha_kvstore_memory']\n"


def test_listing_the_backends_loads_no_client_library(full_python: Callable[[str], str]) -> None:
    script = f"import sys; from etha.kvstore.registry import installed_backends; installed_backends(); {LOADED}"
    loaded = full_python(script)
    assert "torch" not in loaded
    assert "grpc" not in loaded


def test_each_lazy_name_is_the_thing_itself() -> None:
    assert etha.kvstore.KVStore is base.KVStore
    assert etha.kvstore.Watch is base.Watch
    assert etha.kvstore.Change is base.Change
    assert etha.kvstore.open_store is registry.open_store
    assert etha.kvstore.open_store_from_config is config.open_store_from_config


def test_all_names_are_listed_before_they_are_used(full_python: Callable[[str], str]) -> None:
    script = "import etha.kvstore as package; print(set(package.__all__) <= set(dir(package)))"
    assert full_python(script) == "True\n"


def test_a_star_import_brings_all_names(full_python: Callable[[str], str]) -> None:
    script = "from etha.kvstore import *; print(*(thing.__name__ for thing in (KVStore, Watch, Change, open_store)))"
    assert full_python(script) == "KVStore Watch Change open_store\n"


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"module 'etha\.kvstore' has no attribute 'opne_store'"):
        etha.kvstore.opne_store  # noqa: B018
