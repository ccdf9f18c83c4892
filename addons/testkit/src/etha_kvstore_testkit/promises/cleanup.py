"""``close(cleanup=True)``: deletes the store's own writes where the capability ``cleanup`` is declared."""

from __future__ import annotations

from etha_kvstore_testkit.harness import Harness, OpenStores

__all__ = ["CleanupPromises"]


class CleanupPromises(Harness):
    """Clean-up reaches what this store wrote and nobody has overwritten since, and nothing else.

    A key that it reaches is gone afterwards on a backend with the capability, and as it was on one without.
    """

    def test_it_deletes_what_this_store_wrote(self, opened: OpenStores) -> None:
        beside, store = opened(2)
        store.set("text", "1")
        store.set("text", "2")
        store.set_bytes("data", b"\xff")
        store.set("key", "1", component="elsewhere")
        store.close(cleanup=True)
        cleaned = self.has("cleanup")
        assert beside.get("text") == (None if cleaned else b"2")
        assert beside.get_bytes("data") == (None if cleaned else b"\xff")
        assert beside.get("key", component="elsewhere") == (None if cleaned else b"1")

    def test_it_is_the_default_and_leaving_the_block_does_it(self, opened: OpenStores) -> None:
        beside, first, second = opened(3)
        first.set("first", "1")
        first.close()
        with second:
            second.set("second", "1")
        left = None if self.has("cleanup") else b"1"
        assert (beside.get("first"), beside.get("second")) == (left, left)

    def test_without_it_all_keys_stay(self, opened: OpenStores) -> None:
        beside, store = opened(2)
        store.set("key", "1")
        store.close(cleanup=False)
        store.close(cleanup=True)  # the second call does nothing
        assert beside.get("key") == b"1"

    def test_it_never_deletes_what_another_store_has_overwritten_even_with_the_same_value(
        self, opened: OpenStores
    ) -> None:
        beside, store = opened(2)
        for key in ("changed", "rewritten", "made again"):
            store.set(key, "1")
        beside.set("changed", "2")
        beside.set("rewritten", "1")
        beside.delete("made again")
        beside.set("made again", "1")
        store.close(cleanup=True)
        assert [beside.get(key) for key in ("changed", "rewritten", "made again")] == [b"2", b"1", b"1"]

    def test_it_never_deletes_the_keys_of_others(self, opened: OpenStores, namespace: str) -> None:
        beside, store = opened(2)
        neighbours = [beside, opened(component="elsewhere")[0], opened(namespace=namespace + "0")[0]]
        store.set("key", "1")
        for neighbour in neighbours:
            neighbour.set("key/of-another", "1")
            neighbour.set("kez", "1")
        assert store.get("kez") == b"1"
        assert store.delete("nobody-wrote-this") is False
        store.close(cleanup=True)
        for neighbour in neighbours:
            assert (neighbour.get("key/of-another"), neighbour.get("kez")) == (b"1", b"1")

    def test_what_this_store_wrote_and_deleted_is_nothing_to_clean(self, opened: OpenStores) -> None:
        beside, store = opened(2)
        store.set("key", "1")
        store.delete("key")
        beside.set("key", "2")
        store.close(cleanup=True)
        assert beside.get("key") == b"2"
