"""Clients that read and write the same few keys at once, each with a store of its own, and the history of it all.

A client is a process, or a thread where the store is in the memory of one process; two lanes of it share its store. It
tells of every call before it makes it, so that a client which is killed leaves no call untold.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, cast

from checker import Operation
from etha.kvstore import KVStore, open_store
from etha.kvstore.errors import KVStoreError, OutcomeUnknownError, StoreClosedError, StoreUnavailableError
from tcpstore_host import PROCESSES, freeze

__all__ = ["KINDS", "WRITES", "Client", "Failed", "Traffic", "Wrap", "unchanged"]

KEYS = ("text", "few", "binary")
"""One key holds values that are all distinct, one the same few again and again, one what is not UTF-8.

On etcd each lane has its own few: there an equal value of another confirms a write whose reply was lost, and where that
is deleted before the write arrives, the key comes back. It is what "What is promised" does not promise.
"""

FEW = ("", "1", "ready")

BINARY = "\x00\xff"
"""What is in every value of the key ``binary``, in latin-1."""

LANES = ("a", "b")

KINDS = ("get", "exists", "set", "delete")

WRITES = ("set", "delete")

IN_DOUBT = (OutcomeUnknownError, StoreClosedError)
"""After these a write may have happened; after any other error the contract says that nothing was done. One lane closes
the store when it is lost, which the other may be using."""

SHARES = (40, 13, 35, 12)
"""How often each of them is called, of a hundred times."""

LONGEST_PAUSE = 0.012
"""Seconds between two calls of one lane, at the most."""

AFTER_TROUBLE = 0.05

JOIN_SECONDS = 30.0


@dataclass(frozen=True)
class Failed:
    """A call that certainly did nothing, and the error that said so."""

    call: Operation
    error: str

    def __str__(self) -> str:
        return f"{self.call}, but {self.error}"


Wrap = Callable[[KVStore], object]
"""What is done to each store when it is opened: a test puts a broken one in its place."""


def unchanged(store: KVStore) -> KVStore:
    """Take the store as it is."""
    return store


class Traffic:
    """Clients, and what they have seen.

    Parameters
    ----------
    settings : iterable of dict
        For each client, what `etha.kvstore.open_store` needs.
    seed : str
        Makes the calls that the clients choose repeatable.
    processes : bool
        Whether each client is a process.
    wrap : callable
        Is given every store that a client opens.
    """

    def __init__(self, settings: Iterable[dict[str, Any]], seed: str, *, processes: bool, wrap: Wrap) -> None:
        self._changed = threading.Condition()
        self._seed = seed
        self._processes = processes
        self._wrap = wrap
        self._numbers = itertools.count()
        self._all: list[Client] = []
        self.clients: list[Client] = []
        for each in settings:
            self._begin(each)

    @property
    def answered(self) -> int:
        """How many calls have been answered."""
        return sum(client.answered for client in self._all)

    def await_answers(self, count: int, timeout: float = 30.0) -> None:
        """Wait until so many more calls of every client have been answered, so that the store is seen to serve it."""
        goals = [(client, client.answered + count) for client in self.clients]
        with self._changed:
            if not self._changed.wait_for(lambda: all(client.answered >= goal for client, goal in goals), timeout):
                left = {client.name: goal - client.answered for client, goal in goals}
                raise TimeoutError(f"the store does not serve: after {timeout} s calls are left unanswered: {left}")

    def replace(self, client: Client) -> None:
        """Kill a client at once, and have another take its place."""
        client.kill()
        self.clients.remove(client)
        self._begin(client.settings)

    def end(self) -> None:
        """Have every client read all keys once more, and wait until all have left."""
        for client in self.clients:
            client.ask_to_leave()
        deadline = monotonic() + JOIN_SECONDS
        stuck = [client.name for client in self.clients if not client.has_left(deadline)]
        if stuck:
            raise TimeoutError(f"{', '.join(stuck)} did not leave within {JOIN_SECONDS} s: a call hangs")

    def kill(self) -> None:
        """Leave no client running, whatever happened."""
        for client in self.clients:
            client.kill()

    def history(self) -> list[Operation]:
        """Tell what answered, and the writes whose outcome is unknown, once all have left."""
        return [operation for client in self._all for operation in client.history()]

    def forbidden(self) -> list[str]:
        """Tell what no store may raise, and was raised."""
        return [f"{client.name}: {what}" for client in self._all for what in client.forbidden]

    def failed(self) -> list[Failed]:
        """Tell which calls did nothing: reads without an answer, and writes that were said to have done nothing."""
        return [each for client in self._all for each in client.failed()]

    def _begin(self, settings: dict[str, Any]) -> None:
        name = f"client-{next(self._numbers)}"
        client = Client(name, settings, self._seed, self._wrap, self._tell, process=self._processes)
        self._all.append(client)
        self.clients.append(client)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


class Client:
    """One client, seen from outside.

    Parameters
    ----------
    name : str
        Its name in the history.
    settings, seed, wrap, process
        As `Traffic`.
    told : callable
        Is called at each answer.
    """

    def __init__(
        self,
        name: str,
        settings: dict[str, Any],
        seed: str,
        wrap: Wrap,
        told: Callable[[], None],
        *,
        process: bool,
    ) -> None:
        self.name = name
        self.settings = settings
        self.forbidden: list[str] = []
        self._told = told
        self._under_way: dict[str, Operation] = {}
        self._done: list[Operation] = []
        self._failed: list[Failed] = []
        self._end, end = PROCESSES.Pipe()
        arguments = (settings, wrap, name, seed, end)
        self._process = PROCESSES.Process(target=_run, args=arguments, daemon=True) if process else None
        self._runs = self._process or threading.Thread(target=_run, args=arguments, daemon=True)
        self._runs.start()
        if process:
            end.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id of a client that is a process."""
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def answered(self) -> int:
        """How many of its calls have been answered."""
        return len(self._done)

    @property
    def waits(self) -> bool:
        """Whether each of its lanes has made a call that is not answered yet."""
        return len(self._under_way) >= len(LANES)

    def freeze(self) -> None:
        """Stop the process where it is (SIGSTOP), and return when it stands."""
        freeze(self.pid)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End a process at once (SIGKILL); a thread is asked to leave."""
        if self._process is None:
            self.ask_to_leave()
        else:
            self._process.kill()
        self._runs.join(JOIN_SECONDS)
        self._reader.join(JOIN_SECONDS)

    def ask_to_leave(self) -> None:
        """Tell it to read all keys once more, and leave."""
        with suppress(OSError):
            self._end.send("leave")

    def has_left(self, deadline: float) -> bool:
        """Wait until it is gone."""
        for each in (self._reader, self._runs):
            each.join(max(0.0, deadline - monotonic()))
        return not self._runs.is_alive()

    def history(self) -> list[Operation]:
        """Tell what answered, and the writes of which nobody knows whether they took effect."""
        return self._done + [each for each in self._under_way.values() if each.kind in WRITES]

    def failed(self) -> list[Failed]:
        """Tell the calls that did nothing."""
        unanswered = [each for each in self._under_way.values() if each.kind not in WRITES]
        return self._failed + [Failed(each, "nothing came back") for each in unanswered]

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                what, number, *rest = self._end.recv()
                if what == "call":
                    kind, value, called, key = rest
                    self._under_way[number] = Operation(kind, value, called, key=key, client=self.name)
                elif what == "answer":
                    value, returned = rest
                    self._done.append(replace(self._under_way.pop(number), value=value, returned=returned))
                    self._told()
                elif what == "failure":
                    error, returned = rest
                    self._failed.append(Failed(replace(self._under_way.pop(number), returned=returned), error))
                elif what == "forbidden":
                    self.forbidden.append(rest[0])
        self._end.close()


class _Caller:
    """One client, seen from inside: its lanes, and the store that they share."""

    def __init__(self, settings: dict[str, Any], wrap: Wrap, end: Connection) -> None:
        self._settings = settings
        self._wrap = wrap
        self._end = end
        self._sending = threading.Lock()
        self._opening = threading.Lock()
        self._leaving = threading.Event()
        self._store = self._open()

    def run(self, name: str, seed: str) -> None:
        """Make calls in every lane until told to leave."""
        lanes = [threading.Thread(target=self._lane, args=(f"{name}{lane}", seed)) for lane in LANES]
        for lane in lanes:
            lane.start()
        with suppress(EOFError):
            self._end.recv()
        self._leaving.set()
        for lane in lanes:
            lane.join()
        self._store.close(cleanup=False)

    def _open(self) -> KVStore:
        return cast("KVStore", self._wrap(open_store(**self._settings)))

    def _open_again(self, lost: KVStore) -> None:
        """Open another store, as a TCPStore's error advises, unless the other lane has done so."""
        with self._opening:
            if self._store is lost:
                with suppress(KVStoreError):
                    self._store = self._open()
                    lost.close(cleanup=False)

    def _tell(self, *what: object) -> None:
        with self._sending, suppress(OSError):
            self._end.send(what)

    def _lane(self, name: str, seed: str) -> None:
        rng = random.Random(f"{seed} {name}")
        for number in itertools.count():
            if self._leaving.wait(rng.uniform(0.0, LONGEST_PAUSE)):
                break
            (kind,) = rng.choices(KINDS, SHARES)
            key = rng.choice(KEYS)
            if key == "few":
                value = f"{name if self._settings['backend'] == 'etcd' else ''}{rng.choice(FEW)}"
            else:
                value = f"{name}-{number}{BINARY if key == 'binary' else ''}"
            if not self._call(f"{name}-{number}", kind, key, value):
                time.sleep(AFTER_TROUBLE)
        deadline = monotonic() + JOIN_SECONDS / 2
        for key in KEYS:
            while not self._call(f"{name}-last-{key}", "get", key, "") and monotonic() < deadline:
                time.sleep(AFTER_TROUBLE)

    def _call(self, number: str, kind: str, key: str, value: str) -> bool:
        """Make one call and tell of it; give whether it was answered."""
        store = self._store
        self._tell("call", number, kind, value if kind == "set" else None, monotonic(), key)
        try:
            answer = _perform(store, kind, key, value)
        except KVStoreError as error:
            if not isinstance(error, IN_DOUBT):
                self._tell("failure", number, type(error).__name__, monotonic())
            if self._settings["backend"] == "tcpstore" and isinstance(
                error, (StoreUnavailableError, OutcomeUnknownError)
            ):
                self._open_again(store)
            return False
        except Exception as error:  # noqa: BLE001 (it is told, and fails the run)
            self._tell("forbidden", number, f"{kind}({key}) raised {error!r}")
            return False
        self._tell("answer", number, answer, monotonic())
        return True


def _run(settings: dict[str, Any], wrap: Wrap, name: str, seed: str, end: Connection) -> None:
    """Be a client."""
    with end:
        try:
            caller = _Caller(settings, wrap, end)
        except Exception as error:  # noqa: BLE001 (it is told, and fails the run)
            end.send(("forbidden", "", f"opening raised {error!r}"))
            return
        caller.run(name, seed)


def _perform(store: KVStore, kind: str, key: str, value: str) -> str | bool | None:
    """Make one call, and give what the history says of it: what a `set` wrote, and what the others returned."""
    if kind == "exists":
        return store.exists(key)
    if kind == "delete":
        return store.delete(key)
    if kind == "set":
        if key == "binary":
            store.set_bytes(key, value.encode("latin-1"))
        else:
            store.set(key, value)
        return value
    data = store.get_bytes(key) if key == "binary" else store.get(key)
    return None if data is None else data.decode("latin-1" if key == "binary" else "utf-8", "backslashreplace")
