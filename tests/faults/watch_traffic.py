"""Who watches in a run of the watch guarantees, how the run goes, and the verdict on what was recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from etcd_server import EtcdServer
from etha.kvstore import Change, KVStore
from etha.kvstore.errors import WaitTimeoutError
from etha.kvstore.follow import Batch, Selector
from etha.kvstore.skeleton import SkeletalStore, _SkeletalWatch
from etha_kvstore_etcd.address import connect
from etha_kvstore_etcd.connection import Connection, Login
from watch_guarantees import GUARANTEES, Guarantee
from watch_log import Compacted, Cut, Given, History, WatchLog, Written
from watch_writers import COMPONENTS, KEYS, MARKED, SILENCE, EtcdWriter, Writer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Run", "Watcher", "run_on_etcd"]

WATCHED = (("*", 0), ("rank:*", 0), ("rank:0", 0), ("*:*0", 0), ("*", 1))
"""The patterns that a store watches at the same time, and the number of the component."""

LEAST = 30
"""How many changes every watcher must have been given, or the run says nothing."""

PATIENCE = 0.1
"""Seconds that a watcher waits for one change before it asks again, and for one too many at the end."""


class RecordedWatch(_SkeletalWatch):
    """A watch that takes down what it yields, batch by batch, and which batches were new listings.

    Parameters
    ----------
    store : SkeletalStore
        The store to watch through.
    pattern : str
        What to watch.
    component : str
        In which component.
    """

    def __init__(self, store: SkeletalStore, pattern: str, component: str) -> None:
        super().__init__(store, Selector(store._pattern(pattern, component)), pattern, component)
        self.log = WatchLog(f"{store.namespace}/{component}/", pattern)

    def __enter__(self) -> RecordedWatch:
        super().__enter__()
        self.log.state = dict(self.state)
        return self

    def _changes(self, batches: Iterable[Batch]) -> Iterator[Change]:
        for batch in batches:
            given = Given(relisted=batch.restart)
            self.log.steps.append(given)
            for change in super()._changes([batch]):
                given.changes.append(change)
                yield change


class Watcher:
    """One who consumes a watch, in a thread of its own.

    Parameters
    ----------
    watch : RecordedWatch
        What to consume.
    paused : bool
        Whether to take nothing until `proceed`.
    """

    def __init__(self, watch: RecordedWatch, *, paused: bool) -> None:
        self.log = watch.log
        self._watch = watch
        self._proceeding = threading.Event()
        self._finishing = threading.Event()
        self._news = threading.Condition()
        self._seen: set[bytes | None] = set()
        self._failure: BaseException | None = None
        if not paused:
            self.proceed()
        self._thread = threading.Thread(target=self._consume)
        self._thread.start()

    @property
    def paused(self) -> bool:
        """Whether it takes nothing yet."""
        return not self._proceeding.is_set()

    def proceed(self) -> None:
        """Let a paused watcher consume."""
        self._proceeding.set()

    def await_value(self, value: bytes) -> None:
        """Wait until a value has been given."""
        with self._news:
            self._news.wait_for(lambda: value in self._seen or self._failure, SILENCE)
            if value not in self._seen:
                raise AssertionError(f"{self!r} was not given {value!r} within {SILENCE} s") from self._failure

    def finish(self) -> None:
        """Leave the watch once nothing more comes."""
        self._finishing.set()
        self.proceed()

    def join(self) -> None:
        """Wait until the watch has been left."""
        self._thread.join(SILENCE)
        assert not self._thread.is_alive(), f"{self!r} does not end"

    def _consume(self) -> None:
        self._proceeding.wait()
        try:
            while True:
                try:
                    change = self._watch.next(PATIENCE)
                except WaitTimeoutError:
                    if self._finishing.is_set():
                        break
                    continue
                with self._news:
                    self._seen.add(change.value)
                    self._news.notify_all()
        except BaseException as failure:  # noqa: BLE001 (raised again in the thread that waits)
            with self._news:
                self._failure = failure
                self._news.notify_all()
        self._watch.__exit__()

    def __repr__(self) -> str:
        return f"<watcher of {self.log.prefix + self.log.pattern}>"


class Run:
    """A run: its writers, its watchers, and the verdict.

    Parameters
    ----------
    namespace : str
        Where it is.
    writers : sequence of Writer
        The writers; the first of them writes the marks.
    written : list of Written
        What they wrote.
    """

    def __init__(self, namespace: str, writers: Sequence[Writer], written: list[Written]) -> None:
        self.namespace = namespace
        self.writers = writers
        self.written = written
        self.watchers: list[Watcher] = []
        self._pool = ThreadPoolExecutor(len(writers))

    def watch(
        self, store: KVStore, pattern: str = "*", component: str = COMPONENTS[0], *, paused: bool = False
    ) -> Watcher:
        """Begin to watch."""
        assert isinstance(store, SkeletalStore)
        watch = RecordedWatch(store, pattern, component).__enter__()
        watcher = Watcher(watch, paused=paused)
        self.watchers.append(watcher)
        return watcher

    def watch_all(self, *stores: KVStore) -> None:
        """Watch everything that is to be watched, through each store."""
        for store in stores:
            for pattern, component in WATCHED:
                self.watch(store, pattern, COMPONENTS[component])

    def write(self, count: int) -> None:
        """Have each writer make so many writes."""
        with self.writing(count):
            pass

    @contextmanager
    def writing(self, count: int) -> Iterator[None]:
        """Have each writer make so many writes while something is done."""
        bursts = [self._pool.submit(writer.burst, count) for writer in self.writers]
        yield
        for burst in bursts:
            burst.result(3 * SILENCE)

    def cut(self) -> None:
        """Take down that the watchers lose their connections now."""
        for watcher in self.watchers:
            watcher.log.steps.append(Cut())

    def compact(self, server: EtcdServer) -> None:
        """Have the server forget what was before the last write, and take that down."""
        revision = max(self.written).revision
        for watcher in self.watchers:
            watcher.log.steps.append(Compacted(revision))
        server.ctl("compaction", "--physical", str(revision))

    def settle(self) -> None:
        """Wait until every watcher is up to date."""
        value = self.writers[0].value()
        self.writers[0].write({f"{self.namespace}/{component}/{MARKED}": value for component in COMPONENTS})
        for watcher in self.watchers:
            if not watcher.paused:
                watcher.await_value(value)

    def verdict(self, guarantees: Sequence[Guarantee] = GUARANTEES, least: int = LEAST) -> None:
        """Let the watchers end, and judge what they were given."""
        for watcher in self.watchers:
            watcher.proceed()
        self.settle()
        self._finish()
        history = History(self.written)
        complaints = [
            f"{watcher!r}, {guarantee.__name__}: {complaint}"
            for watcher in self.watchers
            for guarantee in guarantees
            for complaint in guarantee(watcher.log, history)
        ]
        assert not complaints, f"{len(complaints)} violations\n" + "\n".join(complaints[:40])
        few = [watcher for watcher in self.watchers if len(watcher.log.changes) < least]
        assert not few, f"these were given fewer than {least} changes, so that the run says nothing: {few}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()
        self._pool.shutdown()

    def _finish(self) -> None:
        for watcher in self.watchers:
            watcher.finish()
        for watcher in self.watchers:
            watcher.join()


@contextmanager
def run_on_etcd(namespace: str, seed: str, endpoints: Sequence[str], login: Login | None = None) -> Iterator[Run]:
    """Make a run with two writers to etcd.

    Parameters
    ----------
    namespace, seed : str
        As `Writer`.
    endpoints : sequence of str
        Where to write.
    login : Login, optional
        As whom.
    """
    written: list[Written] = []
    with closing(Connection(connect(endpoints, None, {}), login)) as connection:
        writers = [EtcdWriter(namespace, KEYS[n::2], f"{seed} {n}", connection, written) for n in range(2)]
        with Run(namespace, writers, written) as run:
            yield run
