"""The plugin: which tests a suite has, what it says of those left out, and how little it costs who does not use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "etha_kvstore_testkit.plugin", "-p", "no:randomly")

SUITE = """
import pytest

from etha_kvstore_memory import MemoryHub, MemoryStore
from etha_kvstore_memory.plugin import SPEC
from etha_kvstore_testkit import StoreConformance

class TestMemory(StoreConformance):
    spec = SPEC

    @pytest.fixture
    def open_stores(self):
        hub = MemoryHub()

        def open_stores(count=1, *, namespace="conformance", component="suite", **options):
            return [MemoryStore(namespace, component, hub=hub, **options) for _ in range(count)]

        return open_stores
"""

FAULT = """
    @pytest.fixture
    def fault(self):
        raise NotImplementedError
"""


def collected(pytester: pytest.Pytester, source: str) -> tuple[set[str], int, str]:
    """Collect a test file, and give its tests, how many were deselected, and what was printed."""
    pytester.makepyfile(test_suite=source)
    result = pytester.runpytest_inprocess("--collect-only", "-q", *PLUGIN)
    tests = {line for line in result.outlines if line.startswith("test_suite.py::")}
    return tests, result.parseoutcomes().get("deselected", 0), result.stdout.str()


def test_the_tests_that_need_a_fault_are_deselected_where_there_is_none_and_said_to_be(
    pytester: pytest.Pytester,
) -> None:
    everything, none_left_out, silent = collected(pytester, SUITE + FAULT)
    faultless, left_out, said = collected(pytester, SUITE)
    assert none_left_out == 0
    assert "deselected" not in silent
    assert faultless < everything
    assert left_out == len(everything) - len(faultless) > 0
    assert all("frozen" not in test and "server_that_is_gone" not in test for test in faultless)
    assert f"TestMemory has no fixture 'fault': {left_out} tests that break the server are deselected" in said


def test_a_test_of_somebody_elses_that_asks_for_a_fault_is_left_alone(pytester: pytest.Pytester) -> None:
    source = """
def test_its_own(fault): pass

class TestOther:
    def test_its_own(self, fault): pass
"""
    tests, left_out, _ = collected(pytester, source)
    assert tests == {"test_suite.py::test_its_own", "test_suite.py::TestOther::test_its_own"}
    assert left_out == 0


def test_a_suite_without_open_stores_is_told_what_it_lacks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=SUITE.partition("    @pytest.fixture")[0])
    result = pytester.runpytest_inprocess(*PLUGIN, "-k", "test_close_may_be_called_again")
    result.assert_outcomes(errors=1, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(["*fixture 'open_stores' not found*"])


def test_the_suite_closes_what_it_opened_the_first_last_and_cleans_nothing_up(pytester: pytest.Pytester) -> None:
    suite = SUITE.replace(
        "MemoryStore(namespace, component, hub=hub, **options) for _ in range(count)",
        "Recorded(namespace, component, hub=hub, **options) for _ in range(count)",
    )
    pytester.makepyfile(
        test_suite=f"""{suite}
    def test_of_its_own(self, store, other, opened):
        opened(2)
        assert store.exists("key") is other.exists("key") is False

OPENED, CLOSED = [], []

class Recorded(MemoryStore):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        OPENED.append(self)

    def close(self, cleanup=True):
        super().close(cleanup)
        CLOSED.append((self, cleanup))

def test_afterwards():
    assert len(OPENED) == 4
    assert CLOSED == [(store, False) for store in reversed(OPENED)]
"""
    )
    result = pytester.runpytest_inprocess(*PLUGIN, "-k", "test_of_its_own or test_afterwards")
    result.assert_outcomes(passed=2, deselected=result.parseoutcomes()["deselected"])


def test_the_plugin_loads_neither_the_suite_nor_hypothesis() -> None:
    program = """
import sys
import etha_kvstore_testkit.plugin
print([name for name in ("hypothesis", "etha_kvstore_testkit.suite") if name in sys.modules])
from etha_kvstore_testkit import OpenStores, ServerFault, StoreConformance
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "[]\n", "")
