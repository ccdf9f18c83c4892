"""A real TCPStore server in a process of its own, for the tests."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import TracebackType

import psutil

__all__ = ["PROCESSES", "TorchHost", "freeze"]

PROCESSES = multiprocessing.get_context("forkserver")
"""Where processes are forked from one that has imported what they need: loading torch takes seconds."""

PROCESSES.set_forkserver_preload(["etha_kvstore_tcpstore.store", "etha_kvstore_etcd.store"])


def freeze(pid: int) -> None:
    """Stop a process where it is (SIGSTOP), and return when it stands."""
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)


class TorchHost:
    """A process that hosts a server until it is told to leave, with a verb for each thing that can happen to it.

    Parameters
    ----------
    port : int
        Where; one that the kernel does not hand out, if the server is to start again after a kill.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._process: ForkServerProcess | None = None
        self._told: Connection | None = None

    @property
    def endpoint(self) -> str:
        """Where clients connect, ``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        assert self._process.pid is not None
        return self._process.pid

    def start(self) -> None:
        """Serve; after a `kill`, on the same port again."""
        self._told, told = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=_serve, args=(self.port, told), daemon=True)
        self._process.start()
        told.close()
        self.port = self._told.recv()

    def freeze(self) -> None:
        """Stop the process where it is (SIGSTOP), and return when it stands."""
        freeze(self.pid)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once (SIGKILL), and all that the server held."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process politely (SIGTERM), and all that the server held: Python has no farewell for this signal."""
        self._end(signal.SIGTERM)

    def wipe_and_restart(self) -> None:
        """Come back as a server that never held anything, which is how it always comes back."""
        self.kill()
        self.start()

    def leave(self) -> int:
        """Have the store that hosts close, and return the exit code of its process."""
        assert self._process is not None, "the server is not running"
        assert self._told is not None
        process, self._process = self._process, None
        self._told.close()
        process.join(60.0)
        assert process.exitcode is not None, "the hosting process did not end"
        return process.exitcode

    def __enter__(self) -> TorchHost:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def __repr__(self) -> str:
        return f"<TCPStore host at {self.endpoint}>"

    def _end(self, signal_number: int) -> None:
        if self._process is not None:
            self.thaw()
            os.kill(self.pid, signal_number)
            self._process.join()
            self._process = None
            assert self._told is not None
            self._told.close()


def _serve(port: int, told: Connection) -> None:
    """Host a server until the other end of the pipe is closed."""
    from etha_kvstore_tcpstore import TCPKVStore

    with TCPKVStore("hosting", "server", host="127.0.0.1", port=port, is_master=True) as store:
        told.send(store.port)
        with suppress(EOFError):
            told.recv()
