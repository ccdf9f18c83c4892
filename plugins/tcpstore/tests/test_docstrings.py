"""The docstrings of this plugin: every example in them runs and prints what it says."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import etha_kvstore_tcpstore

MODULES = [f"etha_kvstore_tcpstore.{found.name}" for found in pkgutil.iter_modules(etha_kvstore_tcpstore.__path__)]
FOUND = [
    test
    for name in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(import_module(name))
    if test.examples
]


@pytest.mark.parametrize("test", FOUND, ids=[test.name for test in FOUND])
def test_the_examples_of_a_docstring_do_what_they_say(test: doctest.DocTest) -> None:
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, out=output.append).failed == 0, "".join(output)
