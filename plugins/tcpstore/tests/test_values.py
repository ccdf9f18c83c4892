"""What is stored, byte for byte, and that no value can be taken for an absent key."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types

from etha.kvstore.errors import UnsupportedOperationError, ValueDecodeError, ValueTooLargeError
from etha_kvstore_tcpstore import TCPKVStore
from etha_kvstore_tcpstore.requests import ABSENT
from tcpstore_host import TorchHost

if TYPE_CHECKING:
    from plugins.tcpstore.tests.conftest import OpenStore

LIMIT = 8 * 1024 * 1024


@pytest.fixture
def store(host: TorchHost, open_store: OpenStore) -> TCPKVStore:
    return open_store(host="127.0.0.1", port=host.port)


@pytest.fixture
def torch_store(host: TorchHost) -> TCPStore:
    """What another program sees."""
    return TCPStore("127.0.0.1", host.port, wait_for_workers=False)


def test_what_stands_for_absence_is_nothing_that_set_or_set_bytes_can_store() -> None:
    with pytest.raises(UnicodeDecodeError):
        ABSENT.decode()
    with pytest.raises(binascii.Error):
        base64.b64decode(ABSENT, validate=True)


def test_the_bytes_that_stand_for_absence_are_a_value_like_any_other(store: TCPKVStore) -> None:
    store.set_bytes("key", ABSENT)
    assert store.get_bytes("key") == ABSENT
    with pytest.raises(ValueError, match="set_bytes"):
        store.set("key", ABSENT.decode(errors="surrogateescape"))
    assert store.get_bytes("key") == ABSENT


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(), data=st.binary())
def test_every_value_comes_back_and_exists(store: TCPKVStore, text: str, data: bytes) -> None:
    store.set("text", text)
    store.set_bytes("data", data)
    assert store.get("text") == store.wait_for_key("text", 0) == text.encode()
    assert store.get_bytes("data") == data
    assert store.exists("text")
    assert store.exists("data")


def test_another_program_finds_text_as_it_is_and_binary_data_in_base64(
    store: TCPKVStore, torch_store: TCPStore
) -> None:
    everything = bytes(range(256))
    store.set("text", "\u00e4\0")
    store.set_bytes("data", everything)
    prefix = f"{store.namespace}/{store.component}/"
    assert torch_store.get(prefix + "text") == "\u00e4\0".encode()
    assert torch_store.get(prefix + "data") == base64.b64encode(everything)


def test_what_another_program_wrote_is_read_as_it_is(store: TCPKVStore, torch_store: TCPStore) -> None:
    prefix = f"{store.namespace}/{store.component}/"
    torch_store.set(prefix + "text", "1")
    torch_store.set(prefix + "data", base64.b64encode(b"\xff\0").decode())
    assert store.wait_for_value("text", "1", timeout=60) == b"1"
    assert store.get_bytes("data") == b"\xff\0"


@pytest.mark.parametrize("text", ["1", "not base64!", "=", "YQ", "YQ==YQ==", "\u00e4\u00e4", "YQ==\n"])
def test_what_is_not_base64_is_not_decoded(store: TCPKVStore, text: str) -> None:
    store.set("key", text)
    with pytest.raises(ValueDecodeError, match=r"'key'.*base64"):
        store.get_bytes("key")
    assert store.get("key") == text.encode()


def test_a_value_of_the_limit_fits_and_a_longer_one_is_never_sent(store: TCPKVStore) -> None:
    store.set("key", "v" * LIMIT)
    with pytest.raises(ValueTooLargeError, match=f"takes {LIMIT + 1} bytes .* at most {LIMIT}") as refusal:
        store.set("key", "w" * (LIMIT + 1))
    assert (refusal.value.size, refusal.value.limit) == (LIMIT + 1, LIMIT)
    assert store.get("key") == b"v" * LIMIT


def test_the_limit_of_set_bytes_is_that_of_its_base64(store: TCPKVStore) -> None:
    most = LIMIT // 4 * 3
    store.set_bytes("key", b"\xff" * most)
    with pytest.raises(ValueTooLargeError) as refusal:
        store.set_bytes("key", b"\0" * (most + 1))
    assert refusal.value.size == LIMIT + 4
    assert store.get_bytes("key") == b"\xff" * most


def test_a_key_of_another_program_that_is_not_utf_8_harms_nothing_but_torchs_own_listing() -> None:
    own: Any = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    foreign: Any = b"\xff"
    own.set(foreign, "1")
    with TCPKVStore("job-42", "trainer", host="127.0.0.1", port=own.port) as linked:
        linked.set("key", "1")
        assert linked.list_keys() == ["key"]
    with TCPKVStore("job-42", "trainer", store=own) as given:
        with pytest.raises(UnsupportedOperationError, match="not UTF-8"):
            given.list_keys()
        assert given.get("key") == b"1"


@pytest.mark.parametrize("key", ["a b", "\u00e9\U0001f511", "//", "*", "k\n", "k" * 4000])
def test_every_key_of_the_contract_is_one_of_torchs(store: TCPKVStore, key: str) -> None:
    store.set(key, "1")
    assert store.get(key) == b"1"
    assert store.list_keys() == [key]
    assert store.delete(key)
    assert not store.exists(key)


def test_a_full_key_of_4096_bytes_is_taken(store: TCPKVStore) -> None:
    key = "k" * (4096 - len(f"{store.namespace}/{store.component}/"))
    store.set(key, "1")
    assert store.wait_for_keys("k*", 1, timeout=60, candidate_keys=[key]) == [key]
