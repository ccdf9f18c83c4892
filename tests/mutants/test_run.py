"""What the runner makes of a run: a failed test is a catch, and a suite that could not be run is none."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import psutil
import pytest

from run import Outcome, run_pytest, summary, verdict

PASSES = "def test_that_passes(): pass\n"
FAILS = "def test_that_fails(): assert False\n"
BREAKS = "import pytest\n@pytest.fixture\ndef broken(): assert False\ndef test_that_fails(broken): pass\n"


def run(tree: Path, *contents: str) -> Outcome:
    """Run a suite of some files and judge it."""
    for number, content in enumerate(contents):
        (tree / f"test_{number}.py").write_text(content)
    return run_pytest(tree, [f"test_{number}.py" for number in range(len(contents))], 300.0)


@pytest.mark.parametrize("test", [FAILS, BREAKS], ids=["test", "fixture"])
def test_the_first_test_that_fails_or_whose_fixture_does_catches_the_mutant(test: str, tmp_path: Path) -> None:
    assert run(tmp_path, PASSES, test, FAILS).caught_by == "test_1.py::test_that_fails"


def test_a_suite_that_passes_lets_the_mutant_survive(tmp_path: Path) -> None:
    outcome = run(tmp_path, PASSES)
    assert (outcome.caught_by, outcome.trouble, str(outcome)) == ("", "", "SURVIVED")


@pytest.mark.parametrize("content", ["import a_module_that_is_not_there\n", ""])
def test_a_suite_that_can_not_be_collected_or_is_empty_catches_nothing(content: str, tmp_path: Path) -> None:
    outcome = run(tmp_path, content)
    assert outcome.caught_by == ""
    assert outcome.trouble.startswith("pytest ended with")


def test_a_run_that_outlasts_its_limit_is_caught_by_the_limit() -> None:
    printed = "collected 2 items\n\ntest_0.py::test_that_passes PASSED      [ 50%]\ntest_0.py::test_that_hangs "
    assert verdict(None, printed).caught_by == "test_0.py::test_that_hangs (by the time limit)"
    assert verdict(None, "collecting ... ").trouble.startswith("pytest ended with None")


def test_a_run_leaves_nobody_behind(tmp_path: Path) -> None:
    leaves = f"""
import subprocess, sys
from pathlib import Path

def test_it():
    left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    Path({str(tmp_path / "pid")!r}).write_text(str(left.pid))
    left.returncode = 0  # so that nobody reminds us of it
"""
    assert str(run(tmp_path, leaves)) == "SURVIVED"
    left = int((tmp_path / "pid").read_text())
    deadline = monotonic() + 60
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert monotonic() < deadline


def test_the_packages_of_the_tree_win_over_the_installed_ones(tmp_path: Path) -> None:
    package = tmp_path / "plugins/etcd/src/etha_kvstore_etcd"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("MUTATED = True\n")
    sees = "import subprocess, sys\ndef test_it(): subprocess.check_call([sys.executable, '-c', "
    sees += "'import etha_kvstore_etcd; assert etha_kvstore_etcd.MUTATED'])\n"
    assert str(run(tmp_path, sees)) == "SURVIVED"


def test_only_a_run_in_which_every_mutant_was_caught_is_a_success() -> None:
    caught, survived, unknown = Outcome(caught_by="a test"), Outcome(), Outcome(trouble="it did not apply")
    assert summary([caught, caught]) == ("2 mutants: 2 caught, 0 survived", 0)
    assert summary([caught, survived]) == ("2 mutants: 1 caught, 1 survived", 1)
    assert summary([caught, unknown]) == ("2 mutants: 1 caught, 0 survived, 1 without a verdict", 1)
