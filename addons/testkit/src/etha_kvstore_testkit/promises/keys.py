"""Keys: which texts are keys, and that no two full keys are ever the same."""

from __future__ import annotations

import unicodedata

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import InvalidKeyError
from etha.kvstore.keys import MAX_KEY_BYTES
from etha_kvstore_testkit.harness import COMPONENT, Harness, OpenStores
from etha_kvstore_testkit.observe import PATIENCE

__all__ = ["KeyPromises"]

ODD_KEYS = [
    *("/", "//", "/a", "a/", "a//b", ".", "..", "../a", "a/../b"),
    *("*", "**", "?", "[", "[a]", "{}", "a\\b", "a%2Fb", "%", "a:b", "#", "--", "'", '"', "$a", "~"),
    *(" ", "  ", "a b", " a", "a ", "\t", "\n", "\r\n", "\x01", "\x7f", "\x85", "\u2028", "\ufeff"),
    *("a", "A", "0", "00", "\u043a\u043b\u044e\u0447", "\u6771\u4eac", "\U0001f511", "\U0010ffff"),
]
"""Keys that a careless backend confuses, changes or refuses."""


class KeyPromises(Harness):
    """``{namespace}/{component}/{key}`` holds any key, and two different triples never meet."""

    def test_any_text_is_a_key_and_no_two_are_the_same(self, store: KVStore, other: KVStore) -> None:
        for number, key in enumerate(ODD_KEYS):
            store.set(key, str(number))
        assert {key: other.get(key) for key in ODD_KEYS} == {k: str(n).encode() for n, k in enumerate(ODD_KEYS)}
        assert [key for key in ODD_KEYS if not other.exists(key)] == []
        assert [key for key in ODD_KEYS if other.wait_for_key(key, 0) != store.get(key)] == []
        assert [key for key in ODD_KEYS if not other.delete(key)] == []
        assert [key for key in ODD_KEYS if store.exists(key)] == []

    def test_a_key_that_unicode_composes_differs_from_the_one_it_decomposes(self, store: KVStore) -> None:
        composed, decomposed = unicodedata.normalize("NFC", "\u00e9"), unicodedata.normalize("NFD", "\u00e9")
        store.set(composed, "composed")
        assert store.get(decomposed) is None
        store.set(decomposed, "decomposed")
        assert (store.get(composed), store.get(decomposed)) == (b"composed", b"decomposed")

    @pytest.mark.parametrize("character", ["k", "\u00e9", "\U0001f511"])
    def test_a_full_key_takes_4096_bytes_of_utf8_and_not_one_more(
        self, store: KVStore, other: KVStore, namespace: str, character: str
    ) -> None:
        room = MAX_KEY_BYTES - len(f"{namespace}/{COMPONENT}/")
        wide = len(character.encode())
        longest = character * (room // wide) + "x" * (room % wide)
        store.set(longest, "fits")
        assert other.wait_for_keys("*", 1, "fits", 0, [longest]) == [longest]
        with pytest.raises(InvalidKeyError, match=str(MAX_KEY_BYTES)):
            store.set(longest + "x", "1")
        assert other.get(longest) == b"fits"

    def test_reading_an_absent_key_finds_nothing_and_creates_nothing(self, store: KVStore, other: KVStore) -> None:
        for reader in (store, other, store):
            assert (reader.get("absent"), reader.get_bytes("absent")) == (None, None)
            assert reader.exists("absent") is False
            assert reader.delete("absent") is False
        assert store.wait_for_keys("*", 0, "", 0, ["absent"]) == []

    def test_every_call_takes_another_component(self, store: KVStore, opened: OpenStores) -> None:
        there = opened(component="elsewhere")[0]
        store.set("text", "1", component="elsewhere")
        store.set_bytes("data", b"\xff", component="elsewhere")
        assert (there.get("text"), there.get_bytes("data")) == (b"1", b"\xff")
        assert (store.get("text"), store.get_bytes("data"), store.exists("text")) == (None, None, False)

        assert store.get("text", component="elsewhere") == b"1"
        assert store.get_bytes("data", component="elsewhere") == b"\xff"
        assert store.exists("text", component="elsewhere") is True
        assert store.wait_for_key("text", PATIENCE, component="elsewhere") == b"1"
        assert store.wait_for_value("text", "1", PATIENCE, component="elsewhere") == b"1"
        assert store.wait_for_keys("t*", 1, "1", PATIENCE, ["text"], component="elsewhere") == ["text"]

        assert store.delete("text") is False
        assert store.delete("text", component="elsewhere") is True
        assert there.get("text") is None

    def test_a_namespace_does_not_see_another_whose_name_begins_with_its_own(
        self, store: KVStore, opened: OpenStores, namespace: str
    ) -> None:
        longer = opened(namespace=namespace + "0")[0]
        longer.set("rank:0/ready", "1")
        self._sees_nothing(store)
        assert longer.get("rank:0/ready") == b"1"

    def test_a_component_does_not_see_another_whose_name_begins_with_its_own(
        self, store: KVStore, opened: OpenStores
    ) -> None:
        longer = opened(component=COMPONENT + "0")[0]
        longer.set("rank:0/ready", "1")
        self._sees_nothing(store)
        assert longer.get("rank:0/ready") == b"1"

    def test_a_star_in_a_namespace_or_a_component_means_itself(self, opened: OpenStores, namespace: str) -> None:
        opened(namespace=namespace + "-x", component="cx")[0].set("rank:0/ready", "1")
        starred = opened(namespace=namespace + "*", component="c*")[0]
        self._sees_nothing(starred)
        starred.set("rank:1/ready", "1")
        assert starred.wait_for_keys("rank:*", 1, timeout=0, candidate_keys=["rank:1/ready"]) == ["rank:1/ready"]

    def test_a_name_with_a_slash_is_refused_so_that_no_two_triples_make_one_full_key(
        self, opened: OpenStores, namespace: str
    ) -> None:
        inner = opened(component="b")[0]  # a, b, c/d
        inner.set("c/d", "1")
        with pytest.raises(InvalidKeyError):
            opened(component="b/c")  # a, b/c, d
        with pytest.raises(InvalidKeyError):
            opened(namespace=f"{namespace}/b", component="c")  # a/b, c, d
        with pytest.raises(InvalidKeyError):
            inner.set("d", "2", component="b/c")
        assert inner.get("c/d") == b"1"

    def _sees_nothing(self, store: KVStore) -> None:
        assert store.wait_for_keys("*", 0, timeout=0, candidate_keys=["rank:0/ready"]) == []
        assert (store.get("rank:0/ready"), store.delete("rank:0/ready")) == (None, False)
        if self.has("list_keys"):
            assert store.list_keys() == []
        if self.has("watch"):
            with store.watch() as changes:
                assert changes.state == {}
