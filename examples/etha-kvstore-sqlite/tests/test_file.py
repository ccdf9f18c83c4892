"""What is peculiar to a file: processes that share it, and what can be wrong with it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from etha.kvstore import open_store, open_store_from_config
from etha.kvstore.errors import (
    ConfigError,
    KVStoreError,
    OperationTimeoutError,
    StoreFullError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from etha_kvstore_sqlite import SqliteStore
from etha_kvstore_testkit import ServerFault

PROCESSES = 8

MEET = """
import sys
from etha_kvstore_sqlite import SqliteStore
path, rank, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = SqliteStore("n", "c", path=path)
store.set(f"rank:{rank}/ready", "1")
print(*store.wait_for_keys("rank:*/ready", count, timeout=60))
store.close(cleanup=False)
"""

COUNT_FOR_EVER = """
import itertools, sys
from etha_kvstore_sqlite import SqliteStore
store = SqliteStore("n", "c", path=sys.argv[1])
for number in itertools.count(1):
    store.set("counter", str(number))
    print(number, flush=True)
"""

FORK = """
import os, signal, sys, threading, warnings
from etha_kvstore_sqlite import SqliteStore
warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is a part of what is tested

def opened():
    return SqliteStore("n", "c", path=sys.argv[1])

def forked(work):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

OUTLIVED_BY_ITS_CHILD = """
parent = opened()
parent.set("before", "1")

def work():
    with opened() as mine:
        mine.set("child is here", "1")
        mine.wait_for_key("parent has closed", 30)
        mine.set("after", "1")
        mine.wait_for_key("seen", 30)

child = forked(work)
parent.wait_for_key("child is here", 30)
parent.close(cleanup=False)
with opened() as again:
    again.set("parent has closed", "1")
    assert again.wait_for_key("after", 30) == again.get("before") == b"1"
    again.set("seen", "1")
    assert ended(child) == 0
"""

BESIDE_THREADS = """
parent, enough = opened(), threading.Event()

def write(number):
    while not enough.is_set():
        parent.set(f"thread:{number}", "1")

threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()

def work(number):
    with opened() as mine:
        mine.set(f"child:{number}", "1")

for number in range(20):
    assert ended(forked(lambda: work(number))) == 0
enough.set()
for thread in threads:
    thread.join(30)
assert parent.get("thread:0") == b"1"
parent.close()
"""

WRITE_WHAT_THE_SYSTEM_REFUSES = """
import resource, sys
from etha.kvstore.errors import StoreUnavailableError
from etha_kvstore_sqlite import SqliteStore
with SqliteStore("n", "c", path=sys.argv[1]) as store:
    store.set("key", "old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        store.set_bytes("key", bytes(1_000_000))
    except StoreUnavailableError as error:
        print(store.get("key"), error)
"""


def started(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that sees what this one sees."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def opened(path: Path, timeout: float = 10.0, connect_timeout: float = 0.0) -> SqliteStore:
    return SqliteStore("n", "c", path=path, timeout=timeout, connect_timeout=connect_timeout)


# --- many processes ---


def test_processes_that_all_begin_with_no_file_meet_in_the_one_that_is_made(path: Path) -> None:
    ranks = [started(MEET, path, rank, PROCESSES) for rank in range(PROCESSES)]
    everyone = " ".join(f"rank:{rank}/ready" for rank in range(PROCESSES))
    assert [rank.communicate(timeout=90)[0].strip() for rank in ranks] == [everyone] * PROCESSES


def test_what_was_acknowledged_survives_the_death_of_who_wrote_it(path: Path) -> None:
    with started(COUNT_FOR_EVER, path) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdout.readline()
        writer.kill()
        acknowledged = writer.stdout.read().split()
    with opened(path) as store:
        assert int(store.get("counter") or 0) >= int(acknowledged[-1] if acknowledged else 50)


@pytest.mark.parametrize("scene", [OUTLIVED_BY_ITS_CHILD, BESIDE_THREADS], ids=["outlived", "beside threads"])
def test_a_forked_child_that_opens_its_own_store_and_the_parent_lose_nothing(path: Path, scene: str) -> None:
    with started(FORK + scene, path) as process:
        said, _ = process.communicate(timeout=90)
        assert (process.returncode, said) == (0, "")


# --- locked ---


def test_a_writer_that_does_not_end_holds_up_writes_and_no_reads(path: Path) -> None:
    with opened(path, timeout=0.3) as store, closing(sqlite3.connect(path, isolation_level=None)) as writer:
        store.set("key", "old")
        writer.execute("BEGIN IMMEDIATE")
        assert store.get("key") == b"old"
        assert store.wait_for_keys("*", 1, "old", timeout=5) == store.list_keys() == ["key"]
        for write in (lambda: store.set("key", "new"), lambda: store.delete("key")):
            with pytest.raises(OperationTimeoutError, match=f"{path} stayed locked; find out who holds it: fuser"):
                write()
        writer.execute("ROLLBACK")
        assert store.get("key") == b"old"
        store.set("key", "new")
        assert store.get("key") == b"new"


def test_a_wait_that_ends_while_the_file_is_locked_says_so(path: Path, file_fault: ServerFault) -> None:
    with opened(path, timeout=0.2) as store:
        file_fault.freeze()
        with pytest.raises(WaitTimeoutError, match=r"the store has not answered for .* stayed locked"):
            store.wait_for_keys("rank:*/ready", 2, timeout=0.5)
        file_fault.thaw()
        store.set("key", "1")


# --- gone, or another ---


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_store_never_goes_on_with_a_file_that_nobody_else_sees(path: Path, replaced: bool) -> None:
    with opened(path) as store:
        store.set("key", "1")
        path.unlink()
        if replaced:
            with opened(path) as other:
                other.set("key", "2")
                refused(store)
                store.close()
                assert other.get("key") == b"2"
            return
        refused(store)
        assert not path.exists(), "nobody makes the file of a store anew behind its back"


def refused(store: SqliteStore) -> None:
    """See that a store whose file has gone says so in every call, and that a wait does at once."""
    calls: list[Callable[[], object]] = [
        lambda: store.get("key"),
        lambda: store.set("key", "1"),
        lambda: store.delete("key"),
        lambda: store.wait_for_key("another", timeout=60),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError, match="was removed or replaced, and its keys with it"):
            call()


def test_a_folder_that_does_not_come_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=r"no-such-folder/f: unable to open .* see that its folder exists"):
        opened(tmp_path / "no-such-folder" / "f")


