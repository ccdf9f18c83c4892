"""Values: what is written comes back, at once, for every reader."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import ValueDecodeError, ValueTooLargeError
from etha_kvstore_testkit.harness import Harness
from etha_kvstore_testkit.observe import PATIENCE, in_background

__all__ = ["ValuePromises"]

TEXTS = [
    "1",
    "",
    " ",
    "\n",
    "a\0b",
    "0",
    "None",
    "e\u0301 \u00e9",
    "\u6771\u4eac",
    "\U0001f511",
    "=",
    "AAA=",
    "x" * 65_536,
]

DATA = [b"\x80", b"", b"\0", b"\xff\xfe", b"1", b"AAA=", bytes(range(256)), bytes(range(256)) * 512]

MEBIBYTE = 1 << 20


class ValuePromises(Harness):
    """`set` and `get`, `set_bytes` and `get_bytes`, `exists`, `delete`."""

    @pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:12]))
    def test_get_returns_the_utf8_of_what_set_was_given(self, store: KVStore, other: KVStore, text: str) -> None:
        store.set("text", text)
        for reader in (store, other):
            found = reader.get("text")
            assert (type(found), found) == (bytes, text.encode())
            assert reader.exists("text") is True

    @pytest.mark.parametrize("data", DATA, ids=lambda data: repr(data[:4]))
    def test_get_bytes_returns_exactly_what_set_bytes_was_given(
        self, store: KVStore, other: KVStore, data: bytes
    ) -> None:
        store.set_bytes("data", data)
        for reader in (store, other):
            found = reader.get_bytes("data")
            assert (type(found), found) == (bytes, data)
            assert reader.exists("data") is True

    def test_get_bytes_of_a_text_returns_it_or_says_that_set_bytes_did_not_write_it(self, store: KVStore) -> None:
        store.set("text", "not base64!")
        reading = in_background(store.get_bytes, "text")
        if (error := reading.exception(PATIENCE)) is None:
            assert reading.result() == b"not base64!"
        else:
            assert isinstance(error, ValueDecodeError)
            assert "text" in str(error)

    def test_the_last_write_wins_whoever_made_it(self, store: KVStore, other: KVStore) -> None:
        store.set("key", "first")
        other.set("key", "second")
        assert (store.get("key"), other.get("key")) == (b"second", b"second")
        store.set_bytes("key", b"\xff third")
        assert (store.get_bytes("key"), other.get_bytes("key")) == (b"\xff third", b"\xff third")
        other.set("key", "")
        assert (store.get("key"), other.get("key")) == (b"", b"")

    def test_a_write_is_seen_by_every_reader_as_soon_as_it_returns(self, store: KVStore, other: KVStore) -> None:
        for number in range(100):
            writer, reader = (store, other) if number % 2 else (other, store)
            writer.set("counter", str(number))
            assert reader.get("counter") == str(number).encode()
            assert reader.wait_for_value("counter", str(number), 0) == str(number).encode()

    def test_delete_tells_whether_it_deleted(self, store: KVStore, other: KVStore) -> None:
        assert store.delete("key") is False
        store.set("key", "1")
        assert other.delete("key") is True
        assert store.delete("key") is False
        assert other.delete("key") is False

    def test_a_deleted_key_is_absent_until_it_is_written_again(self, store: KVStore, other: KVStore) -> None:
        store.set("key", "1")
        store.delete("key")
        for reader in (store, other):
            assert (reader.get("key"), reader.get_bytes("key"), reader.exists("key")) == (None, None, False)
        other.set("key", "2")
        for reader in (store, other):
            assert (reader.get("key"), reader.exists("key")) == (b"2", True)

    @pytest.mark.parametrize("text", ["", "0", "1"])
    def test_a_key_exists_whatever_its_value(self, store: KVStore, other: KVStore, text: str) -> None:
        assert store.exists("key") is False
        store.set("key", text)
        assert (store.exists("key"), other.exists("key")) == (True, True)
        assert other.delete("key") is True

    def test_a_value_as_large_as_the_limit_is_stored_and_a_larger_one_is_refused(
        self, store: KVStore, other: KVStore
    ) -> None:
        largest = "x" * (MEBIBYTE if self.value_limit is None else self.value_limit)
        store.set("limit", largest)
        assert other.get("limit") == largest.encode()
        if self.value_limit is None:
            return
        store.set("limit", "old")
        writes: list[Callable[[], None]] = [
            lambda: store.set("limit", largest + "x"),
            lambda: store.set("limit", "\u00e9" * (len(largest) // 2 + 1)),
            lambda: store.set_bytes("limit", largest.encode() + b"x"),
        ]
        for write in writes:
            with pytest.raises(ValueTooLargeError) as refusal:
                write()
            size, limit = refusal.value.size, refusal.value.limit
            assert size is not None
            assert limit is not None
            assert size > limit
            assert str(size) in str(refusal.value)
            assert str(limit) in str(refusal.value)
            assert (store.get("limit"), other.get("limit")) == (b"old", b"old")
