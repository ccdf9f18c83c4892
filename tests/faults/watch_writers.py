"""Who writes in a run of the watch guarantees: writers whose every write is known, with its place in the order."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from random import Random
from time import monotonic

from etha.kvstore import KVStore
from etha_kvstore_etcd._proto import etcd_pb2 as pb
from etha_kvstore_etcd.connection import Connection
from watch_log import Written

__all__ = ["COMPONENTS", "KEYS", "MARKED", "SILENCE", "EtcdWriter", "MemoryWriter", "RecordedDict", "Writer"]

COMPONENTS = ("trainer", "rollout")
"""What is watched. Beside it are neighbours whose names begin alike, and whom nobody is to see."""

KEYS = ("rank:0", "rank:1", "rank:2", "rank:3", "rank:10", "step", "model/weights", "model/state")

MARKED = KEYS[0]
"""The key that all patterns select, so that every watcher can be waited for. The first writer writes it often."""

SILENCE = 20.0
"""Seconds within which a write is acknowledged and a watcher is given it, once nothing stands in the way."""


class Writer(ABC):
    """One of several who write to a namespace, and to the neighbours of what is watched there.

    Parameters
    ----------
    namespace : str
        Where.
    keys : sequence of str
        Which relative keys.
    seed : str
        What it writes depends on; how it alternates with others does not.
    """

    largest = 1
    """The most keys that one write can have."""

    def __init__(self, namespace: str, keys: Sequence[str], seed: str) -> None:
        prefixes = [f"{namespace}/{component}/" for component in (*COMPONENTS, f"{COMPONENTS[0]}-2")]
        self._keys = [prefix + key for prefix in (*prefixes, f"{namespace}-2/{COMPONENTS[0]}/") for key in keys]
        self._often = [key for key in self._keys[: len(keys) * len(COMPONENTS)] if key.endswith(f"/{MARKED}")]
        self._random = Random(seed)
        self._numbers = itertools.count()
        self._name = seed.rpartition(" ")[2]

    @abstractmethod
    def write(self, changes: Mapping[str, bytes | None]) -> None:
        """Make one write, which gives full keys new values or, with `None`, deletes them."""

    def value(self) -> bytes:
        """Make a value that no other write has."""
        return f"{self._name}.{next(self._numbers)}".encode()

    def burst(self, count: int) -> None:
        """Make so many writes."""
        for _ in range(count):
            keys = self._random.sample(self._keys, self._random.choice((1, 1, 1, self.largest)))
            if self._often and self._random.random() < 0.5:
                keys[0] = self._random.choice(self._often)
            value = self.value()
            self.write({key: None if self._random.random() < 0.3 else value for key in keys})


class EtcdWriter(Writer):
    """A writer that speaks to etcd itself, around the proxies and the stores. Its keys are its own.

    Each write also changes a journal of the writer's, on the condition that nothing else did. So it can be sent until
    it is answered and takes effect once, and the journal tells with which revision, whatever replies were lost.

    Parameters
    ----------
    namespace, keys, seed
        As `Writer`.
    connection : Connection
        To etcd.
    written : list of Written
        Where to put down what was written.
    """

    largest = 4

    def __init__(
        self, namespace: str, keys: Sequence[str], seed: str, connection: Connection, written: list[Written]
    ) -> None:
        super().__init__(namespace, keys, seed)
        self._connection = connection
        self._written = written
        self._journal = f"{namespace}-2/journal/{self._name}".encode()
        self.revision = 0
        """That of the last write."""
        self._held: set[str] = set()

    def write(self, changes: Mapping[str, bytes | None]) -> None:
        made = {key: value for key, value in changes.items() if value is not None or key in self._held}
        done = {self._journal: self.value()} | {key.encode(): value for key, value in made.items()}
        unchanged = pb.Compare(target=pb.Compare.MOD, key=self._journal, mod_revision=self.revision)
        look = pb.RequestOp(request_range=pb.RangeRequest(key=self._journal))
        deeds = [_deed(key, value) for key, value in done.items()]
        request = pb.TxnRequest(compare=[unchanged], success=deeds, failure=[look])
        reply = self._connection.call("txn", request, monotonic() + SILENCE)
        if reply.succeeded:
            self.revision = reply.header.revision
        else:
            (journal,) = reply.responses[0].response_range.kvs
            assert journal.value == done[self._journal], "an acknowledged write is lost"
            self.revision = journal.mod_revision
        self._written += [Written(self.revision, key, value) for key, value in made.items()]
        self._held.update(made)
        self._held.difference_update(key for key, value in made.items() if value is None)

    def forget(self) -> None:
        """Begin again, for a server that has lost everything."""
        self.revision = 0
        self._held.clear()
        self._written.clear()


def _deed(key: bytes, value: bytes | None) -> pb.RequestOp:
    if value is None:
        return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))


class MemoryWriter(Writer):
    """A writer to memory stores, which races the others for the same keys.

    Parameters
    ----------
    namespace, keys, seed
        As `Writer`.
    stores : mapping of str to KVStore
        A store in each namespace, the neighbour's included.
    """

    def __init__(self, namespace: str, keys: Sequence[str], seed: str, stores: Mapping[str, KVStore]) -> None:
        super().__init__(namespace, keys, seed)
        self._stores = stores

    def write(self, changes: Mapping[str, bytes | None]) -> None:
        for full, value in changes.items():
            namespace, component, key = full.split("/", 2)
            if value is None:
                self._stores[namespace].delete(key, component=component)
            else:
                self._stores[namespace].set(key, value.decode(), component=component)


class RecordedDict(dict[bytes, bytes]):
    """What a memory hub keeps its keys in, where the order of the changes is to be known.

    Parameters
    ----------
    written : list of Written
        Where to put down what was changed.
    """

    def __init__(self, written: list[Written]) -> None:
        super().__init__()
        self._written = written

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._written.append(Written(len(self._written) + 1, key.decode(), value))
        super().__setitem__(key, value)

    def pop(self, key: bytes, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
        if key in self:
            self._written.append(Written(len(self._written) + 1, key.decode(), None))
        return super().pop(key, default)