# --- not a file to write in ---


def test_a_file_that_holds_something_else_is_refused_at_once_and_left_as_it_is(path: Path) -> None:
    content = b"minutes of the meeting, which are not a database\n" * 100
    path.write_bytes(content)
    with pytest.raises(StoreUnavailableError, match=f"{path}: file is not a database; .* choose another path"):
        opened(path, connect_timeout=60.0)
    assert path.read_bytes() == content


def test_a_damaged_file_says_so(path: Path) -> None:
    with opened(path) as store:
        store.set_bytes("key", bytes(100_000))
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StoreUnavailableError, match=f"{path}: database disk image is malformed; it is damaged"):
        opened(path).get("key")


def test_a_file_that_may_not_be_written_can_be_read_and_says_so_when_it_is_written(path: Path) -> None:
    with opened(path) as store:
        store.set("key", "1")
        store.close(cleanup=False)
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")  # made by a newer SQLite, for this one to read only; holds for root as well
    with opened(path) as store:
        assert store.get("key") == b"1"
        with pytest.raises(StoreUnavailableError, match="readonly database; see that this user may write the file"):
            store.set("key", "2")


def test_a_full_file_is_said_to_be_full(path: Path) -> None:
    with opened(path) as store:
        store.set("key", "old")
        assert store._connection is not None
        store._connection.execute("PRAGMA max_page_count = 4")
        with pytest.raises(StoreFullError, match=f"{path}: database or disk is full; make room"):
            store.set_bytes("key", bytes(100_000))
        assert store.get("key") == b"old"


def test_what_the_system_refuses_to_write_is_not_written_and_says_so(path: Path) -> None:
    with started(WRITE_WHAT_THE_SYSTEM_REFUSES, path) as process:
        said, _ = process.communicate(timeout=60)
    assert (
        said
        == f"b'old' {path}: disk I/O error; see that it is on a local disk, and what the system's log says of that\n"
    )


# --- how it is opened ---


@pytest.mark.parametrize("options", [{}, {"path": ""}])
def test_a_store_without_a_path_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="backend 'sqlite' needs the option 'path'"):
        open_store("sqlite", namespace="n", component="c", **options)


def test_it_is_opened_by_name_and_by_a_url_and_stays_where_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with (
        open_store("sqlite", namespace="n", component="c", path=path.name) as by_name,
        open_store_from_config(f"sqlite:///n/c?path={path}&timeout=5") as by_url,
    ):
        monkeypatch.chdir("/")
        by_name.set("key", "1")
        assert by_url.get("key") == b"1"
        assert f"at {path}>" in repr(by_url)


def test_every_error_is_the_contracts_also_from_a_table_that_is_not_ours(path: Path) -> None:
    with closing(sqlite3.connect(path)) as stranger:
        stranger.execute("CREATE TABLE etha_kvstore (something TEXT)")
    with pytest.raises(KVStoreError, match="no such column"), opened(path) as store:
        store.get("key")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "a\0b"}, "a path holds no NUL"),
        ({"path": "unused", "connect_timeout": -1.0}, "connect_timeout is a number of seconds, not -1.0"),
        ({"path": "unused", "connect_timeout": float("nan")}, "connect_timeout is a number of seconds, not nan"),
    ],
    ids=["NUL", "negative", "nan"],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SqliteStore("n", "c", **options)
    assert not Path("unused").exists()
