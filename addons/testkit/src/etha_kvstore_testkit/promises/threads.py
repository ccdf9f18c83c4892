"""Threads: a store may be used from many at once."""

from __future__ import annotations

import threading

import pytest

from etha.kvstore.base import KVStore
from etha_kvstore_testkit.harness import Harness
from etha_kvstore_testkit.observe import GRACE, PATIENCE, in_background, see_under_way
from etha_kvstore_testkit.tables import WAITS

__all__ = ["ThreadPromises"]

THREADS = 16


class ThreadPromises(Harness):
    """Threads on one store neither see each other's halves nor wait for each other's waits."""

    def test_each_thread_reads_what_it_wrote(self, store: KVStore, other: KVStore) -> None:
        together = threading.Barrier(THREADS)

        def work(rank: int) -> list[bytes | None]:
            together.wait(PATIENCE)
            found: list[bytes | None] = []
            for number in range(10):
                store.set(f"rank:{rank}", f"{rank}.{number}")
                found.append(store.get(f"rank:{rank}"))
                store.set_bytes(f"data:{rank}", bytes([rank, number, 255]))
                found.append(store.get_bytes(f"data:{rank}"))
            return found

        for rank, working in enumerate([in_background(work, rank) for rank in range(THREADS)]):
            expected = [(f"{rank}.{n}".encode(), bytes([rank, n, 255])) for n in range(10)]
            assert working.result(PATIENCE) == [value for pair in expected for value in pair]
        assert {other.get(f"rank:{rank}") for rank in range(THREADS)} == {f"{r}.9".encode() for r in range(THREADS)}

    @pytest.mark.parametrize("wait", WAITS)
    def test_waiting_threads_do_not_hold_up_the_others(self, store: KVStore, other: KVStore, wait: str) -> None:
        keys = [f"rank:{rank}/ready" for rank in range(THREADS)]
        waits = [in_background(WAITS[wait], store, key=key, timeout=PATIENCE) for key in keys]
        see_under_way(other, *waits)
        in_background(store.set, "key", "1").result(GRACE)
        assert in_background(store.get, "key").result(GRACE) == b"1"
        assert in_background(store.delete, "key").result(GRACE) is True
        for key in keys:
            other.set(key, "1")
        for waiting in waits:
            waiting.result(PATIENCE)

    @pytest.mark.parametrize("wait", WAITS)
    def test_one_write_ends_the_waits_of_all_threads(self, store: KVStore, other: KVStore, wait: str) -> None:
        waits = [in_background(WAITS[wait], each, timeout=PATIENCE) for each in (store, other) * (THREADS // 2)]
        see_under_way(store, *waits)
        other.set("rank:0/ready", "1")
        for waiting in waits:
            waiting.result(PATIENCE)

    def test_threads_that_meet_through_the_store_all_meet(self, store: KVStore, other: KVStore) -> None:
        ranks = [f"rank:{rank}/ready" for rank in range(THREADS)]

        def meet(each: KVStore, mine: str) -> list[str]:
            each.set(mine, "1")
            return each.wait_for_keys("rank:*/ready", THREADS, "1", PATIENCE, ranks)

        meetings = [in_background(meet, (store, other)[rank % 2], mine) for rank, mine in enumerate(ranks)]
        assert [meeting.result(PATIENCE) for meeting in meetings] == [sorted(ranks)] * THREADS

    def test_of_many_who_delete_a_key_at_once_one_deleted_it(self, store: KVStore, other: KVStore) -> None:
        together = threading.Barrier(4)

        def delete(each: KVStore, key: str) -> bool:
            together.wait(PATIENCE)
            return each.delete(key)

        for number in range(25):
            key = f"key:{number}"
            store.set(key, "1")
            deletions = [in_background(delete, each, key) for each in (store, other) * 2]
            assert sorted(deletion.result(PATIENCE) for deletion in deletions) == [False, False, False, True]
