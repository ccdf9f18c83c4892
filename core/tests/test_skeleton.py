"""What the skeleton hands to a backend: full keys, deadlines, and nothing that it did not declare."""

from __future__ import annotations

from time import monotonic

import pytest

from etha.kvstore.errors import UnsupportedOperationError, ValueTooLargeError, WaitTimeoutError
from small_stores import CALLS, DictStore, ListingStore


@pytest.mark.parametrize("name", ["get", "set", "get_bytes", "set_bytes", "exists", "delete"])
def test_each_call_has_the_operation_timeout_as_its_deadline(name: str) -> None:
    store = DictStore(timeout=123.0)
    before = monotonic()
    CALLS[name](store, "k")
    [deadline] = store.deadlines
    assert before + 123.0 <= deadline <= monotonic() + 123.0


def test_close_has_the_operation_timeout_as_its_deadline() -> None:
    store = DictStore(timeout=123.0)
    before = monotonic()
    store.close()
    [deadline] = store.deadlines
    assert before + 123.0 <= deadline <= monotonic() + 123.0


def test_the_keys_of_one_component_are_not_those_of_another(store: DictStore) -> None:
    store.set("k", "own")
    store.set("k", "theirs", component="inference")
    assert store.kept == {b"job-42/trainer/k": b"own", b"job-42/inference/k": b"theirs"}
    assert (store.get("k"), store.get("k", component="inference")) == (b"own", b"theirs")
    assert store.get("k", component="trainer") == b"own"
    assert store.delete("k", component="inference")
    assert store.exists("k")
    assert not store.exists("k", component="inference")


def test_what_the_backend_stores_for_set_bytes_is_its_own_affair(listing: ListingStore) -> None:
    listing.set_bytes("k", b"\x00\xff")
    assert listing.get("k") == b"00ff"
    assert listing.get_bytes("k") == b"\x00\xff"
    assert listing.get_bytes("absent") is None


def test_listed_keys_are_relative_sorted_and_only_those_that_match(listing: ListingStore) -> None:
    for key in ("rank:1/ready", "rank:0/ready", "rank:0/done", "ä/b"):
        listing.set(key, "1")
    listing.set("rank:2/ready", "1", component="inference")
    assert listing.list_keys("rank:*/ready") == ["rank:0/ready", "rank:1/ready"]
    assert listing.list_keys() == ["rank:0/done", "rank:0/ready", "rank:1/ready", "ä/b"]
    assert listing.list_keys("*", component="inference") == ["rank:2/ready"]
    assert [listing.get(key) for key in listing.list_keys()] == [b"1"] * 4


def test_a_star_in_a_name_means_itself() -> None:
    store = ListingStore("job*", "t*")
    store.set("k", "1")
    store.kept[b"job42/trainer/k"] = b"of another job"
    assert store.list_keys() == ["k"]
    assert store.wait_for_keys("*", 1, timeout=0) == ["k"]
    store.set("literal*", "1")
    assert store.wait_for_key("literal*", timeout=0) == b"1"
    assert store.wait_for_keys("literal*", 1, timeout=0) == ["literal*"]
    store.set("key", "1")
    with pytest.raises(WaitTimeoutError):
        store.wait_for_key("ke*", timeout=0)
    with pytest.raises(WaitTimeoutError):
        store.wait_for_value("ke*", "1", timeout=0)


@pytest.mark.parametrize("name", ["list_keys", "watch"])
def test_a_capability_that_is_not_declared_is_refused_by_name(name: str, store: DictStore) -> None:
    with pytest.raises(UnsupportedOperationError, match=f"backend 'dict' lacks the capability '{name}'"):
        getattr(store, name)()


def test_a_refused_size_names_the_key_the_size_and_the_limit(store: DictStore) -> None:
    error = store._refuse_size(b"job-42/trainer/a/b", 9, 8)
    assert isinstance(error, ValueTooLargeError)
    assert str(error) == "the value for 'a/b' takes 9 bytes and backend 'dict' holds at most 8; nothing was sent"
    assert (error.size, error.limit) == (9, 8)
