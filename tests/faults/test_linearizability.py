"""What concurrent clients see of a key is what one register would have shown them, under random faults on real servers.

Each run draws other seeds. A failure names its own, and ``KVSTORE_SEED`` brings it back.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import soak
from broken_clients import BROKEN, Broken, CachedReads, WritesTwice
from checker import Operation
from schedules import InvalidScheduleError, Record, Struck, ViolationError, play
from sites import Sites
from traffic import Failed

SEED = int(os.environ.get("KVSTORE_SEED") or random.SystemRandom().randrange(1_000_000))

SCHEDULES = {"memory": 3, "tcpstore": 5, "etcd": 6, "etcd-cluster": 7}


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    sites = Sites()
    yield sites
    sites.close()


def on(site: str, *what: object) -> object:
    """Keep what needs the same servers on the same worker."""
    return pytest.param(site, *what, marks=pytest.mark.xdist_group(f"linearizability-{site}"))


@pytest.mark.parametrize(
    ("name", "number"), [on(site, number) for site, count in SCHEDULES.items() for number in range(count)]
)
def test_every_history_under_random_faults_is_that_of_one_register(
    sites: Sites, name: str, number: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record = Record(name, SEED + number)
    with sites.lend(name) as site:
        try:
            play(record, site)
            record.judge()
        except Exception as error:  # noqa: BLE001 (it is told, with what brings it back)
            record.write(tmp_path / "history")
            pytest.fail(
                f"{error}\non {site!r}; the same again: KVSTORE_SEED={SEED}, or "
                f"python tests/faults/soak.py --only {name} --seed {record.seed}\n"
                f"the history again: python tests/faults/soak.py --replay {tmp_path / 'history'}"
            )
    record_property("schedules", 1)
    record_property("checked operations", len(record.history))


@pytest.mark.parametrize(
    ("name", "broken"), [on("memory", each) for each in BROKEN] + [on("etcd", CachedReads), on("etcd", WritesTwice)]
)
def test_a_broken_client_is_caught(sites: Sites, name: str, broken: type[Broken], tmp_path: Path) -> None:
    record = Record(name, SEED)
    with sites.lend(name) as site:
        play(record, site, wrap=broken)
    with pytest.raises(ViolationError, match="not linearizable") as caught:
        record.judge()
    record.write(tmp_path / "history")
    with pytest.raises(ViolationError) as again:
        Record.read(tmp_path / "history").judge()
    assert str(again.value) == str(caught.value)


ROUND = (("get", None), ("exists", False), ("set", "a"), ("delete", True))


def sequence(rounds: int) -> list[Operation]:
    """Make a history in which one call follows another and all is well."""
    calls = [call for _ in range(rounds) for call in ROUND]
    return [Operation(kind, value, time, time + 0.5) for time, (kind, value) in enumerate(calls)]


def test_a_schedule_counts_if_enough_was_answered_while_each_fault_struck() -> None:
    Record("etcd", 1, [Struck("reset", 20.0, 20.1)], sequence(100)).judge()


@pytest.mark.parametrize("kind", ["get", "set"])
def test_a_fault_that_struck_nothing_but_a_call_that_failed_of_it_struck_something(kind: str) -> None:
    failed = [Failed(Operation(kind, None, 20.65, 21.65), "OperationTimeoutError")]
    Record("etcd", 1, [Struck("reset", 20.6, 20.7)], sequence(100), failed=failed).judge()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (Record("memory", 1), "too few calls were answered"),
        (Record("memory", 1, [], sequence(10)), "too few calls were answered"),
        (
            Record("memory", 1, [], [each for each in sequence(400) if each.kind == "get"]),
            "too few calls were answered",
        ),
        (Record("etcd", 1, [], sequence(100)), "no fault struck"),
        (Record("etcd", 1, [Struck("reset", 20.6, 20.7)], sequence(100)), "no call was under way"),
        (Record("etcd", 1, [Struck("reset", 1000.0, 1001.0)], sequence(100)), "no call was under way"),
    ],
)
def test_a_schedule_that_shows_nothing_is_no_success(record: Record, said: str) -> None:
    with pytest.raises(InvalidScheduleError, match=said):
        record.judge()


def test_what_may_never_be_raised_is_a_violation() -> None:
    with pytest.raises(ViolationError, match="raised KeyError"):
        Record("memory", 1, [], sequence(100), ["client-1: get(text) raised KeyError('text')"]).judge()


def test_a_soak_tells_what_it_has_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(["--seconds", "0", "--only", "memory", "--seed", str(SEED)]) == 0
    schedule, summary = capsys.readouterr().out.splitlines()
    assert schedule.startswith(f"memory, seed {SEED}: ")
    assert re.fullmatch(r"1 schedules, [\d,]+ checked operations, 0 violations", summary)


def test_a_soak_ends_at_the_first_violation_and_keeps_a_history_that_can_be_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert soak.soak(600.0, SEED, "memory", CachedReads) == 1
    said = capsys.readouterr().out
    assert "not linearizable" in said
    (history,) = tmp_path.iterdir()
    assert f"--replay {history}" in said
    assert soak.main(["--replay", str(history)]) == 1
    assert "not linearizable" in capsys.readouterr().out
