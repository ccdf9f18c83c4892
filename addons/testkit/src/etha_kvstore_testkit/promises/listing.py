"""`list_keys`: works where the capability ``list_keys`` is declared, and refuses by name where it is not."""

from __future__ import annotations

import pytest

from etha.kvstore.base import KVStore
from etha_kvstore_testkit.harness import Harness, OpenStores
from etha_kvstore_testkit.tables import PATTERNS, PatternCase

__all__ = ["ListingPromises"]


class ListingPromises(Harness):
    """A listing is the keys that match now, sorted, as `get` takes them."""

    def test_it_lists_what_is_there_now_sorted(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("list_keys", store.list_keys):
            return
        assert store.list_keys() == []
        keys = ["b", "a/b", "a", "B", "\u00e9", "\U0001f511", "a b", "//"]
        for key in keys:
            other.set(key, "")
        other.set_bytes("data", b"\xff")
        assert store.list_keys() == sorted([*keys, "data"])
        other.delete("data")
        assert store.list_keys() == sorted(keys)

    @pytest.mark.parametrize("case", PATTERNS, ids=lambda case: case.pattern)
    def test_it_lists_the_keys_that_match_whatever_their_values(
        self, store: KVStore, other: KVStore, case: PatternCase
    ) -> None:
        for number, key in enumerate([*case.others, *case.matching]):
            other.set(key, str(number))
        if not self.lacks("list_keys", lambda: store.list_keys(case.pattern)):
            assert store.list_keys(case.pattern) == sorted(case.matching)

    def test_what_it_lists_can_be_passed_to_get(self, store: KVStore) -> None:
        values = {f"rank:{rank}/ready": str(rank).encode() for rank in range(20)}
        for key, value in values.items():
            store.set(key, value.decode())
        if not self.lacks("list_keys", store.list_keys):
            assert {key: store.get(key) for key in store.list_keys("rank:*")} == values

    def test_it_lists_more_keys_than_a_page_of_a_server_holds(self, store: KVStore, other: KVStore) -> None:
        if self.lacks("list_keys", store.list_keys):
            return
        keys = [f"rank:{rank:04}" for rank in range(1100)]
        for key in keys:
            other.set(key, "1")
        assert store.list_keys() == keys

    def test_it_lists_another_component_and_no_neighbour(self, store: KVStore, opened: OpenStores) -> None:
        for component in ("elsewhere", "elsewhere0", "elsewher"):
            opened(component=component)[0].set(f"of-{component}", "1")
        if self.lacks("list_keys", lambda: store.list_keys(component="elsewhere")):
            return
        assert store.list_keys(component="elsewhere") == ["of-elsewhere"]
        assert store.list_keys() == []
