"""Writes raced against the start of a wait: how a race is run, and what is said of thousands of them.

A wait looks, and then it watches. A write that comes between the two is the one that careless clients miss. Each race
starts a wait in one thread and makes the write in another, at a moment that is drawn by lot; in some the gap is held
open until the write has gone through. The ground that the race is run on tells afterwards where the write fell.
"""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from random import Random
from time import monotonic

from etha.kvstore import KVStore
from etha.kvstore.errors import WaitTimeoutError

__all__ = ["COMPONENT", "LIMIT", "METHODS", "NAMESPACE", "Ground", "Race", "Report", "Where", "run_races"]

NAMESPACE, COMPONENT = "racing", "trainer"

LIMIT = 8.0
"""Seconds: how long a wait may last. No store checks again, by itself, what it was told within this time."""

HEAD_START = 2.0
"""Seconds of the limit, or half of it where that is less, that may have passed when the write is through.

A wait that misses its write ends at its limit, where it looks for the last time. One that ends sooner was told, however
slow the machine: a disk that stands still for four seconds holds up etcd as well.
"""

HELD_SHARE = 8
"""Of so many rounds of all ways to wait, one has the gap held open."""

SHORTEST_REACH, LONGEST_REACH = 2e-5, 0.05
"""Seconds: the bounds of the time, after a wait was started, within which its write is made."""

STEP = 1.2
"""By how much that time changes after a write that was too early, or too late."""


class Where(Enum):
    """Where a write fell."""

    BEFORE = "before the look"
    GAP = "in the gap"
    AFTER = "after the watch was on"


class Race:
    """One write against one wait.

    Parameters
    ----------
    number : int
        Which; its keys are named after it.
    method : str
        How it is waited.
    held : bool
        Whether the gap is held open until the write is through.

    Attributes
    ----------
    at : dict of str to float
        What the ground has noted of it: times on the monotonic clock, or revisions.
    looks : list of float
        When each look began, where the wait polls.
    through : threading.Event
        Set when the write is through, or stands where it can't come through while the gap is open.
    acknowledged : float
        When the write had returned, on the monotonic clock.
    complaint : str or None
        What was wrong, if anything was.
    """

    def __init__(self, number: int, method: str, *, held: bool) -> None:
        self.number = number
        self.method = method
        self.held = held
        self.value = f"value {number}"
        self.at: dict[str, float] = {}
        self.looks: list[float] = []
        self.through = threading.Event()
        self.complaint: str | None = None
        self.where: Where | None = None
        self.lateness = 0.0
        self._at_the_seam = threading.Event()
        self.acknowledged = self._returned = 0.0

    def __repr__(self) -> str:
        where = self.where and self.where.value
        return f"race {self.number}: {self.method}, {'held' if self.held else 'free'}, {where}: {self.complaint}"

    @property
    def pattern(self) -> str:
        """All keys of the race."""
        return f"race-{self.number}/rank:*"

    @property
    def key(self) -> str:
        """The key that is written."""
        return f"race-{self.number}/rank:1"

    def is_written_by(self, full: bytes, value: bytes | None) -> bool:
        """Tell whether a change is the write of this race."""
        return value == self.value.encode() and full == f"{NAMESPACE}/{COMPONENT}/{self.key}".encode()

    def stand_at_the_seam(self) -> None:
        """Stand between the look and the watch: hold the gap open, once, until the write is through."""
        if self.held and not self._at_the_seam.is_set():
            self._at_the_seam.set()
            self.through.wait(LIMIT)

    def prepare(self, store: KVStore) -> None:
        """Write what is there before the race begins."""
        if self.method == "wait_for_keys":
            store.set(f"race-{self.number}/rank:0", self.value)
        elif self.method == "wait_for_value":
            store.set(self.key, "another value")

    def write(self, store: KVStore, delay: float) -> None:
        """Make the write: at the seam where that is held, else after a delay in seconds."""
        if not self.held:
            time.sleep(delay)  # the moment is drawn by lot; there is nothing to wait for
        elif not self._at_the_seam.wait(LIMIT):
            self.complaint = "the wait never came to the seam"
        store.set(self.key, self.value)
        self.acknowledged = monotonic()
        self.through.set()

    def wait(self, store: KVStore, limit: float) -> None:
        """Wait for the write."""
        try:
            WAYS[self.method](self, store, limit)
        except WaitTimeoutError as error:
            self.complaint = str(error)
        self._returned = monotonic()

    def judge(self, limit: float) -> None:
        """Complain where only the deadline can have ended the wait."""
        self.lateness = self._returned - self.acknowledged
        if self.lateness > limit - min(HEAD_START, limit / 2):
            self.complaint = self.complaint or f"the wait ended {self.lateness:.1f} s after the write"

    def expect(self, got: object, expected: object) -> None:
        """Complain of a wrong answer."""
        if got != expected:
            self.complaint = f"the wait gave {got!r}, not {expected!r}"


def _key(race: Race, store: KVStore, limit: float) -> None:
    race.expect(store.wait_for_key(race.key, limit), race.value.encode())


def _value(race: Race, store: KVStore, limit: float) -> None:
    race.expect(store.wait_for_value(race.key, race.value, limit), race.value.encode())


