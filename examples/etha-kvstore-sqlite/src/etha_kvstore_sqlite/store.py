"""`SqliteStore`: the contract on a SQLite file, through which the processes of one machine meet."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from etha.kvstore.errors import (
    ConfigError,
    KVStoreError,
    OperationTimeoutError,
    StoreClosedError,
    StoreFullError,
    StoreUnavailableError,
)
from etha.kvstore.skeleton import SkeletalStore
from etha_kvstore_sqlite.plugin import SPEC

__all__ = ["MAX_VALUE_BYTES", "SqliteStore"]

log = logging.getLogger("etha.kvstore")

MAX_VALUE_BYTES = 8 * 1024 * 1024
"""The largest value. SQLite would hold more, but a wait reads the value whenever it looks."""

TABLE = """
CREATE TABLE IF NOT EXISTS etha_kvstore (key BLOB PRIMARY KEY, value BLOB NOT NULL, writer BLOB NOT NULL)
"""
WRITE = """
INSERT INTO etha_kvstore VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, writer = excluded.writer
"""
IN_RANGE = "FROM etha_kvstore WHERE key >= ? AND key < ?"

SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two tries while somebody else has the file locked."""

_turn = threading.RLock()
"""Held during a statement. The whole process has one, so that whoever holds it knows that SQLite is at rest; and the
same thread may take it again, since a signal's handler may close the store in the middle of a statement."""

_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


