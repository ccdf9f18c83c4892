"""What a wait has found so far, and how it says so: in a log line while it goes on, in the error when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etha.kvstore.errors import WaitTimeoutError
from etha.kvstore.follow import Batch, Outage, Selector

__all__ = ["Tally"]

SHOWN = 10
"""How many names a message lists before it only counts."""


class Tally:
    """The matching keys that a wait knows of, and which of them hold the value waited for.

    Parameters
    ----------
    selector : Selector
        What is waited for.
    relative : callable
        Turns a full key into the key that the caller knows.
    wanted : str
        How the caller would say what is waited for.
    """

    def __init__(self, selector: Selector, relative: Callable[[bytes], str], wanted: str) -> None:
        self._selector = selector
        self._relative = relative
        self._wanted = wanted
        self._expected = selector.expected or 0
        self._held: dict[bytes, bytes] = {}
        self._matched: set[bytes] = set()
        self._looked = False

    def apply(self, batch: Batch) -> bool:
        """Take in one batch, and tell whether the condition holds after it."""
        held, matched, value = self._held, self._matched, self._selector.value
        if batch.restart:
            held.clear()
            matched.clear()
            self._looked = True
        for key, now in batch.changes:
            if now is None:
                held.pop(key, None)
                matched.discard(key)
                continue
            held[key] = now
            if value is None or now == value:
                matched.add(key)
            else:
                matched.discard(key)
        return len(matched) >= self._expected

    @property
    def enough(self) -> int:
        """How many changes are worth looking at.

        A change adds one match at the most, so no fewer than are missing can help. Half of them, so that when the last
        one comes most of the others have been counted.
        """
        return max(1, (self._expected - len(self._matched) + 1) // 2)

    def matched_keys(self) -> list[str]:
        """Give the keys that hold the value, relative and sorted."""
        return sorted(self._relative(key) for key in self._matched)

    def value_of(self, key: bytes) -> bytes:
        """Give the value that a key is known to hold."""
        return self._held[key]

    def progress(self, started: float, now: float, outage: Outage | None) -> str:
        """Say what was waited for, how long, what was found and who is missing.

        Parameters
        ----------
        started, now : float
            When the wait began, and the present, on the monotonic clock, in seconds.
        outage : Outage, optional
            Since when the server has not answered.
        """
        parts = [f"{self._wanted}, waited {now - started:.1f} s: {len(self._matched)} of {self._expected} matched"]
        if mismatched := self._mismatched():
            parts.append(f"{len(mismatched)} hold another value: " + _some([f"{k}={_brief(v)}" for k, v in mismatched]))
        if missing := self._missing():
            parts.append(f"{len(missing)} absent: " + _some(missing))
        if outage is not None:
            parts.append(f"the store has not answered for {now - outage.since:.1f} s ({outage.cause})")
        elif not self._looked:
            parts.append("the store was never read")
        return "; ".join(parts)

    def timed_out(self, started: float, now: float, outage: Outage | None) -> WaitTimeoutError:
        """Make the error that ends the wait; it is given what `progress` is."""
        error = WaitTimeoutError(
            "timed out waiting for " + self.progress(started, now, outage),
            waited=now - started,
            expected_count=self._expected,
            matched=self.matched_keys(),
            mismatched=dict(self._mismatched()),
            missing=self._missing(),
            unreachable_for=None if outage is None else now - outage.since,
        )
        error.__cause__ = None if outage is None else outage.cause
        return error

    def _mismatched(self) -> list[tuple[str, bytes]]:
        return sorted((self._relative(key), held) for key, held in self._held.items() if key not in self._matched)

    def _missing(self) -> list[str]:
        if not self._looked:
            return []  # nobody can be called absent by a wait that never saw the store
        pattern = self._selector.pattern
        hoped: Sequence[bytes] = [pattern.literal_prefix] if pattern.is_literal else self._selector.candidates or ()
        return [self._relative(key) for key in hoped if key not in self._held]


def _some(names: Sequence[str]) -> str:
    """List the first few, then count the rest."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _brief(value: bytes) -> str:
    """Show a value, shortened where it is long."""
    return repr(value) if len(value) <= 40 else f"{value[:40]!r}... ({len(value)} bytes)"
