"""The six guarantees of a watch, each a pure function over what was recorded.

Five of them are those that etcd gives (https://etcd.io/docs/v3.5/learning/api_guarantees/), in the words of this
project's contract; the sixth is for the time after history was lost. Each function takes what one watcher saw and what
was written, and returns the violations, readable. They share the work so that one fault is one guarantee's: a gap or a
repetition across a lost connection is `resumable`'s, within one connection `reliable`'s or `unique`'s; part of a
transaction is `atomic`'s.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from etha.kvstore import Change
from watch_log import Compacted, Cut, Given, History, WatchLog, Written

__all__ = ["GUARANTEES", "Guarantee", "atomic", "convergent", "ordered", "reliable", "resumable", "unique"]


@dataclass
class Event:
    """A change that was given, and the write that it tells of, as far as one can be found."""

    change: Change
    batch: int
    write: Written | None
    given_before: bool = False
    """Whether the watcher had been told of this write already."""
    across_cut: bool = False
    """Whether that was before the last loss of the connection."""


@dataclass
class Listing:
    """The state that a watcher had after a listing, its first or a later one."""

    view: dict[str, bytes]
    moments: list[int]
    """The revisions at which that was the store's state."""
    relisted: bool
    history_reached: int
    """The newest revision that the watcher was shown before."""
    forgotten: int
    """The revision up to which the server had forgotten its history."""
    earliest: int
    """From when on its watcher can have been up to date, at the least."""
    idle: list[Change] = field(default_factory=list)
    """What it gave although the watcher had it."""


Item = Event | Listing | Cut


def trace(log: WatchLog, history: History) -> list[Item]:
    """Find the write behind each change."""
    view = dict(log.state)
    items: list[Item] = []
    told: dict[tuple[int, str], int] = {}
    keys = {write.key for write in history.selected(log)}
    cuts = forgotten = reached = 0

    def list_(relisted: bool, idle: list[Change]) -> None:
        nonlocal reached
        shown = [history.put(log.prefix + key, value) for key, value in view.items()]
        moments = [moment for moment in history.moments_of(log, view) if moment >= reached]
        earliest = moments[0] if moments else max((write.revision for write in shown if write), default=0)
        listing = Listing(dict(view), moments, relisted, reached, forgotten, max(reached, earliest), idle)
        reached = listing.earliest
        latest = (history.latest(key, reached) for key in keys)
        told.update({(write.revision, write.key): cuts for write in latest if write})
        items.append(listing)

    list_(relisted=False, idle=[])
    for batch, step in enumerate(log.steps):
        if isinstance(step, Compacted):
            forgotten = max(forgotten, step.revision)
        elif isinstance(step, Cut):
            cuts += 1
            items.append(step)
        elif step.relisted:
            idle = [change for change in step.changes if view.get(change.key) == change.value]
            for change in step.changes:
                _apply(view, change)
            list_(relisted=True, idle=idle)
        else:
            for change in step.changes:
                event = Event(change, batch, _identify(log, history, view, change, reached))
                if event.write is not None:
                    identity = (event.write.revision, event.write.key)
                    event.given_before = identity in told
                    event.across_cut = told.get(identity, cuts) < cuts
                    told[identity] = cuts
                    reached = max(reached, event.write.revision)
                _apply(view, change)
                items.append(event)
    return items


def ordered(log: WatchLog, history: History) -> list[str]:
    """Changes come by revision: never one from before a change that was given."""
    complaints = []
    highest = 0
    for item in trace(log, history):
        if isinstance(item, Listing):
            highest = max(highest, item.earliest)
        elif isinstance(item, Event) and item.write is not None and not item.given_before:
            if item.write.revision < highest:
                complaints.append(f"{_said(item.write)} was given after what happened at revision {highest}")
            highest = max(highest, item.write.revision)
    return complaints


def unique(log: WatchLog, history: History) -> list[str]:
    """No change is given twice."""
    complaints = []
    for item in trace(log, history):
        if isinstance(item, Event) and item.write is not None and item.given_before and not item.across_cut:
            complaints.append(f"{_said(item.write)} was given although the watcher had been told of it")
        elif isinstance(item, Listing):
            complaints += [f"a second listing gave {change}, which the watcher had" for change in item.idle]
    return complaints


def reliable(log: WatchLog, history: History) -> list[str]:
    """All that was written to the watched keys is given, up to the end, and nothing else."""
    complaints = [f"{_said(write)} was never given" for write, resuming in _missing(log, history) if not resuming]
    listed = [Change(key, value) for key, value in log.state.items()]
    listed += [change for step in log.steps if isinstance(step, Given) and step.relisted for change in step.changes]
    put = [(change, change.value) for change in listed if change.value is not None]
    strange = [change for change, value in put if history.put(log.prefix + change.key, value) is None]
    strange += [item.change for item in trace(log, history) if isinstance(item, Event) and item.write is None]
    complaints += [f"nobody wrote {change.key!r}={_brief(change.value)}" for change in strange]
    unwanted = [change for change in listed + log.changes if not log.selects(log.prefix + change.key)]
    return complaints + [f"{change.key!r} was given to a watcher of {log.pattern!r}" for change in unwanted]


