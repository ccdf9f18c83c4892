"""The command in a process of its own, at a pipe or in a terminal, and real servers for it to speak to."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pyte
import pytest

from etcd_server import EtcdServer
from etha.kvstore import KVStore, open_store_from_config
from etha_kvstore_cli import app
from tcpstore_host import TorchHost

COMMAND = str(Path(sysconfig.get_path("scripts")) / "etha-kv")
PATIENCE = 30.0

IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal that it is given the one that Ctrl-C comes from, and becomes the command."""

_namespaces = (f"job-{number}" for number in itertools.count())


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: str


def _environment(given: dict[str, str]) -> dict[str, str]:
    """Make the environment of a command: that of the tests without what would change its output."""
    cleared = ("ETHA_KVSTORE_URL", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if name not in cleared}
    return kept | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | given


def kv(
    *arguments: str, given: bytes = b"", out: int = subprocess.PIPE, redirected: str = "", **environment: str
) -> Done:
    """Run the command to its end, with pipes for all that it reads and writes, or as a shell redirects it."""
    ended = subprocess.run(
        [*(["bash", "-c", f'exec "$0" "$@" {redirected}'] if redirected else []), COMMAND, *arguments],
        input=given,
        env=_environment(environment),
        check=False,
        stdout=out,
        stderr=subprocess.PIPE,
        timeout=2 * PATIENCE,
    )
    return Done(ended.returncode, ended.stdout or b"", ended.stderr.decode())


class Running:
    """A command that goes on, at pipes; each of its two outputs can be awaited."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [COMMAND, *arguments],
            env=_environment({}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._read = {self.process.stdout: b"", self.process.stderr: b""}

    @property
    def out(self) -> str:
        """What standard output has had so far."""
        assert self.process.stdout is not None
        return self._read[self.process.stdout].decode()

    @property
    def err(self) -> str:
        """What standard error has had so far."""
        assert self.process.stderr is not None
        return self._read[self.process.stderr].decode()

    def awaits(self, pattern: str) -> re.Match[str]:
        """Read until the pattern is found in one of the outputs."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for text in (self.out, self.err):
                if found := re.search(pattern, text):
                    return found
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} is in neither {self.out!r} nor {self.err!r}"
            for pipe in select.select(list(self._read), [], [], left)[0]:
                if not (more := os.read(pipe.fileno(), 65536)):
                    pytest.fail(f"{pattern!r} never came; the command wrote {self.out!r} and {self.err!r}")
                self._read[pipe] += more

    def ends(self) -> int:
        """Read on to the end, and give the exit code."""
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._read[self.process.stdout] += out
        self._read[self.process.stderr] += err
        return self.process.returncode

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Terminal:
    """A command in a terminal of its own: what is on the screen can be read, and keys can be pressed."""

    def __init__(self, *arguments: str, rows: int = 24, columns: int = 80, term: str = "xterm-256color") -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.modes = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, COMMAND, *arguments],
            env=_environment({"TERM": term}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        self._theirs = theirs  # kept open, so that the modes can be looked at when the command has left

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def has_cursor(self) -> bool:
        """Whether the cursor can be seen."""
        return not self._screen.cursor.hidden

    @property
    def modes_now(self) -> list[object]:
        """How the terminal treats what is typed."""
        return list(termios.tcgetattr(self._theirs))

    def awaits(self, pattern: str) -> re.Match[str]:
        """Let the command draw until the screen shows the pattern."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.text)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} never came on the screen, which shows\n{self.text}"
            self._draw(min(left, 0.1))
        return found

    def press(self, keys: str) -> None:
        """Type; ``\\x03`` is Ctrl-C."""
        os.write(self._ours, keys.encode())

    def ends(self) -> int:
        """Let the command draw until it has ended, and give its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the command goes on; the screen shows\n{self.text}"
            self._draw(0.05)
        while self._draw(0.0):
            pass
        return self.process.returncode

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _draw(self, patience: float) -> bool:
        if not select.select([self._ours], [], [], patience)[0]:
            return False
        self._stream.feed(os.read(self._ours, 65536))
        return True


class Place:
    """A namespace of a server: the URL for the command, and stores to do what other processes would."""

    def __init__(self, backend: str, endpoint: str, closing: ExitStack) -> None:
        self.backend = backend
        self.endpoint = endpoint
        self.namespace = next(_namespaces)
        self.url = f"{backend}://{endpoint}/{self.namespace}/trainer"
        self._closing = closing

    def store(self, component: str = "trainer") -> KVStore:
        """Open a store that is closed after the test, without clean-up."""
        store = open_store_from_config(self.url, component=component, timeout=5.0, connect_timeout=10.0)
        self._closing.callback(store.close, cleanup=False)
        return store

    def kv(self, *arguments: str, given: bytes = b"", out: int = subprocess.PIPE, redirected: str = "") -> Done:
        """Run the command on this place."""
        return kv(*arguments, given=given, out=out, redirected=redirected, ETHA_KVSTORE_URL=self.url)


@pytest.fixture(name="kv")
def the_command() -> Callable[..., Done]:
    """Give `kv`."""
    return kv


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Done]:
    """Give what runs the command in this process, for what ends before a store is opened; a new one takes its time."""

    def run_here(*arguments: str) -> Done:
        code = app.run(arguments)
        out, err = capfdbinary.readouterr()
        return Done(code, out, err.decode())

    return run_here


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    """Start commands that go on, and end them after the test."""
    with ExitStack() as started:
        yield lambda *arguments: started.enter_context(Running(*arguments))


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Start commands in terminals, and end them after the test."""
    with ExitStack() as started:
        yield lambda *arguments, **size: started.enter_context(Terminal(*arguments, **size))


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    """An etcd that tests share, each in a namespace of its own; nobody harms it."""
    with EtcdServer() as server:
        yield server


@pytest.fixture(scope="session")
def tcpstore_server() -> Iterator[TorchHost]:
    """A TCPStore that tests share, each in a namespace of its own; nobody harms it."""
    with TorchHost() as server:
        yield server


@pytest.fixture
def etcd(etcd_server: EtcdServer) -> Iterator[Place]:
    """A namespace on etcd."""
    with ExitStack() as closing:
        yield Place("etcd", etcd_server.endpoint, closing)


@pytest.fixture
def tcpstore(tcpstore_server: TorchHost) -> Iterator[Place]:
    """A namespace on a TCPStore."""
    with ExitStack() as closing:
        yield Place("tcpstore", tcpstore_server.endpoint, closing)


@pytest.fixture(params=["etcd", "tcpstore"])
def place(request: pytest.FixtureRequest) -> Place:
    """A namespace on each backend that has a server."""
    given = request.getfixturevalue(request.param)
    assert isinstance(given, Place)
    return given