def _keys(race: Race, store: KVStore, limit: float) -> None:
    ranks = range(
        2 + race.number // len(WAYS) % 2
    )  # as many as are expected, or one more: they are looked for otherwise
    candidates = [race.pattern.replace("*", str(rank)) for rank in ranks]
    found = store.wait_for_keys(race.pattern, 2, race.value, limit, candidates)
    race.expect(found, candidates[:2])


def _watch(race: Race, store: KVStore, limit: float) -> None:
    with store.watch(race.pattern) as changes:
        key, value = next(iter(changes.state.items())) if changes.state else changes.next(limit)
    race.expect((key, value), (race.key, race.value.encode()))


WAYS: dict[str, Callable[[Race, KVStore, float], None]] = {
    "wait_for_key": _key,
    "wait_for_value": _value,
    "wait_for_keys": _keys,
    "watch": _watch,
}

METHODS = tuple(WAYS)


class Ground(ABC):
    """A backend to race on, with a seam between the look and the watch at which it can be stood.

    Attributes
    ----------
    methods : sequence of str
        The ways to wait.
    lanes : int
        How many races are run at the same time.
    switch_seconds : float
        How soon Python may switch threads; its own five milliseconds hide many orders in which they can run.
    waiting : sequence of KVStore
        The stores whose waits are raced; each lane has one of them.
    writing : KVStore
        The store that writes.
    """

    methods: Sequence[str] = METHODS
    lanes = 8
    switch_seconds = 1e-4
    waiting: Sequence[KVStore]
    writing: KVStore

    def __init__(self) -> None:
        self._races: dict[int, Race] = {}

    def enter(self, race: Race) -> None:
        """Take note of a race, before it is prepared."""
        self._races[race.number] = race

    def find(self, full: bytes) -> Race:
        """Find the race that a full key, or what is literal of a pattern, belongs to."""
        return self._races[int(full.split(b"/")[2].removeprefix(b"race-"))]

    def leave(self, race: Race) -> None:  # noqa: B027 (most grounds leave everything where it is)
        """Clear away what a race that was judged has left behind, where it would slow the next ones."""

    def close(self) -> None:
        """Close the stores."""
        for store in (*self.waiting, self.writing):
            store.close(cleanup=False)

    @abstractmethod
    def judge(self, race: Race) -> Where:
        """Tell where the write of a race that is over fell; complain of what should not have been."""


class Report:
    """The races that were run.

    Parameters
    ----------
    races : sequence of Race
        All of them.
    """

    def __init__(self, races: Sequence[Race]) -> None:
        self.races = races
        self.missed = [race for race in races if race.complaint]
        self._counts = Counter((race.held, race.where) for race in races)

    def count(self, where: Where, *, held: bool) -> int:
        """Count the writes that fell somewhere, in the races whose gap was held open or in the others."""
        return self._counts[held, where]

    @property
    def histogram(self) -> str:
        """Where the writes fell."""
        return "; ".join(
            f"{'the gap held open' if held else 'free'}: "
            + ", ".join(f"{self.count(where, held=held):,} {where.value}" for where in Where)
            for held in (False, True)
        )

    def __repr__(self) -> str:
        latest = max(race.lateness for race in self.races)
        lines = [f"{len(self.races):,} races, {len(self.missed)} missed; {self.histogram}; latest {latest:.3f} s"]
        return "\n".join(lines + [repr(race) for race in self.missed[:10]])


def run_races(ground: Ground, count: int, seed: int, limit: float = LIMIT) -> Report:
    """Run so many races, several at a time, and report.

    Parameters
    ----------
    ground : Ground
        Where.
    count : int
        How many.
    seed : int
        What the lots depend on.
    limit : float
        How long each wait may last, in seconds.
    """
    with _switching_every(ground.switch_seconds), ThreadPoolExecutor(ground.lanes) as lanes:
        runs = [lanes.submit(_run_lane, ground, lane, count, seed, limit) for lane in range(ground.lanes)]
        return Report([race for run in runs for race in run.result()])


def _run_lane(ground: Ground, lane: int, count: int, seed: int, limit: float) -> list[Race]:
    """Run the races of one lane, one after another.

    How late a write may be is steered by where the writes before it fell, so that it stays balanced between too early
    and too late on a machine of whatever speed.
    """
    random = Random(f"{seed}/{lane}")
    store = ground.waiting[lane % len(ground.waiting)]
    races = []
    reach = 1e-3
    with ThreadPoolExecutor(1) as waiter:
        for turn, number in enumerate(range(lane, count, ground.lanes)):
            held = turn // len(ground.methods) % HELD_SHARE == 0
            race = Race(number, ground.methods[(lane + turn) % len(ground.methods)], held=held)
            ground.enter(race)
            race.prepare(ground.writing)
            waiting = waiter.submit(race.wait, store, limit)
            race.write(ground.writing, random.uniform(0.0, reach))
            waiting.result()
            race.judge(limit)
            race.where = ground.judge(race)
            ground.leave(race)
            races.append(race)
            if not race.held:
                reach *= {Where.BEFORE: STEP, Where.GAP: 1.0, Where.AFTER: 1 / STEP}[race.where]
                reach = min(max(reach, SHORTEST_REACH), LONGEST_REACH)
    return races


@contextmanager
def _switching_every(seconds: float) -> Iterator[None]:
    """Let threads take turns so often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
