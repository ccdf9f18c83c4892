"""``etha-kv doctor``: what is installed, and what is wrong between here and the store that is configured.

Every plugin is loaded in a process of its own, with a limit on its time, and so is the store that is configured: what
one of them does to its process is a finding like any other.
"""

from __future__ import annotations

import json as json_format
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import gmtime, monotonic, strftime, time
from types import TracebackType
from typing import Any, NamedTuple

import importlib_metadata
from rich.text import Text

from etha.kvstore.hookspecs import GROUP
from etha_kvstore_cli.console import Output, shown
from etha_kvstore_cli.target import Target

__all__ = ["Finding", "judge_clock", "run"]

STEP_SECONDS = 10.0
"""How long one step may take. The longest of this project's own backends, etcd's diagnosis, ends before."""

PROGRAM = "import sys; sys.path[:] = [p for p in sys.path if p]; from etha_kvstore_cli.examine import main; main()"
"""What the processes run; nothing is imported from the folder that the command happens to be called in."""

STYLES = {"good": "green", "doubtful": "yellow", "bad": "bold red"}

MEND = "mend or uninstall the plugin of that backend"

SOME_BAD = 1


class Finding(NamedTuple):
    """One line of what the doctor says.

    Parameters
    ----------
    subject : str
        What it is about: ``here``, ``plugin NAME``, ``store``.
    level : str
        ``good``, ``doubtful`` or ``bad``.
    what : str
        What was found.
    do : str
        What to do about it; empty where nothing is.
    """

    subject: str
    level: str
    what: str
    do: str = ""


def run(target: Target | None, json: bool, *, read_only: bool = False) -> int:
    """Examine, and print what is found.

    Parameters
    ----------
    target : Target, optional
        The store that is configured; without it only what is installed is examined.
    json : bool
        Whether a machine reads it: one document at the end.
    read_only : bool
        Whether nothing is to be written, not even a key that is deleted again.

    Returns
    -------
    int
        The exit code: 0 where nothing is bad, 2 or 3 where the store could not be opened, else 1.
    """
    output = Output(json=json)
    found: list[Finding] = []
    code = 0
    for finding in _examine(target, read_only):
        if isinstance(finding, int):
            code = finding
            continue
        found.append(finding)
        if not json:
            output.screen.print(_line(finding), soft_wrap=True)
    code = code or (SOME_BAD if any(finding.level == "bad" for finding in found) else 0)
    if json:
        output.document({"findings": [finding._asdict() for finding in found], "exit_code": code})
    return code


def judge_clock(now: float, installed: float) -> Finding:
    """Say whether a wall clock can be right.

    Parameters
    ----------
    now : float
        What it says, in seconds since 1970.
    installed : float
        When this program was installed.

    Returns
    -------
    Finding
        Bad where it is before that.
    """
    told = f"the clock says {strftime('%Y-%m-%d %H:%M:%S', gmtime(now))} UTC"
    if now < installed - 86_400:
        cure = "set it by NTP: certificates and logs go by it (waits do not)"
        return Finding("here", "bad", f"{told}, and this command was installed later", cure)
    return Finding("here", "good", told)


def _line(finding: Finding) -> Text:
    cure = f"  -> {shown(finding.do)}" if finding.do else ""
    return Text.assemble(
        (finding.level.ljust(8), STYLES[finding.level]),
        "  ",
        f"{finding.subject}: {shown(finding.what)}",
        (cure, "bold"),
    )


def _examine(target: Target | None, read_only: bool) -> Iterator[Finding | int]:
    """Give what is found, as it is found, and the exit code, where the store could not be opened."""
    version = importlib_metadata.version("etha-kvstore")
    yield Finding("here", "good", f"etha-kvstore {version}, Python {platform.python_version()}, {platform.system()}")
    yield judge_clock(time(), Path(__file__).stat().st_mtime)
    with ExitStack() as running:
        children = [
            (name, origin, running.enter_context(_Child(f"plugin {name}", {"plugin": name})))
            for name, origin in sorted(_installed().items())
        ]
        if target is not None:
            task = {
                "source": str(target.source) if isinstance(target.source, Path) else target.source,
                "is_file": isinstance(target.source, Path),
                "component": target.component,
                "read_only": read_only,
            }
            children.append(("", "", running.enter_context(_Child("store", task))))
        for name, origin, child in children:
            for finding in child.findings():
                if name and isinstance(finding, Finding):
                    finding = finding._replace(what=f"({origin}) {finding.what}")
                yield finding
        if len(children) == (target is not None):
            cure = "pip install etha-kvstore-etcd, or -tcpstore, or -memory"
            yield Finding("here", "bad", "no backend is installed", cure)
    if target is None:
        yield Finding("store", "doubtful", "none was named, so none was opened", "give --url, --config or --backend")


def _installed() -> dict[str, str]:
    """Find the names of all backends that are installed, and the distributions that claim each, without loading any."""
    claims: dict[str, set[str]] = {}
    for distribution in importlib_metadata.distributions():
        with suppress(Exception):  # damaged metadata fail with anything, and the backend is not found then
            for point in distribution.entry_points.select(group=GROUP):
                claims.setdefault(point.name, set()).add(f"{distribution.name} {distribution.version}")
    return {name: " and ".join(sorted(origins)) for name, origins in claims.items()}


class _Child:
    """A process that examines one thing, and what it has said so far.

    Parameters
    ----------
    subject : str
        What it examines.
    task : mapping
        What it is to do, as `etha_kvstore_cli.examine` takes it. It may hold secrets, so it is no argument.
    """

    def __init__(self, subject: str, task: Mapping[str, Any]) -> None:
        self._subject = subject
        self._said: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._heard = monotonic()
        # In a session of its own, so that what it may have started can be ended with it.
        self._process = subprocess.Popen(  # noqa: S603 (this interpreter and the text above)
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        Thread(target=self._listen, args=(json_format.dumps(task),), daemon=True).start()

    def findings(self) -> Iterator[Finding | int]:
        """Give what it finds, as it finds it, and the exit code, where it says one."""
        step = "starting Python"
        while True:
            try:
                said = self._said.get(timeout=max(0.0, self._heard + STEP_SECONDS - monotonic()))
            except Empty:
                yield Finding(self._subject, "bad", f"{step} did not end within {STEP_SECONDS:g} s", MEND)
                return
            if said is None:
                what = f"{step} ended the process with {_ending(self._process.wait())}"
                yield Finding(self._subject, "bad", what, MEND)
                return
            if "done" in said:
                return
            if "step" in said:
                step = said["step"]
            elif "exit_code" in said:
                yield said["exit_code"]
            else:
                what, _, cure = said["message"].partition(" -> ")
                yield Finding(self._subject, said["level"], what, cure)

    def __enter__(self) -> _Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _listen(self, task: str) -> None:
        """Hand the task over, and keep what is said, until the process ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError), self._process.stdin as stdin:  # it may have ended already
            stdin.write(task)
        with self._process.stdout as stdout:
            for line in stdout:
                self._heard = monotonic()
                with suppress(ValueError):
                    self._said.put(json_format.loads(line))
        self._said.put(None)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
