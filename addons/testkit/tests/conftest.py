"""Runs tests of the suite on stores inside a test, as their author would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import Phase, settings

from etha_kvstore_testkit.promises import waits

Check = Callable[[type, type, Sequence[str]], None]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the suite give up sooner, try the same calls each time, and not look for the shortest sequence that fails."""
    for name, module in list(sys.modules.items()):
        if name.startswith("etha_kvstore_testkit.promises.") and hasattr(module, "PATIENCE"):
            monkeypatch.setattr(module, "PATIENCE", 2.5)
    monkeypatch.setattr(waits, "RACE_PATIENCE", 0.5)
    settings.register_profile("hurried", phases=[Phase.generate], database=None, derandomize=True)
    settings.load_profile("hurried")
    yield
    settings.load_profile("default")


@pytest.fixture
def check_that_broken_fails_and_intact_passes(pytester: pytest.Pytester, hurried: None) -> Check:
    """Run the same tests of the suite on two stores.

    The fixture takes a broken store, the intact one that it is made of, and the names of the tests. The stores' module
    has a function ``suite_of`` that makes the suite for one. A test with parameters fails where one of them does.
    """

    def check(broken: type, intact: type, tests: Sequence[str]) -> None:
        pytester.makepyfile(
            test_suite=f"""
from {broken.__module__} import {broken.__name__}, {intact.__name__}, suite_of

TestIntact = suite_of({intact.__name__})
TestBroken = suite_of({broken.__name__})
"""
        )
        chosen = [f"test_suite.py::{suite}::{test}" for suite in ("TestIntact", "TestBroken") for test in tests]
        recorder = pytester.inline_run("-p", "etha_kvstore_testkit.plugin", "-p", "no:randomly", *chosen)
        found: dict[str, dict[str, str]] = {}
        for outcome, reports in zip(("passed", "skipped", "failed"), recorder.listoutcomes(), strict=True):
            report: Any
            for report in reports:
                _, suite, test = report.nodeid.split("::", 2)
                found.setdefault(suite, {})[test.partition("[")[0]] = outcome
        names = [test.partition("[")[0] for test in tests]
        assert found == {"TestIntact": dict.fromkeys(names, "passed"), "TestBroken": dict.fromkeys(names, "failed")}

    return check
