"""The wheel of the conformance kit in a clean environment, as the author of a backend uses it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

SUITE = """
import pytest

from etha_kvstore_memory import MemoryHub, MemoryStore
from etha_kvstore_memory.plugin import SPEC
from etha_kvstore_testkit import StoreConformance


class Undying(MemoryStore):
    def _remove(self, key, deadline):
        return self._read(key, deadline) is not None


class TestTheirs(StoreConformance):
    spec = SPEC

    @pytest.fixture
    def open_stores(self):
        hub = MemoryHub()

        def open_stores(count=1, *, namespace="conformance", component="suite", **options):
            return [{store}(namespace, component, hub=hub, **options) for _ in range(count)]

        return open_stores
"""


@pytest.fixture(scope="module")
def with_testkit(new_environment: Callable[[], Environment], wheel: Callable[[str], Path]) -> Environment:
    """Give an environment with the core, the memory backend and the kit."""
    environment = new_environment()
    environment.install(*map(wheel, ("etha-kvstore", "etha-kvstore-memory", "etha-kvstore-testkit")))
    return environment


def run_suite(environment: Environment, folder: Path, store: str, *arguments: str) -> tuple[int, str]:
    """Write the file that an author would, and give pytest's exit code and what it printed."""
    (folder / "test_theirs.py").write_text(SUITE.replace("{store}", store))
    return environment.ends("-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={folder}", str(folder), *arguments)


def test_an_authors_subclass_runs_the_whole_suite(with_testkit: Environment, tmp_path: Path) -> None:
    code, text = run_suite(with_testkit, tmp_path, "MemoryStore")
    assert code == 0, text
    assert "TestTheirs has no fixture 'fault'" in text
    (passed,) = re.findall(r"^=+ (\d+) passed, \d+ deselected in ", text, re.MULTILINE)
    assert int(passed) > 200


def test_a_store_that_does_not_delete_fails_it(with_testkit: Environment, tmp_path: Path) -> None:
    code, text = run_suite(with_testkit, tmp_path, "Undying", "-k", "delete")
    assert code == 1, text
    assert re.search(r"^FAILED .*delete", text, re.MULTILINE)
