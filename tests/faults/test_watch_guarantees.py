"""The validators of `watch_guarantees`, on logs made by hand: good ones, and ones that break one guarantee each."""

from __future__ import annotations

import pytest

from etha.kvstore import Change
from watch_guarantees import (
    GUARANTEES,
    Guarantee,
    atomic,
    convergent,
    ordered,
    reliable,
    resumable,
    unique,
)
from watch_log import Compacted, Cut, Given, History, WatchLog, Written

PREFIX = "job/trainer/"

WRITES = {
    1: "a=a1",
    2: "b=b2",
    3: "a=a3 b=b3",
    4: "-b",
    5: "c=c5",
    7: "b=b7",
    8: "a=a8 -c",
    9: "d=d9",
    10: "d=d10",
    11: "-d",
    12: "e=e12",
}
"""What was written at each revision; at revision 6, a neighbour wrote."""

CUT = Cut()


def changes(words: str) -> list[Change]:
    """Read ``key=value`` and, for a deletion, ``-key``."""
    split = (word.partition("=") for word in words.split())
    return [Change(key, value.encode()) if equals else Change(key[1:], None) for key, equals, value in split]


def history(end: int = 12) -> History:
    """Make the history up to a revision."""
    writes = [Written(6, "job/trainer2/a", b"neighbour")]
    for revision, words in WRITES.items():
        writes += [Written(revision, PREFIX + change.key, change.value) for change in changes(words)]
    return History(write for write in writes if write.revision <= end)


def log(*steps: int | str | Cut | Compacted | Given, state: str = "", pattern: str = "*") -> WatchLog:
    """Make a log; a number stands for all of a revision in one batch, words for a batch."""
    made = WatchLog(PREFIX, pattern, {change.key: change.value for change in changes(state) if change.value})
    for step in steps:
        words = WRITES[step] if isinstance(step, int) else step
        made.steps.append(Given(changes(words)) if isinstance(words, str) else words)
    return made


def relisted(words: str) -> Given:
    """Make a second listing, which gave this net difference."""
    return Given(changes(words), relisted=True)


GOOD = {
    "every change": log(1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12),
    "a start in the middle": log(7, 8, 9, 10, 11, 12, state="a=a3 c=c5"),
    "a start at the end": log(state="a=a8 b=b7 e=e12"),
    "one key": log(9, 10, 11, pattern="d"),
    "one key that was deleted before": log(pattern="d"),
    "connections lost": log(CUT, 1, 2, CUT, 3, 4, 5, CUT, CUT, 7, 8, 9, 10, CUT, 11, 12, CUT),
    "history lost": log(1, 2, 3, 4, 5, CUT, Compacted(8), relisted("a=a8 b=b7 -c d=d9"), 10, 11, 12),
    "history lost, with one key watched": log(9, CUT, Compacted(12), relisted("-d"), pattern="d"),
    "history lost twice": log(
        1, CUT, Compacted(4), relisted("a=a3"), 5, CUT, Compacted(10), relisted("d=d10 a=a8 -c b=b7"), 11, 12
    ),
    "a compaction that harmed nobody": log(1, 2, 3, Compacted(3), 4, 5, 7, CUT, Compacted(7), 8, 9, 10, 11, 12),
}

