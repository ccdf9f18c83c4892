"""The pytest plugin: leaves out the tests that break the server where a suite gives no `fault` fixture, and says so."""

from __future__ import annotations

from collections import Counter

import pytest

from etha_kvstore_testkit.harness import Harness

__all__ = ["pytest_collection_modifyitems", "pytest_report_collectionfinish"]

_left_out = pytest.StashKey[Counter[str]]()


@pytest.hookimpl
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that need a fault in suites that have none."""
    faultless = [item for item in items if _needs_a_fault(item)]
    config.stash[_left_out] = Counter(item.parent.name for item in faultless if item.parent is not None)
    if faultless:
        config.hook.pytest_deselected(items=faultless)
        items[:] = [item for item in items if not _needs_a_fault(item)]


@pytest.hookimpl
def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say which suites are tested without faults, so that nobody takes them for whole."""
    return [
        f"{suite} has no fixture 'fault': {count} tests that break the server are deselected"
        for suite, count in config.stash.get(_left_out, Counter()).items()
    ]


def _needs_a_fault(item: pytest.Item) -> bool:
    """Tell whether a test of the suite asks for a fault that its class does not give."""
    return (
        isinstance(item, pytest.Function)
        and isinstance(item.cls, type)
        and issubclass(item.cls, Harness)
        and "fault" in item.fixturenames
        and not hasattr(item.cls, "fault")
    )
