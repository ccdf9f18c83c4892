"""Ranks that meet through a store: threads of a few processes, each rank with a store, and so a connection, of its own.

A real job has a process a rank. What the server is given is the same, connection for connection and request for
request; what differs is that the ranks share the cores of one machine with it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection
from time import monotonic, sleep
from typing import Any, NamedTuple

from etha.kvstore import KVStore, open_store_from_config
from etha.kvstore.patterns import expand
from tcpstore_host import PROCESSES

__all__ = ["PROCESS_COUNT", "SHAPES", "Ranks", "open_ranks"]

PROCESS_COUNT = 4
"""In how many processes the ranks live; no more of them can run Python at once, however many ranks there are."""

SWITCH_SECONDS = 1.0
"""How often a thread that waits for the interpreter asks for it. At 5 ms thousands of threads do little else."""

OPEN_SECONDS = 120.0
"""How long the ranks may take to open or to close their stores."""


class Task(NamedTuple):
    """What a rank is to do.

    Attributes
    ----------
    shape : str
        How the ranks meet, one of `SHAPES`.
    component : str
        Where, so that one meeting does not see the keys of another.
    ranks : int
        How many meet.
    spread : float
        Over how many seconds they arrive, one by one; all at once where it is zero.
    patience : float
        How long a rank waits for the others, in seconds.
    """

    shape: str
    component: str
    ranks: int
    spread: float
    patience: float


def address(rank: int) -> str:
    """Make up an address such as ranks publish."""
    return f"10.{rank >> 16 & 255}.{rank >> 8 & 255}.{rank & 255}:29500"


def each(store: KVStore, me: int, task: Task) -> list[bytes | None]:
    """All wait for all, and read one address after another."""
    publish(store, me, task)
    return gather(store, task)


def leader(store: KVStore, me: int, task: Task) -> list[bytes | None]:
    """One waits for all and publishes one key, for which the others wait."""
    publish(store, me, task)
    if me == 0:
        found = [(address or b"").decode() for address in gather(store, task)]
        store.set("addresses", "\n".join(found), component=task.component)
    return list(store.wait_for_key("addresses", task.patience, component=task.component).split(b"\n"))


SHAPES: dict[str, Callable[[KVStore, int, Task], list[bytes | None]]] = {"leader": leader, "each": each}


def publish(store: KVStore, me: int, task: Task) -> None:
    """Publish an address, and then that it is there."""
    store.set(f"rank:{me}/address", address(me), component=task.component)
    store.set(f"rank:{me}/ready", "1", component=task.component)


def gather(store: KVStore, task: Task) -> list[bytes | None]:
    """Wait until every rank has said that it is ready, and read all addresses."""
    everyone = expand("rank:*/ready", range(task.ranks))
    store.wait_for_keys("rank:*/ready", task.ranks, "1", task.patience, everyone, component=task.component)
    return [store.get(f"rank:{rank}/address", component=task.component) for rank in range(task.ranks)]


class Ranks:
    """Ranks that have opened their stores and do what they are told, all at once.

    Parameters
    ----------
    config : dict
        The configuration of each one's store.
    count : int
        How many ranks.
    """

    def __init__(self, config: dict[str, Any], count: int) -> None:
        self.count = count
        self._pipes: list[connection.Connection] = []
        self._processes = []
        for first in range(min(PROCESS_COUNT, count)):
            pipe, theirs = PROCESSES.Pipe()
            numbers = range(first, count, PROCESS_COUNT)
            process = PROCESSES.Process(target=_serve, args=(theirs, config, numbers), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(pipe)
            self._processes.append(process)

    def await_open(self) -> None:
        """Wait until all stores are open."""
        self._hear(OPEN_SECONDS)

    def meet(
        self, shape: str, component: str, count: Callable[[], Any], limit: float, spread: float = 0.0
    ) -> tuple[float, Any, Any]:
        """Have all ranks meet once.

        Parameters
        ----------
        shape, component : str
            As those of `Task`.
        count : callable
            Is called when all ranks stand ready, and again when the last one is done.
        limit : float
            How long it may take, in seconds.
        spread : float
            As that of `Task`.

        Returns
        -------
        seconds : float
            From the signal to the last rank's end.
        before, after
            What `count` gave.

        Raises
        ------
        TimeoutError
            If it took longer than it may.
        """
        self._tell(Task(shape, component, self.count, spread, limit))
        self._hear(limit)
        before = count()
        begun = monotonic()
        self._tell("go")
        ended = max(self._hear(limit))
        return ended - begun, before, count()

    def close(self) -> None:
        """Have all stores closed, and the processes ended."""
        for pipe in self._pipes:
            pipe.close()
        by = monotonic() + OPEN_SECONDS
        for process in self._processes:
            process.join(max(0.0, by - monotonic()))
            process.kill()  # one in which a rank failed may be waiting for it

    def abandon(self) -> None:
        """End the processes at once."""
        for process in self._processes:
            process.kill()

    def _tell(self, message: Any) -> None:
        for pipe in self._pipes:
            pipe.send(message)

    def _hear(self, limit: float) -> list[float]:
        """Give what each process says, or end them all where one says nothing for so long."""
        by = monotonic() + limit
        answers = []
        for pipe in self._pipes:
            if not pipe.poll(max(0.0, by - monotonic())):
                self.abandon()
                raise TimeoutError(f"{self.count} ranks took longer than {limit:.0f} s")
            answers.append(pipe.recv())
        for answer in answers:
            if isinstance(answer, str):
                self.abandon()
                raise RuntimeError(f"the ranks of one process failed: {answer}")
        return answers


@contextmanager
def open_ranks(config: dict[str, Any], count: int) -> Iterator[Ranks]:
    """Start ranks, and end them; the parameters are those of `Ranks`."""
    ranks = Ranks(config, count)
    try:
        ranks.await_open()
        yield ranks
    finally:
        ranks.close()


def _serve(pipe: connection.Connection, config: dict[str, Any], numbers: Sequence[int]) -> None:
    """Open the stores of some ranks, let each take part in every task, and say when the last one was done."""
    sys.setswitchinterval(SWITCH_SECONDS)
    threading.stack_size(256 * 1024)
    stores: list[KVStore] = []
    with ThreadPoolExecutor(len(numbers)) as pool:
        try:
            stores.extend(open_store_from_config(config) for _ in numbers)
            pipe.send(monotonic())
            while (task := _hear_of_a_task(pipe)) is not None:
                begin = threading.Barrier(len(numbers) + 1)
                ended = [
                    pool.submit(_take_part, store, me, task, begin) for store, me in zip(stores, numbers, strict=True)
                ]
                while begin.n_waiting < len(numbers):
                    sleep(0.001)
                pipe.send(monotonic())
                pipe.recv()
                begin.wait()
                pipe.send(max(each.result() for each in ended))
        except Exception as error:  # noqa: BLE001 (the other process is told)
            pipe.send(f"{type(error).__name__}: {error}")
        for store in stores:
            store.close(cleanup=False)


def _hear_of_a_task(pipe: connection.Connection) -> Task | None:
    """Take the next task; `None` when there are no more to come."""
    try:
        task: Task = pipe.recv()
    except EOFError:
        return None
    return task


def _take_part(store: KVStore, me: int, task: Task, begin: threading.Barrier) -> float:
    """Meet the others, see that all of them were found, and say when that was done."""
    begin.wait()
    sleep(task.spread * me / task.ranks)
    found = SHAPES[task.shape](store, me, task)
    ended = monotonic()
    if found != [address(rank).encode() for rank in range(task.ranks)]:
        raise AssertionError(f"rank {me} read other addresses than were published")
    return ended
