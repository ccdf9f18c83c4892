"""Servers for the tests of this plugin, each in a process of its own, and stores on them that are closed afterwards."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType

import pytest

from etcd_server import free_port
from etha_kvstore_tcpstore import TCPKVStore

OpenStore = Callable[..., TCPKVStore]

HOST = """
import sys
from etha_kvstore_tcpstore import TCPKVStore

with TCPKVStore("hosting", "server", host="127.0.0.1", port=int(sys.argv[1]), is_master=True) as store:
    print(store.port, flush=True)
    sys.stdin.read()
"""

_namespaces = (f"job-{number}" for number in itertools.count())


class HostProcess:
    """A process that hosts a server until it is told to leave.

    Parameters
    ----------
    port : int
        Where; one that the kernel does not hand out, if the server is to start again after a kill.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port

    def __enter__(self) -> HostProcess:
        self.start()
        return self

    def start(self) -> None:
        """Serve; after a `kill`, on the same port again."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOST, str(self.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def freeze(self) -> None:
        """Stop the server where it is, and return when it has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def leave(self) -> int:
        """Have the store that hosts close, and return the exit code of its process."""
        self._process.communicate(timeout=60)
        return self._process.returncode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


@pytest.fixture(scope="session")
def host() -> Iterator[HostProcess]:
    """A server that tests share, each in a namespace of its own; nobody harms it."""
    with HostProcess() as process:
        yield process


@pytest.fixture
def own_host() -> Iterator[HostProcess]:
    """A server that the test may do anything to."""
    with HostProcess() as process:
        yield process


@pytest.fixture(scope="module")
def mended_host() -> Iterator[HostProcess]:
    """A server for the tests of a module, which harm it, and mend it afterwards."""
    with HostProcess(free_port()) as process:
        yield process


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    """Open a store in the test's namespace, and close it after the test, the first one last: it may host the server."""
    namespace = next(_namespaces)
    with ExitStack() as closing:

        def open_one(component: str = "trainer", **options: object) -> TCPKVStore:
            arguments: dict[str, object] = {"timeout": 5.0, "connect_timeout": 10.0, **options}
            store = TCPKVStore(namespace, component, **arguments)  # type: ignore[arg-type]
            closing.callback(store.close)
            return store

        yield open_one


@pytest.fixture
def on(open_store: OpenStore) -> OpenStore:
    """Open a store on a server in another process."""

    def open_on(process: HostProcess, **options: object) -> TCPKVStore:
        return open_store(host="127.0.0.1", port=process.port, **options)

    return open_on
