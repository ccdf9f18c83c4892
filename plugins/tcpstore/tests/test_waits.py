"""What a look of a wait costs in requests, seen on a torch store that keeps a record."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types

from etha.kvstore import skeleton
from etha.kvstore.errors import WaitTimeoutError
from etha.kvstore.patterns import expand
from etha_kvstore_tcpstore import TCPKVStore

PATIENCE = 60.0


class Recording(TCPStore):
    """A TCPStore that keeps a record of the requests that reads and looks are made of."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.requests: list[tuple[str, int]] = []
        self.looked = threading.Event()

    def check(self, keys: list[str]) -> bool:
        self.requests.append(("check", len(keys)))
        self.looked.set()
        return super().check(keys)

    def compare_set(self, key: str, expected: Any, desired: Any) -> bytes:
        self.requests.append(("read", 1))
        self.looked.set()
        return super().compare_set(key, expected, desired)


@pytest.fixture
def torch_store() -> Recording:
    return Recording()


@pytest.fixture
def store(torch_store: Recording) -> Iterator[TCPKVStore]:
    with TCPKVStore("job-42", "trainer", store=torch_store) as store:
        torch_store.requests.clear()
        yield store


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def put(torch_store: Any, key: str, value: bytes = b"1") -> None:
    """Set a key as another process would: not through the recorded store's own requests."""
    torch_store.set(f"job-42/trainer/{key}", value)


def test_a_read_is_one_request_and_a_write_is_acknowledged_by_one(store: TCPKVStore, torch_store: Recording) -> None:
    store.get("key")
    assert torch_store.requests == [("read", 1)]
    store.set("key", "1")
    assert torch_store.requests == [("read", 1), ("check", 1)]
    store.exists("key")
    assert torch_store.requests == [("read", 1), ("check", 1), ("check", 1)]


def test_a_listing_reads_no_value(store: TCPKVStore, torch_store: Recording) -> None:
    put(torch_store, "key")
    assert store.list_keys() == ["key"]
    assert torch_store.requests == [("check", 1)]  # which sees whether the server speaks


def test_a_look_at_one_key_is_one_request(store: TCPKVStore, torch_store: Recording) -> None:
    put(torch_store, "key")
    store.wait_for_key("key", PATIENCE)
    store.wait_for_value("key", "1", PATIENCE)
    store.wait_for_keys("k*", 1, timeout=PATIENCE, candidate_keys=["key"])
    assert torch_store.requests == [("read", 1)] * 3


def test_a_look_is_one_request_while_one_of_the_keys_that_are_all_expected_is_absent(
    store: TCPKVStore, torch_store: Recording, background: ThreadPoolExecutor
) -> None:
    everyone = expand("rank:*", range(500))
    for key in everyone[1:]:
        put(torch_store, key)
    waiting = background.submit(store.wait_for_keys, "rank:*", 500, "1", PATIENCE, everyone)
    for _ in range(5):
        torch_store.looked.clear()
        assert torch_store.looked.wait(PATIENCE)
    looks = list(torch_store.requests)
    put(torch_store, everyone[0])
    assert waiting.result(PATIENCE) == sorted(everyone)
    assert looks == [("check", 500)] * len(looks)
    rest = torch_store.requests[len(looks) :]
    assert [count for kind, count in rest if kind == "check"] == [500] * (len(rest) - 1000)
    assert rest[-1000:] == [("read", 1)] * 1000  # all of them twice, so that there was an instant at which all held


def test_a_look_at_more_keys_than_are_expected_reads_those_that_are_not_settled(
    store: TCPKVStore, torch_store: Recording
) -> None:
    put(torch_store, "rank:0")
    with pytest.raises(WaitTimeoutError):
        store.wait_for_keys("rank:*", 2, timeout=0, candidate_keys=expand("rank:*", range(3)))
    assert torch_store.requests == [("read", 1)] * 3


def test_keys_too_long_for_one_request_are_asked_for_in_several(store: TCPKVStore, torch_store: Recording) -> None:
    everyone = [f"rank:{rank}:{'k' * 2000}" for rank in range(100)]
    for key in everyone:
        put(torch_store, key)
    assert len(store.wait_for_keys("rank:*", 100, timeout=PATIENCE, candidate_keys=everyone)) == 100
    checks = [count for kind, count in torch_store.requests if kind == "check"]
    assert sum(checks) == 100
    assert max(checks) * 2000 < 64 * 1024


def test_a_key_that_changes_its_value_is_seen_though_all_exist(
    store: TCPKVStore, torch_store: Recording, background: ThreadPoolExecutor
) -> None:
    put(torch_store, "rank:0")
    put(torch_store, "rank:1", b"starting")
    waiting = background.submit(store.wait_for_keys, "rank:*", 2, timeout=PATIENCE, candidate_keys=["rank:0", "rank:1"])
    assert torch_store.looked.wait(PATIENCE)
    put(torch_store, "rank:1")
    assert waiting.result(PATIENCE) == ["rank:0", "rank:1"]


def test_a_key_that_was_settled_and_is_gone_is_missed(
    store: TCPKVStore, torch_store: Recording, background: ThreadPoolExecutor
) -> None:
    put(torch_store, "rank:0")
    put(torch_store, "rank:1", b"starting")
    waiting = background.submit(store.wait_for_keys, "rank:*", 2, timeout=1.0, candidate_keys=["rank:0", "rank:1"])
    while ("read", 1) not in torch_store.requests:
        assert torch_store.looked.wait(PATIENCE)
    torch_store.delete_key("job-42/trainer/rank:0")
    put(torch_store, "rank:1")
    with pytest.raises(WaitTimeoutError) as timeout:
        waiting.result(PATIENCE)
    assert (timeout.value.matched, timeout.value.missing) == (["rank:1"], ["rank:0"])


def test_a_time_out_tells_who_is_there_though_the_looks_did_not_ask(store: TCPKVStore, torch_store: Recording) -> None:
    put(torch_store, "rank:0")
    put(torch_store, "rank:1", b"starting")
    with pytest.raises(WaitTimeoutError) as timeout:
        store.wait_for_keys("rank:*", 3, timeout=0.2, candidate_keys=expand("rank:*", range(3)))
    error = timeout.value
    assert (error.matched, error.mismatched, error.missing) == (["rank:0"], {"rank:1": b"starting"}, ["rank:2"])


def test_a_wait_that_goes_on_tells_who_is_there(
    store: TCPKVStore, torch_store: Recording, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(skeleton, "FIRST_REPORT", 0.1)
    caplog.set_level(logging.INFO)
    put(torch_store, "rank:0")
    with pytest.raises(WaitTimeoutError):
        store.wait_for_keys("rank:*", 2, timeout=0.5, candidate_keys=["rank:0", "rank:1"])
    assert "1 of 2 matched; 1 absent: rank:1" in caplog.records[0].getMessage()


def test_many_threads_wait_on_one_store(store: TCPKVStore, torch_store: Recording) -> None:
    everyone = expand("rank:*", range(64))

    def be_a_rank(key: str) -> list[str]:
        store.set(key, "1")
        return store.wait_for_keys("rank:*", 64, timeout=PATIENCE, candidate_keys=everyone)

    with ThreadPoolExecutor(64) as ranks:
        assert list(ranks.map(be_a_rank, everyone)) == [sorted(everyone)] * 64
