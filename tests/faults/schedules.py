"""Random fault schedules: traffic on real servers, faults that strike as a seed says, the verdict on the history.

A schedule that shows nothing is no success: it is invalid if a fault struck nothing, or too few calls were answered.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from checker import Operation, check
from laboratory import Site
from strikes import ON_THE_WAY, STRIKES, InvalidScheduleError, Stage
from traffic import KINDS, WRITES, Failed, Traffic, Wrap, unchanged

__all__ = ["InvalidScheduleError", "Record", "Struck", "ViolationError", "play"]

CLIENTS = 3

FAULTS = 3
"""How many steps a schedule has; in each a fault strikes, or two."""

OPTIONS: dict[str, dict[str, float]] = {
    "memory": {},
    "tcpstore": {"timeout": 1.0, "connect_timeout": 15.0},
    "etcd": {"timeout": 1.0, "connect_timeout": 15.0},
}
"""By backend. The operation timeout is short, so that calls give up, and are in doubt, while a fault lasts."""

LONGEST_FAULT = 1.4
"""Seconds: beyond the operation timeout."""

BOTH_AT_ONCE = 0.3
"""How often two faults strike at once, one of them on the way to a server."""

BETWEEN_FAULTS = 15
"""How many calls of each client must be answered before the first fault and after each."""

START_SECONDS = 60.0
"""How long the first calls may take: the first process of all loads torch."""

AT_LEAST = 300
"""How many calls must be answered in all, lest the history says nothing."""

UNDISTURBED = 1_000
"""How many, where there are no faults that it takes time to live through."""

OF_EACH_KIND = 15


class ViolationError(AssertionError):
    """The store has broken its promise."""


@dataclass(frozen=True)
class Struck:
    """One fault, and between which times it took hold."""

    fault: str
    began: float
    held: float


@dataclass
class Record:
    """One schedule that was played.

    Attributes
    ----------
    site : str
        On what.
    seed : int
        From which seed.
    struck : list of Struck
        The faults.
    history : list of Operation
        What answered, and the writes whose outcome is unknown.
    forbidden : list of str
        What was raised and never may be.
    failed : list of Failed
        The calls that did nothing: a fault may have struck them alone.
    """

    site: str
    seed: int
    struck: list[Struck] = field(default_factory=list)
    history: list[Operation] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    def __str__(self) -> str:
        lost = sum(each.returned == inf for each in self.history)
        faults = ", ".join(each.fault for each in self.struck) or "no fault"
        return f"{self.site}, seed {self.seed}: {len(self.history):,} operations, {lost} of them in doubt; {faults}"

    def judge(self) -> None:
        """Raise what is wrong: `ViolationError`, or `InvalidScheduleError`."""
        if wrong := "\n".join(self.forbidden) or check(self.history):
            denials = "".join(f"\n  {each}" for each in self.failed if each.call.kind in WRITES) or " none"
            raise ViolationError(f"{self}\n{wrong}\nwrites that were said to have done nothing:{denials}")
        answered = Counter(each.kind for each in self.history if each.returned < inf)
        if sum(answered.values()) < AT_LEAST or any(answered[kind] < OF_EACH_KIND for kind in KINDS):
            raise InvalidScheduleError(f"{self}\ntoo few calls were answered: {dict(answered)}")
        if STRIKES[self.site] and not self.struck:
            raise InvalidScheduleError(f"{self}\nno fault struck")
        calls = [*self.history, *(each.call for each in self.failed)]
        for struck in self.struck:
            if not any(each.called <= struck.held and each.returned >= struck.began for each in calls):
                raise InvalidScheduleError(f"{self}\nno call was under way when this struck: {struck}")

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        with path.open("w") as file:
            head = {"site": self.site, "seed": self.seed, "forbidden": self.forbidden}
            for line in (head, *map(asdict, self.struck), *map(asdict, self.failed), *map(asdict, self.history)):
                file.write(json.dumps(line) + "\n")

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read what `write` has kept."""
        head, *lines = map(json.loads, path.read_text().splitlines())
        record = cls(**head)
        for line in lines:
            if "fault" in line:
                record.struck.append(Struck(**line))
            elif "error" in line:
                record.failed.append(Failed(Operation(**line["call"]), line["error"]))
            else:
                record.history.append(Operation(**line))
        return record


def play(record: Record, site: Site, *, wrap: Wrap = unchanged) -> None:
    """Play a schedule; nothing is said yet of whether what happened may happen.

    Parameters
    ----------
    record : Record
        Which schedule; what happens is added to it, also where this raises.
    site : Site
        Where.
    wrap : callable
        As `Traffic`.
    """
    strikes = STRIKES[record.site]
    rng = random.Random(f"{record.site} {record.seed}")
    steps = [_draw(rng, record.site) for _ in range(FAULTS if strikes else 0)]
    settings = [_settings(site, number) for number in range(CLIENTS)]
    traffic = Traffic(settings, f"{record.site} {record.seed}", processes=site.backend != "memory", wrap=wrap)
    stage = Stage(site, traffic, rng)
    try:
        traffic.await_answers(BETWEEN_FAULTS, timeout=START_SECONDS)
        for step in steps:
            with ExitStack() as lasting:
                for fault in step:
                    began = monotonic()
                    lasting.enter_context(strikes[fault](stage))
                    record.struck.append(Struck(fault, began, monotonic()))
                sleep(rng.uniform(0.05, LONGEST_FAULT))
            traffic.await_answers(BETWEEN_FAULTS)
        wanted = AT_LEAST if steps else UNDISTURBED
        traffic.await_answers(max(0, wanted - traffic.answered) // CLIENTS + 1)
        traffic.end()
    finally:
        traffic.kill()
        record.history += traffic.history()
        record.forbidden += traffic.forbidden()
        record.failed += traffic.failed()


def _draw(rng: random.Random, name: str) -> list[str]:
    """Choose what strikes: one fault, or one on the way and another."""
    fault = rng.choice(sorted(STRIKES[name]))
    if name == "etcd-cluster" and fault not in ON_THE_WAY and rng.random() < BOTH_AT_ONCE:
        return [rng.choice(sorted(ON_THE_WAY)), fault]
    return [fault]


def _settings(site: Site, number: int) -> dict[str, Any]:
    """Tell what a client opens; each asks another member first."""
    settings = {"namespace": site.namespace, "component": "trainer", **site.settings(), **OPTIONS[site.backend]}
    if "endpoints" in settings:
        first = number % len(settings["endpoints"])
        settings["endpoints"] = settings["endpoints"][first:] + settings["endpoints"][:first]
    return settings
