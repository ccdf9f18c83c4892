"""What was written and what a watcher was given, as plain data, so that a test can also make it by hand."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from etha.kvstore import Change

__all__ = ["Compacted", "Cut", "Given", "History", "WatchLog", "Written"]


class Written(NamedTuple):
    """One key that a write changed; the keys of one transaction have its revision in common."""

    revision: int
    key: str
    """The full key."""
    value: bytes | None
    """The new value, which no other write has; `None` for a deletion."""


class Cut(NamedTuple):
    """A watcher's connection was lost here."""


class Compacted(NamedTuple):
    """The server forgot its history before this revision."""

    revision: int


@dataclass
class Given:
    """The changes that a watcher was given at once.

    Attributes
    ----------
    changes : list of Change
        Those that the watch yielded, with relative keys.
    relisted : bool
        Whether the library said that it has read the selection again, so that they are a net difference.
    """

    changes: list[Change] = field(default_factory=list)
    relisted: bool = False


@dataclass
class WatchLog:
    """All that one watcher saw.

    Attributes
    ----------
    prefix : str
        The prefix of the watched component's full keys.
    pattern : str
        What was watched, relative to it.
    state : dict
        What was there at the start, by relative key.
    steps : list
        What came afterwards, in order.
    """

    prefix: str
    pattern: str
    state: dict[str, bytes] = field(default_factory=dict)
    steps: list[Given | Cut | Compacted] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts = (re.escape(part) for part in (self.prefix + self.pattern).split("*"))
        self._expression = re.compile(".*".join(parts), re.DOTALL)

    def selects(self, key: str) -> bool:
        """Tell whether a full key is one that this watcher is to be told of."""
        return self._expression.fullmatch(key) is not None

    @property
    def changes(self) -> list[Change]:
        """Every change that was given."""
        return [change for step in self.steps if isinstance(step, Given) for change in step.changes]

    @property
    def relists(self) -> int:
        """How often the selection was read again."""
        return sum(isinstance(step, Given) and step.relisted for step in self.steps)


class History:
    """What was written, in the order of the revisions, to a store that held nothing before.

    Parameters
    ----------
    writes : iterable of Written
        All of it.
    """

    def __init__(self, writes: Iterable[Written]) -> None:
        self.writes = sorted(writes)
        self._of_key: dict[str, list[Written]] = defaultdict(list)
        for write in self.writes:
            self._of_key[write.key].append(write)
        self._puts = {(write.key, write.value): write for write in self.writes if write.value is not None}

    def put(self, key: str, value: bytes) -> Written | None:
        """Find the write that gave a key its value."""
        return self._puts.get((key, value))

    def latest(self, key: str, revision: float) -> Written | None:
        """Find the last write of a key up to a revision."""
        writes = self._of_key[key]
        place = bisect_right(writes, revision, key=lambda write: write.revision)
        return writes[place - 1] if place else None

    def deletion(self, key: str, after: float) -> Written | None:
        """Find the first deletion of a key after a revision."""
        return next((w for w in self._of_key[key] if w.revision > after and w.value is None), None)

    def moments_of(self, log: WatchLog, view: dict[str, bytes]) -> list[int]:
        """Find the revisions at which a watcher's keys were exactly these; 0 stands for the time before all writes."""
        held: dict[str, bytes | None] = {}
        wanted = {log.prefix + key: value for key, value in view.items()}
        wrong = len(wanted)
        moments = [] if wrong else [0]
        for place, (revision, key, value) in enumerate(self.writes):
            if log.selects(key):
                wrong += (value != wanted.get(key)) - (held.get(key) != wanted.get(key))
                held[key] = value
            whole = place + 1 == len(self.writes) or self.writes[place + 1].revision > revision
            if whole and not wrong:
                moments.append(revision)
        return moments

    def selected(self, log: WatchLog) -> list[Written]:
        """Give the writes that a watcher is to be told of."""
        return [write for write in self.writes if log.selects(write.key)]
