"""The command ``etha-kv``: run it, and turn whatever ends it into an exit code and a line or two.

The rest is imported once Ctrl-C can be told from a crash: loading it takes a moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; that of the process where it is not given.

    Returns
    -------
    int
        The exit code, as `etha_kvstore_cli.failures` has them.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _leave)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, so that the next file to be opened would take its place
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    try:
        from etha_kvstore_cli.app import run

        return run(given)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # What is still buffered would fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _leave(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C, so that the store is closed and the terminal is as it was."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
