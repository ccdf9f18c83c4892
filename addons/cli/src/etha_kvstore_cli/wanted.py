"""What ``etha-kv wait`` is asked to wait for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from etha.kvstore import KVStore
from etha.kvstore.patterns import expand
from etha_kvstore_cli.mirror import View
from etha_kvstore_cli.target import UsageError

__all__ = ["Wanted", "names_of", "seconds_of"]

MOST_NAMES = 100_000
"""How many names ``--for`` may stand for."""


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
    def of(cls, key: str, value: str | None, counted: str | None, names: str | None) -> Wanted:
        """Make sense of the options of the command, or raise `UsageError`."""
        count = None if counted is None else _count_of(counted)
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


def seconds_of(text: str) -> float:
    """Read what ``--timeout`` says.

    Parameters
    ----------
    text : str
        A number, or ``inf``.

    Returns
    -------
    float
        The seconds.

    Raises
    ------
    UsageError
        If it is neither, or less than zero.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # NaN is not
        raise UsageError(f"--timeout takes seconds, such as 600, or inf for never, and not {text!r}")
    return seconds


def _count_of(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--count takes a whole number, such as 64, and not {text!r}")
    return int(text)
