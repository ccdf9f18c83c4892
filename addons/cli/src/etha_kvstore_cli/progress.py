"""How far a wait has come, in lines for whoever reads them later."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from etha.kvstore import KVStore
from etha_kvstore_cli.console import Output, text_of
from etha_kvstore_cli.mirror import Mirror, View
from etha_kvstore_cli.wanted import Wanted

__all__ = ["Lines", "Progress", "span"]

SHOWN = 10
"""How many names a line lists before it only counts."""

LINE_PAUSE = 1.0
"""Seconds between two lines at the least; what changes meanwhile is in the next."""


class Progress:
    """What both ways to show progress know."""

    def __init__(self, output: Output, wanted: Wanted, timeout: float) -> None:
        self.output = output
        self.wanted = wanted
        self.timeout = timeout
        self.began = monotonic()
        self._mirror: Mirror | None = None

    def observe(self, store: KVStore) -> None:
        """Begin to follow what is waited for, in a thread that ends when the store is closed."""
        candidates = [self.wanted.key] if self.wanted.count is None else self.wanted.candidates
        self._mirror = Mirror(store, self.wanted.key, candidates=candidates, on_look=self.looked)
        self._mirror.start()

    def looked(self) -> None:
        """Take note that there may be something new."""

    def done(self, found: bytes | list[str]) -> None:
        """Take note that the wait is over, and what it found."""

    def absent(self, view: View, most: int | None = SHOWN) -> list[str]:
        """Say who is not there, and who is but holds another value."""
        said = []
        if missing := self.wanted.missing(view):
            said.append(f"{len(missing)} absent: {_some(missing, most)}")
        if mismatched := self.wanted.mismatched(view):
            pairs = [f"{key}={text_of(value, 40)}" for key, value in mismatched.items()]
            said.append(f"{len(pairs)} with another value: {_some(pairs, most)}")
        if view.silent:
            said.append("the store does not answer")
        return said


class Lines(Progress):
    """A line at the beginning, at changes of the count, and at the end."""

    def __init__(self, output: Output, wanted: Wanted, timeout: float) -> None:
        super().__init__(output, wanted, timeout)
        self._lock = threading.Lock()
        self._said: tuple[int, bool] | None = None
        self._next = 0.0
        self._over = False

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Say what is waited for, and fall silent when the block is left."""
        limit = "without a time limit" if math.isinf(self.timeout) else f"at most {span(self.timeout)}"
        facts = {"waiting_for": str(self.wanted), "expected": self.wanted.total}
        self.output.progress(facts, f"waiting for {self.wanted}, {limit}")
        try:
            yield
        finally:
            with self._lock:
                self._over = True

    def looked(self) -> None:
        """Say how many match, where that has changed."""
        assert self._mirror is not None
        with self._lock:
            if self._over or monotonic() < self._next:
                return
            view = self._mirror.view()
            matched = len(self.wanted.matched(view))
            if self._said == (matched, view.silent) or matched >= self.wanted.total:
                return
            self._said = (matched, view.silent)
            self._next = monotonic() + LINE_PAUSE
            facts = {"matched": matched, "expected": self.wanted.total, "missing": self.wanted.missing(view)}
            self.output.progress(facts, "; ".join([f"{matched} of {self.wanted.total}", *self.absent(view)]))

    def done(self, found: bytes | list[str]) -> None:
        """Say that it is over."""
        matched = 1 if isinstance(found, bytes) else len(found)
        waited = monotonic() - self.began
        with self._lock:
            self._over = True
            facts = {"matched": matched, "expected": self.wanted.total, "missing": []}
            self.output.progress(facts, f"{matched} of {self.wanted.total} after {span(waited)}")


def _some(names: Sequence[str], most: int | None) -> str:
    """List names, and count the rest."""
    rest = len(names) - len(names[:most])
    return ", ".join(names[:most]) + (f" and {rest} more" if rest else "")


def span(seconds: float) -> str:
    """Say a time as a person does."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
