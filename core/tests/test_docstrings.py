"""The docstrings of the core and of the memory backend: every example in them runs and prints what it says."""

from __future__ import annotations

import doctest
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

import etha.kvstore
import etha_kvstore_memory
from etha.kvstore.hookspecs import BackendSpec
from etha_kvstore_memory import MemoryHub, MemoryStore

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SHELF = BackendSpec("shelf", "etha_kvstore_shelf.store:ShelfStore", "keys on a shelf", contract=1)


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """Give a package and all its modules."""
    yield package
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield import_module(found.name)


FOUND = [
    test
    for package in (etha.kvstore, etha_kvstore_memory)
    for module in modules(package)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module)
    if test.examples
]


@pytest.mark.parametrize("test", FOUND, ids=[test.name for test in FOUND])
def test_the_examples_of_a_docstring_do_what_they_say(test: doctest.DocTest) -> None:
    with MemoryStore("job-42", "trainer", hub=MemoryHub()) as store:
        test.globs |= {"store": store, "open_store": etha.kvstore.open_store}
        if test.name.endswith(("hookspecs.hookimpl", "hookspecs.kvstore_backend")):  # what a plugin's own module holds
            test.globs |= {"SPEC": SHELF, "kvstore_backend": lambda: SHELF}
        report: list[str] = []
        failed, tried = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert tried > 0
    assert failed == 0, "".join(report)


def test_every_module_is_looked_into() -> None:
    some = {
        "etha.kvstore",
        "etha.kvstore.keys.prefix",
        "etha.kvstore.base.Watch.next",
        "etha_kvstore_memory.hub.MemoryHub",
    }
    assert some <= {test.name for test in FOUND}
