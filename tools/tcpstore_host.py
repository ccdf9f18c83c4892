"""A real TCPStore server in a process of its own, for the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import TracebackType

__all__ = ["TorchHost"]

HOST = """
import sys
from etha_kvstore_tcpstore import TCPKVStore

with TCPKVStore("hosting", "server", host="127.0.0.1", port=int(sys.argv[1]), is_master=True) as store:
    print(store.port, flush=True)
    sys.stdin.read()
"""


class TorchHost:
    """A process that hosts a server until it is told to leave, with a verb for each thing that can happen to it.

    Parameters
    ----------
    port : int
        Where; one that the kernel does not hand out, if the server is to start again after a kill.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._process: subprocess.Popen[str] | None = None

    @property
    def endpoint(self) -> str:
        """Where clients connect, ``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running.pid

    def start(self) -> None:
        """Serve; after a `kill`, on the same port again."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOST, str(self.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def freeze(self) -> None:
        """Stop the process where it is (SIGSTOP), and return when it stands."""
        self._running.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once (SIGKILL), and all that the server held."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def leave(self) -> int:
        """Have the store that hosts close, and return the exit code of its process."""
        process, self._process = self._running, None
        process.communicate(timeout=60)
        return process.returncode

    def __enter__(self) -> TorchHost:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def __repr__(self) -> str:
        return f"<TCPStore host at {self.endpoint}>"

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the server is not running"
        return self._process
