"""``etha-kv wait``: what is waited for, and how its progress is shown."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etha.kvstore import KVStore
from etha.kvstore.patterns import expand
from etha.kvstore.registry import find_backend
from etha_kvstore_cli.apart import restoring
from etha_kvstore_cli.console import Output, shown, text_of
from etha_kvstore_cli.mirror import Mirror, View
from etha_kvstore_cli.target import Target, UsageError

__all__ = ["Wanted", "names_of", "wait"]

SHOWN = 10
"""How many names a line lists before it only counts."""

LINE_PAUSE = 1.0
"""Seconds between two lines at the least; what changes meanwhile is in the next."""

MOST_NAMES = 100_000
"""How many names ``--for`` may stand for."""

LEAST_PATIENCE = 10.0
"""Seconds that the opening may take, however short the wait itself may be."""

LONGEST_PATIENCE = 366 * 86_400.0


@dataclass(frozen=True)
class Wanted:
    """What a wait is for.

    Parameters
    ----------
    key : str
        The key, or the pattern where there is a count.
    value : str, optional
        The value that is waited for; any, where it is not given.
    count : int, optional
        How many keys are to match.
    candidates : list of str, optional
        The keys that may.
    """

    key: str
    value: str | None = None
    count: int | None = None
    candidates: list[str] | None = None

    @classmethod
    def of(cls, key: str, value: str | None, count: int | None, names: str | None) -> Wanted:
        """Make sense of the options of the command, or raise `UsageError`."""
        if names is None and count is None:
            if "*" in key:
                raise UsageError(
                    f"how many keys are to match {key!r}? Give --count 64, or --for 0..63 for who they are"
                )
            return cls(key, value)
        candidates = None
        if names is not None:
            if key.count("*") != 1:
                raise UsageError(f"--for says what stands for the one * in a pattern, and {key!r} has {key.count('*')}")
            candidates = list(dict.fromkeys(expand(key, names_of(names))))
        if count is None:
            count = len(candidates or ())
        elif candidates is not None and len(candidates) < count:
            raise UsageError(f"--count {count} of the {len(candidates)} keys that --for names could never be")
        return cls(key, "1" if value is None else value, count, candidates)

    def wait(self, store: KVStore, timeout: float) -> bytes | list[str]:
        """Wait, and give the value, or the keys where there is a count."""
        if self.count is not None:
            assert self.value is not None
            return store.wait_for_keys(self.key, self.count, self.value, timeout, self.candidates)
        if self.value is None:
            return store.wait_for_key(self.key, timeout)
        return store.wait_for_value(self.key, self.value, timeout)

    @property
    def total(self) -> int:
        """How many keys are to match."""
        return 1 if self.count is None else self.count

    def __str__(self) -> str:
        if self.count is not None:
            return f"{self.count} keys matching {self.key!r} to be {self.value!r}"
        return f"key {self.key!r} to " + ("exist" if self.value is None else f"be {self.value!r}")

    def matched(self, view: View) -> list[str]:
        """Name the keys that are as they are wanted."""
        value = None if self.value is None else self.value.encode()
        return sorted(key for key, held in view.state.items() if value is None or held == value)

    def missing(self, view: View) -> list[str]:
        """Name the keys that are known to be waited for and not there."""
        hoped = [self.key] if self.count is None else self.candidates or []
        return [key for key in hoped if key not in view.state]

    def mismatched(self, view: View) -> dict[str, bytes]:
        """Give the keys that hold another value."""
        matched = set(self.matched(view))
        return {key: value for key, value in sorted(view.state.items()) if key not in matched}


def names_of(text: str) -> list[str]:
    """Read what ``--for`` says: names and ranges, such as ``0..63`` or ``0..3,8,left``.

    Parameters
    ----------
    text : str
        The names; the end of a range belongs to it, and ``00..63`` keeps its zeros.

    Returns
    -------
    list of str
        Each name.

    Raises
    ------
    UsageError
        If a range ends before it begins, or it is far more than anybody waits for.
    """
    names: list[str] = []
    for part in text.split(","):
        bounds = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        if bounds is None:
            if not part:
                raise UsageError(
                    f"--for {text!r} has an empty name; it takes names and ranges, such as 0..63 or 0..3,8"
                )
            names.append(part)
            continue
        first, last = int(bounds[1]), int(bounds[2])
        if not first <= last < first + MOST_NAMES:
            raise UsageError(f"--for: the range {part} ends before it begins, or has more than {MOST_NAMES:,} names")
        names += [str(number).zfill(len(bounds[1])) for number in range(first, last + 1)]
    return names


def wait(target: Target, output: Output, wanted: Wanted, timeout: float, *, quiet: bool) -> bytes | list[str]:
    """Wait as the store does, and show how far it has come.

    Parameters
    ----------
    target : Target
        The store.
    output : Output
        Where progress is shown.
    wanted : Wanted
        What is waited for.
    timeout : float
        Seconds until the wait gives up; a server that is not up yet is waited for within them.
    quiet : bool
        Show nothing.

    Returns
    -------
    bytes or list of str
        The value, or the keys where there is a count.
    """
    _check_candidates(target, wanted)
    deadline = monotonic() + timeout
    patience = min(max(timeout, LEAST_PATIENCE), LONGEST_PATIENCE)
    if quiet:
        with target.opened(patience) as store:
            return wanted.wait(store, max(0.0, deadline - monotonic()))
    kind = _Bar if output.aside.is_terminal and not output.json else _Lines
    progress = kind(output, wanted, timeout)
    with progress.shown(), target.opened(patience) as store:
        progress.observe(store)
        found = wanted.wait(store, max(0.0, deadline - monotonic()))
        progress.done(found)
        return found


def _check_candidates(target: Target, wanted: Wanted) -> None:
    """Refuse a pattern without names, in the words of the command, where the backend can't look by pattern."""
    if wanted.count is None or wanted.candidates is not None:
        return
    backend = find_backend(target.settings().backend)
    if "waits_by_pattern" not in backend.capabilities:
        raise UsageError(
            f"backend {backend.name!r} can't look for keys by pattern: say who they are with --for, for instance "
            f"--for 0..{max(wanted.count - 1, 0)}"
        )


