"""``store=``: any torch store that the caller has, and what some of them lack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import (  # type: ignore[attr-defined]  # public, but not by torch's types
    FileStore,
    HashStore,
    PrefixStore,
    Store,
    TCPStore,
)

from etha.kvstore.errors import ConfigError, OutcomeUnknownError, StoreUnavailableError, UnsupportedOperationError
from etha.kvstore.patterns import expand
from etha_kvstore_tcpstore import TCPKVStore

MakeStore = Callable[[Path], Any]


def tcp_store(**options: Any) -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, **options)


STORES: dict[str, MakeStore] = {
    "TCPStore": lambda folder: tcp_store(),
    "TCPStore without libuv": lambda folder: tcp_store(use_libuv=False),
    "PrefixStore on TCPStore": lambda folder: PrefixStore("outer", PrefixStore("inner", tcp_store())),
    "HashStore": lambda folder: HashStore(),
    "PrefixStore on HashStore": lambda folder: PrefixStore("prefix", HashStore()),
    "FileStore": lambda folder: FileStore(str(folder / "store"), 1),
}
TELLS_DELETIONS = sorted(STORES.keys() - {"FileStore"})


class WrittenInPython(Store):
    """A torch store with the methods that torch asks of one."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, bytes] = {}

    def set(self, key: str, value: Any) -> None:
        self.held[key] = value

    def get(self, key: str) -> bytes:
        return self.held[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.held for key in keys)

    def deleteKey(self, key: str) -> bool:
        return self.held.pop(key, None) is not None

    def getNumKeys(self) -> int:
        return len(self.held)


class WithCompareSet(WrittenInPython):
    def compare_set(self, key: str, expected: Any, desired: Any) -> bytes:
        found: bytes = self.held.get(key, expected)
        if found == expected and key in self.held:
            self.held[key] = desired
        return found

    def delete_key(self, key: str) -> bool:
        return self.deleteKey(key)


@pytest.fixture(params=STORES)
def torch_store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return STORES[request.param](tmp_path)


def test_two_stores_on_one_torch_store_see_each_other(torch_store: Any) -> None:
    with (
        TCPKVStore("job-42", "trainer", store=torch_store) as one,
        TCPKVStore("job-42", "trainer", store=torch_store) as other,
    ):
        assert other.get("rank:0/ready") is None
        one.set("rank:0/ready", "1")
        one.set("rank:1/ready", "1")
        one.set_bytes("data", b"\xff\0")
        assert other.wait_for_key("rank:0/ready", timeout=60) == b"1"
        found = other.wait_for_keys("rank:*/ready", 2, timeout=60, candidate_keys=expand("rank:*/ready", range(2)))
        assert found == ["rank:0/ready", "rank:1/ready"]
        assert other.get_bytes("data") == b"\xff\0"
        assert other.list_keys() == ["data", "rank:0/ready", "rank:1/ready"]
        assert one.exists("data")
        assert not one.exists("nothing")


def test_listing_shows_nothing_of_others(torch_store: Any) -> None:
    torch_store.set("torch/own/key", "1")
    with TCPKVStore("job-42", "trainer", store=torch_store) as store, TCPKVStore("job", "trainer", store=torch_store):
        store.set("key", "1")
        assert store.list_keys() == ["key"]


@pytest.mark.parametrize("kind", TELLS_DELETIONS)
def test_a_deletion_tells_whether_the_key_was_there(tmp_path: Path, kind: str) -> None:
    with TCPKVStore("job-42", "trainer", store=STORES[kind](tmp_path)) as store:
        store.set("key", "1")
        assert [store.delete("key"), store.delete("key")] == [True, False]


def test_a_store_that_can_not_tell_a_deletion_refuses_it(tmp_path: Path) -> None:
    file_store = FileStore(str(tmp_path / "store"), 1)
    with TCPKVStore("job-42", "trainer", store=file_store) as store:
        store.set("key", "1")
        with pytest.raises(UnsupportedOperationError, match="FileStore"):
            store.delete("key")
        assert store.get("key") == b"1"


def test_the_torch_store_stays_the_callers(torch_store: Any) -> None:
    with TCPKVStore("job-42", "trainer", store=torch_store) as store:
        store.set("key", "1")
    assert torch_store.get("job-42/trainer/key") == b"1"
    torch_store.set("job-42/trainer/key", "2")
    with TCPKVStore("job-42", "trainer", store=torch_store) as store:
        assert store.get("key") == b"2"


def test_a_store_that_would_block_on_an_absent_key_is_refused() -> None:
    written = WrittenInPython()
    with pytest.raises(ConfigError, match="WrittenInPython has no working compare_set"):
        TCPKVStore("job-42", "trainer", store=written)
    assert written.held == {}


def test_a_store_written_in_python_serves_if_it_can_compare_and_set() -> None:
    with TCPKVStore("job-42", "trainer", store=WithCompareSet()) as store:
        store.set("key", "1")
        assert (store.get("key"), store.get("absent")) == (b"1", None)
        assert store.delete("key")
        with pytest.raises(UnsupportedOperationError, match="WithCompareSet"):
            store.list_keys()
        assert store.get("key") is None


def test_what_a_store_written_in_python_raises_is_told_in_the_contracts_words() -> None:
    class Moody(WithCompareSet):
        def check(self, keys: list[str]) -> bool:
            if keys == ["job-42/trainer/key"]:
                raise LookupError("not today")
            return super().check(keys)

    with TCPKVStore("job-42", "trainer", store=Moody()) as store:
        with pytest.raises(StoreUnavailableError, match="Moody failed with LookupError") as failure:
            store.exists("key")
        assert isinstance(failure.value.__cause__, LookupError)
        with pytest.raises(OutcomeUnknownError):
            store.set("key", "1")
        assert store.get("key") == b"1"


def test_where_it_is_connected_is_shown() -> None:
    server = tcp_store()
    with TCPKVStore("job-42", "trainer", store=PrefixStore("prefix", server)) as store:
        assert (store.host, store.port) == ("127.0.0.1", server.port)
        assert f"at 127.0.0.1:{server.port}>" in repr(store)
    with TCPKVStore("job-42", "trainer", store=HashStore()) as store:
        assert (store.host, store.port) == (None, None)
        assert "at the caller's HashStore>" in repr(store)


def test_a_host_waits_for_a_store_on_a_torch_store_too(caplog: pytest.LogCaptureFixture) -> None:
    host = TCPKVStore("job-42", "trainer", host="127.0.0.1", port=0, is_master=True, timeout=0.3)
    assert host.port is not None
    client = TCPStore("127.0.0.1", host.port, wait_for_workers=False)
    guest = TCPKVStore("job-42", "trainer", store=PrefixStore("prefix", client))
    host.close()
    assert "while 1 stores were still connected" in caplog.text
    guest.close()


def test_a_torch_store_whose_server_is_gone_is_not_opened() -> None:
    server = tcp_store()
    client = TCPStore("127.0.0.1", server.port, wait_for_workers=False)
    del server
    with pytest.raises(StoreUnavailableError):
        TCPKVStore("job-42", "trainer", store=client)