BAD: dict[tuple[Guarantee, str], WatchLog] = {
    (ordered, "two writes exchanged"): log(2, 1, 3, 4, 5, 7, 8, 9, 10, 11, 12),
    (ordered, "two values of one key exchanged"): log(1, 2, 3, 4, 5, 7, 8, 10, 9, 11, 12),
    (ordered, "a deletion after a later write"): log(1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 11),
    (ordered, "what a listing had overtaken"): log("a=a1", 7, 8, 9, 10, 11, 12, state="a=a3 c=c5"),
    (unique, "a write given twice"): log(1, 2, 3, 4, 5, 5, 7, 8, 9, 10, 11, 12),
    (unique, "a deletion given twice"): log(1, 2, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12),
    (unique, "a transaction given twice, the second time later"): log(1, 2, 3, 4, 5, 7, 8, 9, 8, 10, 11, 12),
    (unique, "what a listing showed"): log(5, 7, 8, 9, 10, 11, 12, state="a=a3 c=c5"),
    (unique, "a deletion that a listing showed"): log("-b", 5, 7, 8, 9, 10, 11, 12, state="a=a3"),
    (unique, "a net difference with what was known"): log(
        1, 2, 3, 4, CUT, Compacted(8), relisted("a=a3 c=c5"), 7, 8, 9, 10, 11, 12
    ),
    (reliable, "a value that was overwritten"): log(1, 2, 3, 4, 5, 7, 8, 10, 11, 12),
    (reliable, "a key that came and went"): log(1, 2, 3, 4, 5, 7, 8, 12),
    (reliable, "the deletion before a new value"): log(1, 2, 3, 5, 7, 8, 9, 10, 11, 12),
    (reliable, "the first after the listing"): log(10, 11, 12, state="a=a8 b=b7"),
    (reliable, "the first after a second listing"): log(
        1, 2, 3, 4, CUT, Compacted(8), relisted("a=a8 b=b7"), 10, 11, 12
    ),
    (atomic, "a transaction in two batches"): log(1, 2, "a=a3", "b=b3", 4, 5, 7, 8, 9, 10, 11, 12),
    (atomic, "a part of a transaction"): log(1, 2, "a=a3", 4, 5, 7, 8, 9, 10, 11, 12),
    (atomic, "two writes as one"): log(1, 2, 3, "-b c=c5", 7, 8, 9, 10, 11, 12),
    (atomic, "a listing of half a transaction"): log(4, 5, 7, 8, 9, 10, 11, 12, state="a=a3 b=b2"),
    (resumable, "a write missed by resuming"): log(1, 2, 3, 4, 5, 7, 8, CUT, 10, 11, 12),
    (resumable, "several missed, and a second loss"): log(1, 2, 3, CUT, 4, 5, 7, 8, CUT, CUT, 12),
    (resumable, "the last one repeated by resuming"): log(1, 2, 3, 4, CUT, 4, 5, 7, 8, 9, 10, 11, 12),
    (resumable, "several repeated by resuming"): log(1, 2, 3, 4, 5, 7, CUT, 5, 7, 8, 9, 10, 11, 12),
    (resumable, "a listing that stands in for a history"): log(1, 2, 3, 4, 5, CUT, relisted("b=b7"), 8, 9, 10, 11, 12),
    (resumable, "a listing after a compaction that did no harm"): log(
        1, 2, 3, 4, 5, Compacted(5), CUT, relisted("b=b7"), 8, 9, 10, 11, 12
    ),
    (resumable, "a listing where none was due, with nothing missed"): log(
        1, 2, 3, 4, CUT, relisted(""), 5, 7, 8, 9, 10, 11, 12
    ),
    (convergent, "a second listing without a deletion"): log(
        1, 2, 3, 4, 5, 7, 8, 9, 10, CUT, Compacted(12), relisted("e=e12")
    ),
    (convergent, "a second listing without a key"): log(1, 2, 3, 4, 5, CUT, Compacted(12), relisted("a=a8 -c e=e12")),
    (convergent, "a second listing with an old value"): log(1, 2, CUT, Compacted(12), relisted("a=a3 b=b7 e=e12")),
    (convergent, "a second listing mended by what came later"): log(
        1, 2, 3, CUT, Compacted(5), relisted("c=c5"), 7, 8, 9, 10, 11, 12
    ),
    (reliable, "a value that nobody wrote"): log(1, "a=zero", 2, 3, 4, 5, 7, 8, 9, 10, 11, 12),
    (reliable, "a deletion that nobody did"): log(1, 2, 3, "-never", 4, 5, 7, 8, 9, 10, 11, 12),
    (reliable, "a neighbour's value"): log(1, 2, 3, 4, 5, "a=neighbour", 7, 8, 9, 10, 11, 12),
    (reliable, "a key that was not watched"): log("b=b2", "-b", 9, 10, 11, pattern="d"),
}


def broken(of: WatchLog, written: History) -> dict[str, list[str]]:
    """Name the guarantees that a log breaks, and how."""
    found = {guarantee.__name__: guarantee(of, written) for guarantee in GUARANTEES}
    return {name: complaints for name, complaints in found.items() if complaints}


@pytest.mark.parametrize("good", [pytest.param(good, id=name) for name, good in GOOD.items()])
def test_a_good_log_breaks_no_guarantee(good: WatchLog) -> None:
    assert broken(good, history()) == {}


@pytest.mark.parametrize(
    ("guarantee", "bad"),
    [pytest.param(key[0].__name__, bad, id=f"{key[0].__name__}: {key[1]}") for key, bad in BAD.items()],
)
def test_a_bad_log_breaks_its_guarantee_and_no_other(guarantee: str, bad: WatchLog) -> None:
    assert list(broken(bad, history())) == [guarantee]


def test_a_tail_that_never_came_is_missed_although_nothing_is_left_of_it() -> None:
    assert list(broken(log(1, 2, 3, 4, 5, 7, 8), history(end=11))) == ["reliable"]


def test_a_watch_that_falls_silent_with_its_connection_did_not_resume() -> None:
    assert list(broken(log(1, 2, 3, 4, 5, 7, 8, CUT), history(end=11))) == ["resumable"]


def test_a_complaint_names_the_write_and_its_revision() -> None:
    assert reliable(log(1, 2, 3, 4, 5, 7, 8, 10, 11, 12), history()) == [
        "b'd9' for 'job/trainer/d' at revision 9 was never given"
    ]