class _Progress:
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


class _Lines(_Progress):
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
        limit = "without a time limit" if math.isinf(self.timeout) else f"at most {_span(self.timeout)}"
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
            self.output.progress(facts, f"{matched} of {self.wanted.total} after {_span(waited)}")


class _Bar(_Progress):
    """A bar on the terminal."""

    def __init__(self, output: Output, wanted: Wanted, timeout: float) -> None:
        super().__init__(output, wanted, timeout)
        self._matched: int | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar until the block is left, and leave its last state on the screen."""
        live = Live(
            get_renderable=self._frame,
            console=self.output.aside,
            refresh_per_second=5,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with restoring(live.stop), live:
            yield

    def done(self, found: bytes | list[str]) -> None:
        """Keep what the last frame is to show."""
        self._matched = 1 if isinstance(found, bytes) else len(found)

    def _frame(self) -> Group:
        view = View() if self._mirror is None else self._mirror.view()
        total = self.wanted.total
        matched = len(self.wanted.matched(view)) if self._matched is None else self._matched
        waited = monotonic() - self.began
        left = "" if math.isinf(self.timeout) else f"{_span(max(0.0, self.timeout - waited))} left"
        if self._matched is not None:
            left = f"after {_span(waited)}"
        line = Table.grid(padding=(0, 2), expand=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        line.add_column(ratio=1, min_width=10)
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True)
        value = "" if self.wanted.value is None else f" = {self.wanted.value}"
        line.add_row(
            Text(shown(self.wanted.key + value)),
            ProgressBar(total=max(total, 1), completed=matched if total else 1),
            Text(f"{matched} of {total}"),
            Text(left),
        )
        return Group(line, *(Text(shown(said), no_wrap=True, overflow="ellipsis") for said in self._below(view)))

    def _below(self, view: View) -> list[str]:
        if self._matched is not None:
            return []
        return ["connecting"] if self._mirror is None else self.absent(view, most=None)


def _some(names: Sequence[str], most: int | None) -> str:
    """List names, and count the rest."""
    rest = len(names) - len(names[:most])
    return ", ".join(names[:most]) + (f" and {rest} more" if rest else "")


def _span(seconds: float) -> str:
    """Say a time as a person does."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