def atomic(log: WatchLog, history: History) -> list[str]:
    """A transaction is seen at once and whole, and nothing with it; no listing shows half of one."""
    complaints: list[str] = []
    wanted: dict[int, set[str]] = defaultdict(set)
    for write in history.selected(log):
        wanted[write.revision].add(write.key)
    batches_of: dict[int, set[int]] = defaultdict(set)
    revisions_of: dict[int, set[int]] = defaultdict(set)
    given: dict[int, set[str]] = defaultdict(set)
    for item in trace(log, history):
        if isinstance(item, Event) and item.write is not None and not item.given_before:
            batches_of[item.write.revision].add(item.batch)
            revisions_of[item.batch].add(item.write.revision)
            given[item.write.revision].add(item.write.key)
        elif isinstance(item, Listing):
            complaints += _torn(log, history, item.view, wanted)
    for revision, keys in given.items():
        if len(batches_of[revision]) > 1:
            complaints.append(f"the transaction at revision {revision} was given in pieces")
        if keys < wanted[revision]:
            complaints.append(
                f"of the transaction at revision {revision}, {sorted(wanted[revision] - keys)} is missing"
            )
    several = [sorted(revisions) for revisions in revisions_of.values() if len(revisions) > 1]
    return complaints + [f"what happened at revisions {revisions} was given as one" for revisions in several]


def resumable(log: WatchLog, history: History) -> list[str]:
    """After a lost connection the changes go on where they were, and no second listing stands in for a history."""
    complaints = [
        f"{_said(write)} was lost with a connection" for write, resuming in _missing(log, history) if resuming
    ]
    for item in trace(log, history):
        if isinstance(item, Event) and item.write is not None and item.across_cut:
            complaints.append(f"{_said(item.write)} was given again after a lost connection")
        elif isinstance(item, Listing) and item.relisted and item.forgotten <= item.history_reached:
            complaints.append(
                f"the selection was read again after revision {item.history_reached}, although the server had "
                f"forgotten only what was before {item.forgotten}"
            )
    return complaints


def convergent(log: WatchLog, history: History) -> list[str]:
    """Whoever applies what is given has, after each second listing and at the end, the store's state."""
    view = dict(log.state)
    complaints = []
    for step in log.steps:
        if not isinstance(step, Given):
            continue
        for change in step.changes:
            _apply(view, change)
        if step.relisted and not history.moments_of(log, view):
            complaints.append(f"a second listing left the watcher with {_some(view)}, which was never the state")
    final = {key: history.latest(key, float("inf")) for key in {write.key for write in history.selected(log)}}
    state = {key[len(log.prefix) :]: write.value for key, write in final.items() if write and write.value is not None}
    return complaints + [
        f"in the end {key!r} is {_brief(state.get(key))}, for the watcher {_brief(view.get(key))}"
        for key in sorted(view.keys() | state.keys())
        if view.get(key) != state.get(key)
    ]


Guarantee = Callable[[WatchLog, History], list[str]]

GUARANTEES: tuple[Guarantee, ...] = (ordered, unique, reliable, atomic, resumable, convergent)


def _apply(view: dict[str, bytes], change: Change) -> None:
    if change.value is None:
        view.pop(change.key, None)
    else:
        view[change.key] = change.value


def _identify(log: WatchLog, history: History, view: dict[str, bytes], change: Change, reached: int) -> Written | None:
    """Find the write that a change tells of. Values are unique; a deletion is the next one of what the watcher had."""
    full = log.prefix + change.key
    if change.value is not None:
        return history.put(full, change.value)
    if change.key in view:
        put = history.put(full, view[change.key])
        return history.deletion(full, put.revision) if put else None
    latest = history.latest(full, reached)
    if latest is not None and latest.value is None:  # the watcher knows already that there is no such key
        return latest
    return history.deletion(full, reached)


def _missing(log: WatchLog, history: History) -> Iterator[tuple[Written, bool]]:
    """Find the writes of which nothing was given though it should, and whether they were missed by resuming."""
    items = trace(log, history)
    selected = history.selected(log)
    revisions = [write.revision for write in selected]
    given = {item.write.revision for item in items if isinstance(item, Event) and item.write is not None}

    def between(after: int, before: float) -> list[Written]:
        span = selected[bisect_right(revisions, after) : bisect_left(revisions, before)]
        return [write for write in span if write.revision not in given]

    reached = 0
    resuming = False
    ends = [item.write.revision if isinstance(item, Event) and item.write is not None else 0 for item in items]
    for place, item in enumerate(items):
        if isinstance(item, Cut):
            resuming = True
        elif isinstance(item, Listing):
            following = next((end for end in ends[place + 1 :] if end), float("inf"))
            fitting = [moment for moment in item.moments if moment < following]
            reached = max(reached, fitting[-1] if fitting else item.earliest)
            resuming = False
        elif ends[place] > reached:
            yield from ((write, resuming) for write in between(reached, ends[place]))
            reached = ends[place]
            resuming = False
    yield from ((write, resuming) for write in between(reached, float("inf")))


def _torn(log: WatchLog, history: History, view: dict[str, bytes], wanted: dict[int, set[str]]) -> Iterator[str]:
    """Find transactions of which a state shows one key and not another."""
    shown = {log.prefix + key: history.put(log.prefix + key, value) for key, value in view.items()}
    for revision in {write.revision for write in shown.values() if write is not None}:
        for key in wanted[revision]:
            write = shown.get(key)
            here = history.latest(key, revision)
            if here is None:
                continue
            older = write is not None and write.revision < revision
            gone = key not in shown and here.value is not None and history.deletion(key, revision) is None
            if older or gone:
                yield f"a listing shows a part of the transaction at revision {revision}, and {key!r} from before it"


def _said(write: Written) -> str:
    deed = "the deletion of" if write.value is None else f"{_brief(write.value)} for"
    return f"{deed} {write.key!r} at revision {write.revision}"


def _brief(value: bytes | None) -> str:
    return "absent" if value is None else repr(value) if len(value) <= 40 else f"{value[:40]!r}... ({len(value)} bytes)"


def _some(view: dict[str, bytes]) -> str:
    return ", ".join(f"{key!r}={_brief(value)}" for key, value in sorted(view.items())[:10])
