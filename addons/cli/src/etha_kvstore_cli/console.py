"""What a command writes: its result on standard output, all else on standard error, for people or as JSON.

Keys and values come from other processes. What a terminal might take for a command is never written to one: `shown`
writes it as an escape.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

from etha.kvstore.errors import WaitTimeoutError
from etha_kvstore_cli.failures import BUG, UnwritableError, exit_code

if TYPE_CHECKING:  # loading rich takes as long as reading a key does
    from rich.console import Console, RenderableType

__all__ = ["Output", "Warnings", "as_json", "can_draw", "shown", "text_of"]


def can_draw(stream: TextIO) -> bool:
    """Tell whether what is written to a stream can be drawn over.

    Parameters
    ----------
    stream : text file
        Standard output or standard error.

    Returns
    -------
    bool
        Whether it is a terminal that moves its cursor, whatever the environment would have colours for.
    """
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def shown(text: str) -> str:
    """Write what is not printable as an escape, line ends included.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        One line that does nothing to a terminal.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def text_of(value: bytes, longest: int | None = None) -> str:
    """Show a value in one line.

    Parameters
    ----------
    value : bytes
        The value.
    longest : int, optional
        How many characters; a longer one ends in an ellipsis and its size.

    Returns
    -------
    str
        Its text, with what is not UTF-8 or not printable as escapes.
    """
    if longest is None or len(value) <= longest:
        return shown(value.decode(errors="backslashreplace"))
    return f"{shown(value[:longest].decode(errors='backslashreplace'))}… ({len(value):,} bytes)"


def as_json(value: bytes, *, binary: bool = False) -> dict[str, str]:
    """Make a value's part of a JSON document.

    Parameters
    ----------
    value : bytes
        The value.
    binary : bool
        Whether it is binary data for sure.

    Returns
    -------
    dict
        ``value`` where it is UTF-8, else ``base64``.
    """
    if not binary:
        try:
            return {"value": value.decode()}
        except UnicodeDecodeError:
            pass
    return {"base64": base64.b64encode(value).decode()}


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class PipedConsole(Console):
        """Leaves it to the command what a closed pipe means; rich has an exit code of its own for it."""

        def on_broken_pipe(self) -> None:
            raise

    return PipedConsole(highlight=False, markup=False, emoji=False, stderr=stderr)


@contextmanager
def _written() -> Iterator[None]:
    """Say so, where the block can't write its result; a reader that has gone is no such failure."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnwritableError(f"standard output can't be written: {error.strerror}") from error


class Output:
    """Where a command writes.

    Parameters
    ----------
    json : bool
        Whether a machine reads it.

    Attributes
    ----------
    screen, aside : rich.console.Console
        Standard output and standard error, for what is more than a line.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._drawn_on: Console | None = None

    @cached_property
    def screen(self) -> Console:
        """Standard output."""
        return _console(stderr=False)

    @cached_property
    def aside(self) -> Console:
        """Standard error."""
        return _console(stderr=True)

    @contextmanager
    def drawing(self, console: Console) -> Iterator[None]:
        """Keep what is said during a block clear of what the block draws on a console."""
        self._drawn_on = console
        try:
            yield
        finally:
            self._drawn_on = None

    def document(self, document: object) -> None:
        """Write one JSON document as one line, now."""
        self.lines([json.dumps(document)])

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines, now."""
        with _written():
            sys.stdout.writelines(f"{line}\n" for line in lines)
            sys.stdout.flush()

    def value(self, value: bytes) -> None:
        """Write a value as it is; on a terminal, as a line, and what a terminal might take for a command escaped."""
        if not sys.stdout.isatty():
            with _written():
                sys.stdout.buffer.write(value)
                sys.stdout.flush()
            return
        text = value.decode(errors="backslashreplace")
        lines = [line.expandtabs() for line in text.removesuffix("\n").split("\n")]
        if any(not line.isprintable() for line in lines):
            self.note("characters that are not printable are shown as escapes; send the output to a file to get them")
        self.lines(map(shown, lines))

    def draw(self, renderable: RenderableType) -> None:
        """Write what rich draws."""
        with _written():
            self.screen.print(renderable)

    def note(self, text: str) -> None:
        """Say something beside the result."""
        self._aside({"note": text}, text)

    def progress(self, facts: Mapping[str, object], text: str) -> None:
        """Say how far a wait has come."""
        self._aside(facts, text)

    def failure(self, error: Exception) -> None:
        """Say why the command failed."""
        code = exit_code(error)
        text = f"{type(error).__name__}: {error}" if code == BUG else str(error)
        facts: dict[str, object] = {"error": type(error).__name__, "message": text, "exit_code": code}
        if isinstance(error, WaitTimeoutError):
            facts |= {
                "waited": round(error.waited, 3),
                "expected_count": error.expected_count,
                "matched": error.matched,
                "mismatched": {key: as_json(value) for key, value in error.mismatched.items()},
                "missing": error.missing,
                "unreachable_for": error.unreachable_for,
            }
        self._aside(facts, text)

    def _aside(self, facts: Mapping[str, object], text: str) -> None:
        line = json.dumps(facts) if self.json else f"etha-kv: {shown(text)}"
        if self._drawn_on is not None:
            self._drawn_on.print(line, soft_wrap=True)
            return
        try:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        except BrokenPipeError:
            raise
        except OSError:
            pass  # on a full disk there is no place to say so, and the exit code is what counts


class Warnings(logging.Handler):
    """Hands the warnings of the stores on to an `Output`, which knows what else is on the screen.

    Parameters
    ----------
    output : Output
        Where they are written.
    """

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        self._output.note(record.getMessage())
