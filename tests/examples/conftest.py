"""What the tests of the examples share: a real etcd, the commands that the pages give, and how they are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from etcd_server import EtcdServer

ROOT = Path(__file__).parents[2]


class Shown(NamedTuple):
    """A command of a page, and the lines that the page shows below it."""

    command: list[str]
    output: list[str]


class Shell:
    """Runs commands in the root of the checkout, as a reader does who has its packages installed."""

    seconds = 90.0
    """How long a command may take on a busy machine, on which several processes import torch at once."""

    def __init__(self) -> None:
        self._started: list[psutil.Popen] = []

    def start(self, command: Sequence[str], **environment: str) -> psutil.Popen:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        inherited = {name: value for name, value in os.environ.items() if name not in ("ETHA_KVSTORE_URL", "RANK")}
        running = psutil.Popen(
            command,
            cwd=ROOT,
            env=inherited | {"PATH": path} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(running)
        return running

    def run(self, command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        running = self.start(command, **environment)
        out, err = running.communicate(timeout=self.seconds)
        return subprocess.CompletedProcess(command, running.returncode, out, err)

    def kill(self) -> None:
        """End all that still run, with what they have started."""
        for running in self._started:
            with suppress(psutil.NoSuchProcess):
                for each in [running, *running.children(recursive=True)]:
                    each.kill()
            running.communicate()


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell()
    yield shell
    shell.kill()


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture
def shown() -> Callable[[str], Shown]:
    def find(page: str) -> Shown:
        """Find the command of a how-to page that the page says is run here."""
        text = (ROOT / "docs/how-to" / page).read_text()
        mark = "<!-- not run: tests/examples does -->"
        (block,) = re.findall(rf"^{mark}\n```console\n\$ (.*?)^```", text, re.MULTILINE | re.DOTALL)
        command, *output = block.splitlines()
        return Shown(shlex.split(command), output)

    return find
