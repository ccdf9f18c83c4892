"""How contestants are timed: in turns, round by round, so that what drifts on the machine meets all of them alike."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter
from typing import Any

__all__ = [
    "Block",
    "Contestant",
    "Line",
    "Result",
    "Series",
    "compare",
    "duration",
    "interleave",
    "percentile",
    "repeat",
    "repeat_async",
    "sampled",
    "spread",
]

Block = Callable[[int], Sequence[float]]
"""What takes so many samples, and gives the seconds that a call took in each."""


@dataclass(frozen=True)
class Contestant:
    """One of those that do the same work.

    Attributes
    ----------
    name : str
        What the tables and plots call it.
    block : callable
        Takes so many samples.
    """

    name: str
    block: Block


@dataclass
class Series:
    """What one interleaved measurement saw.

    Attributes
    ----------
    name : str
        The work.
    samples : dict
        For each contestant its rounds, and for each round the seconds that a call took in every sample.
    """

    name: str
    samples: dict[str, list[list[float]]] = field(default_factory=dict)

    def rounds(self, name: str) -> list[float]:
        """Give a contestant's median in every round."""
        return [median(each) for each in self.samples[name]]

    def all_samples(self, name: str) -> list[float]:
        """Give a contestant's samples, sorted."""
        return sorted(sample for each in self.samples[name] for sample in each)

    def median(self, name: str) -> float:
        """Give the median of all of a contestant's samples."""
        return median(self.all_samples(name))

    def p99(self, name: str) -> float:
        """Give the 99th percentile of all of a contestant's samples."""
        return percentile(self.all_samples(name), 0.99)

    def fastest(self, names: Sequence[str]) -> str:
        """Say which of some contestants has the lowest median."""
        return min(names, key=self.median)


@dataclass(frozen=True)
class Line:
    """One measured line of the table.

    Attributes
    ----------
    target : str
        The target's name, see `targets.py`; empty where the line is there for the context only.
    what : str
        What was measured.
    value : float
        What is held against the limit.
    quartiles : tuple of float, optional
        The first and the third quartile of the value over the rounds.
    limit : float, optional
        Where it differs from the target's own.
    stated : bool
        Whether the number is only stated, and held against no limit.
    unit : str, optional
        Where it differs from the target's own.
    note : str
        What else is to be known, such as the two medians.
    """

    target: str
    what: str
    value: float
    quartiles: tuple[float, float] | None = None
    limit: float | None = None
    stated: bool = False
    unit: str | None = None
    note: str = ""


@dataclass
class Result:
    """What a group of measurements gives."""

    lines: list[Line] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """What is plotted point by point: for each name pairs of numbers."""
    facts: dict[str, str] = field(default_factory=dict)
    """What was used, such as a server and its version."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest value of a sorted sequence that so large a share does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def interleave(name: str, contestants: Sequence[Contestant], rounds: int, samples: int, warm_up: int = 0) -> Series:
    """Time contestants in turns, A B C A B C, beginning with another one in every round.

    Many short rounds are better than few long ones: what disturbs the machine for a while then meets all alike.

    Parameters
    ----------
    name : str
        The work.
    contestants : sequence of Contestant
        Those who do it.
    rounds : int
        How many rounds, after one that warms up and is not counted.
    samples : int
        How many samples each takes in a round.
    warm_up : int
        How many each takes in the first one; as many as in the others where it is zero.

    Returns
    -------
    Series
        The samples. The garbage collector runs between rounds, over what was made since the start, and not within one.
    """
    series = Series(name, {each.name: [] for each in contestants})
    for each in contestants:
        each.block(warm_up or samples)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for number in range(rounds):
            gc.collect()
            turn = number % len(contestants)
            for each in (*contestants[turn:], *contestants[:turn]):
                series.samples[each.name].append(list(each.block(samples)))
    finally:
        gc.enable()
        gc.unfreeze()
    return series


def repeat(call: Callable[[], object], batch: int = 1) -> Block:
    """Make a block of a call; a sample is the mean of a batch, where one call is too short to be timed alone."""

    def block(samples: int) -> list[float]:
        taken = []
        for _ in range(samples):
            start = perf_counter()
            for _ in range(batch):
                call()
            taken.append((perf_counter() - start) / batch)
        return taken

    def block_of_one(samples: int) -> list[float]:
        taken = []
        for _ in range(samples):
            start = perf_counter()
            call()
            taken.append(perf_counter() - start)
        return taken

    return block if batch > 1 else block_of_one


def repeat_async(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[Any]], batch: int = 1) -> Block:
    """Make a block of a coroutine function, timed inside the loop, so that the loop's own start costs it nothing."""

    async def run(samples: int) -> list[float]:
        taken = []
        for _ in range(samples):
            start = perf_counter()
            for _ in range(batch):
                await call()
            taken.append((perf_counter() - start) / batch)
        return taken

    return lambda samples: loop.run_until_complete(run(samples))


def sampled(sample: Callable[[], float]) -> Block:
    """Make a block of a function that takes one sample itself."""
    return lambda samples: [sample() for _ in range(samples)]


def spread(values: Sequence[float]) -> tuple[float, float] | None:
    """Give the first and the third quartile, where there are values enough to have any."""
    if len(values) < 4:
        return None
    first, _, third = quantiles(values, n=4)
    return first, third


def compare(target: str, what: str, series: Series, ours: str, theirs: str, *, rate: bool = False) -> Line:
    """Divide ours by theirs, round by round, and take the median, so that the machine's drift cancels.

    Parameters
    ----------
    target : str
        The target's name.
    what : str
        What was measured.
    series : Series
        Where both took part.
    ours, theirs : str
        Their names.
    rate : bool
        Whether operations a second are compared, rather than the time of one.

    Returns
    -------
    Line
        The ratio, with its quartiles over the rounds and both medians.
    """
    pairs = zip(series.rounds(ours), series.rounds(theirs), strict=True)
    ratios = [their / our if rate else our / their for our, their in pairs]
    form = per_second if rate else duration
    note = f"{form(series.median(ours))} beside {form(series.median(theirs))} ({theirs})"
    return Line(target, what, median(ratios), spread(ratios), note=note)


def duration(seconds: float) -> str:
    """Write a time to three digits, in the unit that suits it."""
    scale, unit = (1.0, "s") if seconds >= 1.0 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    return f"{seconds * scale:.{max(0, 2 - math.floor(math.log10(max(seconds * scale, 1e-3))))}f} {unit}"


def per_second(seconds: float) -> str:
    """Write how many calls a second there are, of the time of one."""
    return f"{1 / seconds:,.0f} a second"
