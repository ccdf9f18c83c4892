"""A folder with the file in it, and what can happen to them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# In WAL mode SQLite's locks are bytes 120 to 127 of the file's -shm, whose first 96 bytes are the same header twice. A
# process that recovers the log holds all of the locks and leaves the copies unequal until it is done.
STUCK_IN_RECOVERY = """
import fcntl, os, sys
index = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(index, fcntl.LOCK_EX, 8, 120)
os.pwrite(index, bytes(48), 48)
print("locked", flush=True)
sys.stdin.read()
"""


class FileFault:
    """Locks the file against all reading and writing, and takes the file away with its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holder: subprocess.Popen[str] | None = None

    def freeze(self) -> None:
        """Have a process stop in the middle of a recovery."""
        command = [sys.executable, "-c", STUCK_IN_RECOVERY, f"{self._path}-shm"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "locked\n"

    def thaw(self) -> None:
        """Kill it: the next who comes recovers in its place."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None

    def stop(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._path.parent)

    def start(self) -> None:
        """Make it again, empty."""
        self._path.parent.mkdir()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a file that nobody has made, in a folder of its own."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder / "job.sqlite"


@pytest.fixture
def file_fault(path: Path) -> Iterator[FileFault]:
    """Give what can happen to the file."""
    fault = FileFault(path)
    yield fault
    fault.thaw()