class SqliteStore(SkeletalStore):
    """A store whose keys are in a SQLite file, in WAL mode.

    All stores of the same file meet, whatever their processes. What was written outlives the processes, unless the
    store that wrote it cleans up. The file must be on a local disk: WAL needs memory that the processes share.

    Parameters
    ----------
    namespace, component : str
        As `KVStore`.
    path : str or path
        The file. Where there is none it is made; its folder must exist.
    timeout : float
        The operation timeout, in seconds: how long a call tries while others have the file locked.
    connect_timeout : float
        How long the opening waits for the folder, or for the lock, in seconds.

    Raises
    ------
    StoreUnavailableError
        If the file can't be used, and the reason is not a lock.
    OperationTimeoutError
        If it stayed locked.

    Examples
    --------
    >>> with SqliteStore("job-42", "trainer", path="/tmp/job-42.sqlite") as store:
    ...     store.set("ready", "1")
    ...     store.wait_for_keys("*", 1, timeout=60)
    ['ready']
    """

    spec = SPEC

    def __init__(
        self,
        namespace: str,
        component: str,
        *,
        path: str | os.PathLike[str],
        timeout: float = 10.0,
        connect_timeout: float = 30.0,
    ) -> None:
        super().__init__(namespace, component, timeout=timeout)
        if not connect_timeout >= 0:
            raise ConfigError(f"connect_timeout is a number of seconds, not {connect_timeout!r}")
        if "\0" in os.fspath(path):
            raise ConfigError(f"a path holds no NUL: {path!r}")
        self._path = Path(path).absolute()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._writer = secrets.token_bytes(16)
        self._wrote = False
        self._ended = False
        with _turn:
            _stores.add(self)
        try:
            self._await_file(monotonic() + connect_timeout)
        except BaseException:
            self._release(cleanup=False, deadline=monotonic())
            raise

    # --- what a backend writes ---

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        rows = self._run("SELECT value FROM etha_kvstore WHERE key = ?", (key,), deadline)[0]
        return rows[0][0] if rows else None

    def _exists(self, key: bytes, deadline: float) -> bool:
        return bool(self._run("SELECT 1 FROM etha_kvstore WHERE key = ?", (key,), deadline)[0])

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        if len(value) > MAX_VALUE_BYTES:
            raise self._refuse_size(key, len(value), MAX_VALUE_BYTES)
        self._wrote = True
        self._run(WRITE, (key, value, self._writer), deadline)

    def _remove(self, key: bytes, deadline: float) -> bool:
        return self._run("DELETE FROM etha_kvstore WHERE key = ?", (key,), deadline)[1] == 1

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        return self._run(f"SELECT key, value {IN_RANGE}", _range(prefix), deadline)[0]

    def _list(self, prefix: bytes, deadline: float) -> Iterable[bytes]:
        return [key for (key,) in self._run(f"SELECT key {IN_RANGE}", _range(prefix), deadline)[0]]

    def _release(self, cleanup: bool, deadline: float) -> None:
        self._ended = True
        if cleanup and self._wrote:
            delete = "DELETE FROM etha_kvstore WHERE writer = ?"
            try:
                self._run(delete, (self._writer,), deadline, last=True)
            except KVStoreError as error:
                log.warning("the keys of %r stay in the file: %s", self, error)
        with _turn:
            self._disconnect()

    def _where(self) -> str:
        return str(self._path)

    # --- how it is kept ---

    def _await_file(self, deadline: float) -> None:
        """Make the first round trip; a folder that is not there yet may be made, or mounted, by somebody else."""
        while True:
            has_folder = self._path.parent.is_dir()
            try:
                self._run("SELECT 1 FROM etha_kvstore LIMIT 1", (), deadline)
            except StoreUnavailableError:
                if has_folder or monotonic() >= deadline:
                    raise
            else:
                return
            sleep(LONGEST_PAUSE)

    def _run(
        self, statement: str, parameters: tuple[bytes, ...], deadline: float, *, last: bool = False
    ) -> tuple[list[Any], int]:
        """Run one statement as a transaction of its own, and give its rows, and how many it changed.

        SQLite refuses at once where the file is locked, and nothing has happened then. The waiting is done here, since
        neither `close` nor Ctrl-C would end a sleep of SQLite's. The last statement is that of `close`.
        """
        pause = SHORTEST_PAUSE
        while True:
            with _turn:
                if self._ended and not last:
                    raise StoreClosedError("the store was closed during the call")
                try:
                    cursor = self._connected().execute(statement, parameters)
                    return cursor.fetchall(), cursor.rowcount
                except sqlite3.Error as error:
                    if (
                        self._ended and not last
                    ):  # a signal's handler closed the store, and the connection, in the middle
                        continue
                    if not _is_locked(error):
                        raise self._failure(error) from error
                    cause = error
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise OperationTimeoutError(
                    f"{self._path} stayed locked; find out who holds it: fuser {self._path}"
                ) from cause
            sleep(min(pause, remaining))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connected(self) -> sqlite3.Connection:
        """Give the connection, having seen that others who open the path get the same file."""
        if self._file is not None and self._file != self._file_now():
            raise StoreUnavailableError(
                f"{self._path} was removed or replaced, and its keys with it; open another store, and remove the file "
                "only when nobody uses it"
            )
        connection = self._connection
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                # A commit is in the log, where it outlives the process, when it returns; the disk may have it later.
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(TABLE)
            except BaseException:
                connection.close()
                raise
            self._connection, self._file = connection, self._file_now()
        return connection

    def _disconnect(self) -> None:
        """Close the connection; whoever calls this has the turn."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _file_now(self) -> tuple[int, int] | None:
        """Say which file is at the path now, as the system knows it."""
        with suppress(OSError):
            found = self._path.stat()
            return found.st_dev, found.st_ino
        return None

    def _failure(self, error: sqlite3.Error) -> KVStoreError:
        """Turn an error of SQLite's, that is not a lock, into one of the contract, with what to do."""
        text = str(error)
        if "full" in text:
            return StoreFullError(f"{self._path}: {text}; make room on its disk")
        return StoreUnavailableError(f"{self._path}: {text}{ADVICE.get(text, '')}")


ADVICE = {
    "unable to open database file": "; see that its folder exists and that this user may write there",
    "attempt to write a readonly database": "; see that this user may write the file and its folder",
    "file is not a database": "; it holds something else: choose another path, or move it away",
    "database disk image is malformed": "; it is damaged: when nobody uses it, move it away",
    "disk I/O error": "; see that it is on a local disk, and what the system's log says of that",
}
"""What to do, by the text of SQLite's error; Python 3.10 does not give the code."""


def _is_locked(error: sqlite3.Error) -> bool:
    """Tell whether a statement was refused because others have the file locked."""
    return str(error) in ("database is locked", "locking protocol")


def _range(prefix: bytes) -> tuple[bytes, bytes]:
    """Give the first key that begins with a prefix, and what is beyond the last: no UTF-8 has a byte 255."""
    return prefix, prefix + b"\xff"


def _rest() -> None:
    """Close all connections before a fork.

    SQLite keeps in memory which locks a process has. A forked child that inherits that takes them for its own, opens
    the file without a lock, and loses what it writes when the parent closes.
    """
    acquired = False
    while not acquired:
        with suppress(KeyboardInterrupt):  # the fork would go on without
            acquired = _turn.acquire()
    for store in list(_stores):
        store._disconnect()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_rest, after_in_parent=_turn.release, after_in_child=_turn.release)
