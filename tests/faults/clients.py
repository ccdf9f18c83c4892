"""Who makes the calls: a thread of this process, or a process of its own that can be stopped, killed and starved.

Both are used alike: `begin` starts an operation and returns its `Call`.
"""

from __future__ import annotations

import itertools
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from operator import methodcaller
from typing import Any, Protocol

from etha.kvstore import KVStore, open_store
from etha.kvstore.skeleton import SkeletalStore
from laboratory import Site
from operations import OPERATIONS, RETURNED, Call, Kind, Operation, Outcome, call
from tcpstore_host import PROCESSES, freeze

__all__ = ["Client", "ClientProcess", "Thread"]


class Client(Protocol):
    """A store, and somebody who uses it. The operation ``open`` opens the store, which the others need."""

    def begin(self, operation: Operation, key: str, seconds: float) -> Call:
        """Start an operation; a wait may go on for so many seconds."""

    def end(self) -> None:
        """Let go of what the client needs, but of the store."""


class Thread:
    """A client in this process.

    Parameters
    ----------
    site : Site
        Where its store is opened.
    **options
        What it is opened with.
    """

    def __init__(self, site: Site, **options: object) -> None:
        self._site = site
        self._options = options
        self._threads = ThreadPoolExecutor()
        self.store: KVStore | None = None

    def begin(self, operation: Operation, key: str, seconds: float) -> Call:
        return self._threads.submit(call, self._run, operation, key, seconds)

    def end(self) -> None:
        self._threads.shutdown()

    def _run(self, operation: Operation, key: str, seconds: float) -> object:
        if operation.kind is Kind.OPEN:
            self.store = self._site.open(**self._options)  # type: ignore[arg-type]  # a component among them
        assert self.store is not None
        return operation.run(self.store, key, seconds)


class ClientProcess:
    """A client in a process of its own.

    Parameters
    ----------
    site : Site
        Where its store is opened.
    **options
        What it is opened with.
    """

    def __init__(self, site: Site, **options: object) -> None:
        settings = {"namespace": site.namespace, "component": "trainer", **site.settings(), **options}
        self._said, said = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=_serve, args=(settings, said), daemon=True)
        self._process.start()
        said.close()
        assert self._process.pid is not None
        self._pid = self._process.pid
        self._numbers = itertools.count()
        self._calls: dict[int, Call] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self, operation: Operation, key: str, seconds: float) -> Call:
        return self._ask(_operate, operation.name, key, seconds)

    def tell(self, method: str, *arguments: object) -> object:
        """Have the process call a method of its store, and give what it returned."""
        return self._answer(methodcaller(method, *arguments))

    def waits(self) -> object:
        """Tell how many waits stand in the process."""
        return self._answer(_waits)

    def freeze(self) -> None:
        """Stop the process where it is (SIGSTOP)."""
        freeze(self._pid)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()
        self._process.join()

    def use_up_descriptors(self) -> None:
        """Have it be refused every new file descriptor; those that it has stay open."""
        self._limit_descriptors(0)

    def have_descriptors_again(self) -> None:
        """Take that back."""
        self._limit_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def end(self) -> None:
        self.kill()
        self._reader.join()
        self._said.close()

    def _limit_descriptors(self, soft: int) -> None:
        _, hard = resource.prlimit(self._pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, (soft, hard))

    def _answer(self, function: Callable[[Any], object]) -> object:
        outcome = self._ask(function).result(10.0)
        assert outcome.ended_with == RETURNED, outcome
        return outcome.value

    def _ask(self, function: Callable[..., object], *arguments: object) -> Call:
        number, future = next(self._numbers), Future[Outcome]()
        self._calls[number] = future
        self._said.send((number, function, *arguments))
        return future

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, outcome = self._said.recv()
                self._calls.pop(number).set_result(outcome)
        for lost in self._calls.values():
            lost.set_exception(EOFError("the client's process ended"))


def _operate(store: KVStore, name: str, key: str, seconds: float) -> object:
    return OPERATIONS[name].run(store, key, seconds)


def _waits(store: SkeletalStore) -> int:
    return len(store._followers)


def _serve(settings: dict[str, Any], asked: Connection) -> None:
    """Do with a store what is asked, each in a thread, until the other end of the pipe is closed."""
    threads = ThreadPoolExecutor()
    answering = threading.Lock()
    store: KVStore | None = None

    def run(function: Callable[..., object], *arguments: object) -> object:
        nonlocal store
        store = store or open_store(**settings)
        return function(store, *arguments)

    def answer(number: int, *what: Any) -> None:
        outcome = call(run, *what)
        with answering:
            asked.send((number, outcome))

    with suppress(EOFError):
        while True:
            threads.submit(answer, *asked.recv())
