"""What a store is given is checked before the backend hears of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from etha.kvstore.errors import InvalidKeyError
from etha.kvstore.keys import MAX_KEY_BYTES
from small_stores import CALLS, WAITS, DictStore, ListingStore


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "k" * MAX_KEY_BYTES])
def test_a_key_that_breaks_a_rule_never_reaches_the_backend(
    call: Callable[[DictStore, Any], object], key: str, store: DictStore
) -> None:
    with pytest.raises(InvalidKeyError):
        call(store, key)
    assert store.deadlines == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("key", [None, 1, b"k", ["k"]])
def test_a_key_that_is_no_str_never_reaches_the_backend(
    call: Callable[[DictStore, Any], object], key: object, store: DictStore
) -> None:
    with pytest.raises(TypeError, match=f"is a str, not {type(key).__name__}"):
        call(store, key)
    assert store.deadlines == []


@pytest.mark.parametrize("component", ["", "a/b", "c\0", "\ud800"])
def test_another_component_is_checked_like_the_stores_own(component: str, store: DictStore) -> None:
    for call in (store.get, store.exists, store.delete, store.wait_for_key, store.list_keys, store.watch):
        with pytest.raises(InvalidKeyError, match="component"):
            call("k", component=component)


@pytest.mark.parametrize("component", [0, False, b"c", ["c"]])
def test_a_component_that_is_no_str_is_a_type_error_that_says_so(component: Any, store: DictStore) -> None:
    with pytest.raises(TypeError, match=f"a component is a str, not {type(component).__name__}"):
        store.get("k", component=component)


@pytest.mark.parametrize("value", [b"1", bytearray(b"1"), memoryview(b"1")])
def test_bytes_for_set_are_a_type_error_that_names_set_bytes(value: Any, store: DictStore) -> None:
    with pytest.raises(TypeError, match=rf"'k' is a str, not {type(value).__name__}; set_bytes\(\) takes bytes"):
        store.set("k", value)


@pytest.mark.parametrize("value", [None, 1, 1.5, ["1"]])
def test_a_value_that_is_no_text_is_a_type_error(value: Any, store: DictStore) -> None:
    with pytest.raises(TypeError, match=f"is a str, not {type(value).__name__}"):
        store.set("k", value)
    with pytest.raises(TypeError, match=rf"set_bytes\('k'\) takes bytes, not {type(value).__name__}"):
        store.set_bytes("k", value)


def test_text_for_set_bytes_is_a_type_error_that_names_set(store: DictStore) -> None:
    with pytest.raises(TypeError, match=r"takes bytes, not str; set\(\) takes a str"):
        store.set_bytes("k", "1")  # type: ignore[arg-type]


def test_text_that_utf8_cannot_say_is_refused(store: DictStore) -> None:
    with pytest.raises(ValueError, match=r"can't be said in UTF-8.*set_bytes\(\)"):
        store.set("k", "\ud800")


@pytest.mark.parametrize("value", [b"1", "\ud800", 1])
def test_a_value_to_wait_for_is_checked_without_advice_on_writing(value: Any, store: DictStore) -> None:
    error = ValueError if isinstance(value, str) else TypeError
    with pytest.raises(error) as by_key:
        store.wait_for_value("k", value, timeout=0)
    with pytest.raises(error) as by_pattern:
        store.wait_for_keys("k*", 1, value, timeout=0, candidate_keys=["k"])
    for caught in (by_key, by_pattern):
        assert "set_bytes" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00.\xff")[::2], b""])
def test_set_bytes_takes_all_that_is_bytes(data: Any, store: DictStore) -> None:
    store.set_bytes("k", data)
    assert store.get_bytes("k") == bytes(data)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, -math.inf, -(10**400)])
def test_a_negative_timeout_or_nan_is_a_value_error(
    wait: Callable[[DictStore, Any], object], timeout: float, store: DictStore
) -> None:
    with pytest.raises(ValueError, match="a timeout is a number of seconds that is not negative"):
        wait(store, timeout)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("timeout", [None, "5", b"5", True, [5], 5j])
def test_a_timeout_that_is_no_number_is_a_type_error(
    wait: Callable[[DictStore, Any], object], timeout: object, store: DictStore
) -> None:
    with pytest.raises(TypeError, match=f"a timeout is a number of seconds, not {type(timeout).__name__}"):
        wait(store, timeout)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("timeout", [0, 0.0, 1, 30 * 86400, 1e300, math.inf, 10**400])
def test_a_wait_that_is_satisfied_returns_at_once_whatever_its_timeout(
    wait: Callable[[DictStore, Any], object], timeout: float, store: DictStore
) -> None:
    store.set("k", "1")
    assert wait(store, timeout) in (b"1", ["k"])


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan])
def test_the_operation_timeout_is_a_positive_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        DictStore(timeout=timeout)


@pytest.mark.parametrize("count", [True, 1.0, "1", None])
def test_an_expected_count_that_is_no_int_is_a_type_error(count: Any, store: DictStore) -> None:
    with pytest.raises(TypeError, match=f"expected_count is an int, not {type(count).__name__}"):
        store.wait_for_keys("k*", count, candidate_keys=["k"])


def test_a_negative_count_is_a_value_error_and_an_integer_of_another_kind_is_not(store: DictStore) -> None:
    with pytest.raises(ValueError, match="not negative, but -1 was given"):
        store.wait_for_keys("k*", -1, candidate_keys=["k"])

    class Int64:
        def __index__(self) -> int:
            return 1

    store.set("k", "1")
    assert store.wait_for_keys("k*", Int64(), candidate_keys=["k"]) == ["k"]  # type: ignore[arg-type]


@pytest.mark.parametrize("candidates", ["k", b"k"])
def test_candidates_are_a_list_and_not_one_text(candidates: Any, listing: ListingStore) -> None:
    with pytest.raises(TypeError, match=f"candidate_keys is a list of str, not {type(candidates).__name__}"):
        listing.wait_for_keys("k*", 1, candidate_keys=candidates)


def test_a_backend_that_needs_candidates_says_at_once_how_to_make_them(store: DictStore) -> None:
    with pytest.raises(ValueError, match="give candidate_keys, for instance") as caught:
        store.wait_for_keys("rank:*/ready", 2)
    assert "backend 'dict'" in str(caught.value)
    assert "etha.kvstore.patterns.expand('rank:*/ready', range(n))" in str(caught.value)


@pytest.mark.parametrize("candidates", [[], ["rank:0"], ["rank:0", "rank:0"], ["rank:0", "elsewhere"]])
def test_too_few_fitting_candidates_are_refused_at_once(candidates: list[str], store: DictStore) -> None:
    with pytest.raises(ValueError, match=r"2 keys are expected, but only \d of candidate_keys fit 'rank:\*'"):
        store.wait_for_keys("rank:*", 2, candidate_keys=candidates)
