"""Processes that set keys or wait for them for a measurement, so that neither shares an interpreter with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

__all__ = ["Child"]

TOOLS = Path(__file__).resolve().parents[1] / "tools"


class Child:
    """One of our scripts in a process of its own, which obeys lines and answers with lines.

    Parameters
    ----------
    script : str
        The script's name.
    *arguments : str
        Its arguments.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
        environment = os.environ | {"PYTHONPATH": str(TOOLS)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    @property
    def threads(self) -> int:
        """How many threads the process has."""
        return len(list(Path(f"/proc/{self._process.pid}/task").iterdir()))

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> list[float]:
        """Wait for the next line of numbers."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()} before it answered")
        return [float(number) for number in line.split()]

    def ask(self, line: str) -> list[float]:
        """Send a line and wait for the next one."""
        self.tell(line)
        return self.hear()

    def __enter__(self) -> Child:
        self.hear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            process.kill()
