"""Where a test run keeps its files, and what it says of itself: how much it tried, and on what servers it failed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Generator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from etcd_server import etcd_version

COUNTED = {"security": "security tests"}
"""Marks, and what a test that carries one is counted as; other numbers come from `record_property`."""

LIBRARIES = ("grpcio", "protobuf", "torch")

IN_MEMORY, ROOM = Path("/dev/shm"), 6 * 2**30  # noqa: S108 (the folder that is made in there is nobody else's)
"""Where temporary files go if that folder is there with so much room, in bytes; a whole run takes 2.6 GB of it."""

_made: Path | None = None
"""The folder that this process made for the temporary files of the run, and takes away with all that is in it."""

# A shared disk may stand still for more than ten seconds, and so does a server then, which writes to its log before it
# answers, even without fsync. No test asks for a machine's end to be outlived, and memory outlives a process's.
if "TMPDIR" not in os.environ and IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM:
    _made = Path(tempfile.mkdtemp(prefix="kvstore-tests-", dir=IN_MEMORY))
    os.environ["TMPDIR"] = tempfile.tempdir = str(_made)  # pytest itself has asked where before it came here

# torch asks for the name of each peer; a name server that drops a question would hold a test up for five seconds.
os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:1")

# A shell has its background jobs ignore Ctrl-C, nohup has them ignore a hang-up, and so does all that they start; the
# tests of these signals would wait for ever.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@cache
def versions() -> str:
    """Name what the tests run on."""
    installed = {each.name: each.version for each in metadata.distributions() if each.name in LIBRARIES}
    return ", ".join(f"{name} {version}" for name, version in [("etcd", etcd_version()), *installed.items()])


def pytest_unconfigure() -> None:
    """Give the memory back that temporary files took."""
    if _made is not None:
        shutil.rmtree(_made, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a test that passed; say what it ran on where it failed."""
    report = yield
    if report.when == "call" and report.passed:
        report.user_properties += [(what, 1) for mark, what in COUNTED.items() if item.get_closest_marker(mark)]
    if report.failed:
        report.sections.append(("servers and libraries", versions()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the sums of what the tests that passed have counted."""
    passed = terminalreporter.stats.get("passed", [])
    counts = Counter[str]()
    for report in passed:
        for what, count in report.user_properties:
            if isinstance(count, int):
                counts[what] += count
    if counts:
        terminalreporter.section("what was tried, and held")
        terminalreporter.write_line(", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())))
