"""The skeleton: what it keeps for every backend, on small stores over a dict."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any

import pytest

from etha.kvstore import skeleton
from etha.kvstore.base import Change
from etha.kvstore.errors import (
    InvalidKeyError,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
    ValueTooLargeError,
    WaitTimeoutError,
)
from etha.kvstore.follow import Batch, Follower, Outage, PollingFollower, PushFollower, Selector
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.keys import MAX_KEY_BYTES
from etha.kvstore.patterns import expand
from etha.kvstore.skeleton import SkeletalStore

InBackground = Callable[..., "Future[Any]"]


class DictStore(SkeletalStore):
    """The smallest backend: three methods over a dict. It notes what reaches it."""

    spec = BackendSpec("dict", "test_skeleton:DictStore", "a dict", contract=1)

    def __init__(self, namespace: str = "job-42", component: str = "trainer", *, timeout: float = 10.0) -> None:
        super().__init__(namespace, component, timeout=timeout)
        self.kept: dict[bytes, bytes] = {}
        self.deadlines: list[float] = []
        self.released: list[bool] = []

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        self.deadlines.append(deadline)
        return self.kept.get(key)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        self.deadlines.append(deadline)
        self.kept[key] = value

    def _remove(self, key: bytes, deadline: float) -> bool:
        self.deadlines.append(deadline)
        return self.kept.pop(key, None) is not None

    def _release(self, cleanup: bool, deadline: float) -> None:
        self.deadlines.append(deadline)
        self.released.append(cleanup)


class ListingStore(DictStore):
    """One that can look by pattern, and stores what `set_bytes` is given as hexadecimal text."""

    spec = BackendSpec(
        "listing",
        "test_skeleton:ListingStore",
        "a dict that lists",
        contract=1,
        capabilities=frozenset({"list_keys", "waits_by_pattern"}),
    )

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        self.deadlines.append(deadline)
        return [(key, value) for key, value in self.kept.items() if key.startswith(prefix)]

    def _encode(self, data: bytes) -> bytes:
        return data.hex().encode()

    def _decode(self, key: str, stored: bytes) -> bytes:
        return bytes.fromhex(stored.decode())


class FedStore(ListingStore):
    """One whose followers are the test's to feed."""

    spec = BackendSpec(
        "fed",
        "test_skeleton:FedStore",
        "followers fed by hand",
        contract=1,
        capabilities=frozenset({"list_keys", "watch", "waits_by_pattern"}),
    )

    def __init__(self, follower: Follower) -> None:
        super().__init__()
        self.follower = follower

    def _follow(self, selector: Selector) -> Follower:
        return self.follower


@pytest.fixture
def store() -> Iterator[DictStore]:
    with DictStore() as opened:
        yield opened


@pytest.fixture
def listing() -> Iterator[ListingStore]:
    with ListingStore() as opened:
        yield opened


CALLS: dict[str, Callable[[DictStore, Any], object]] = {
    "get": lambda store, key: store.get(key),
    "set": lambda store, key: store.set(key, "1"),
    "get_bytes": lambda store, key: store.get_bytes(key),
    "set_bytes": lambda store, key: store.set_bytes(key, b"1"),
    "exists": lambda store, key: store.exists(key),
    "delete": lambda store, key: store.delete(key),
    "wait_for_key": lambda store, key: store.wait_for_key(key, timeout=0),
    "wait_for_value": lambda store, key: store.wait_for_value(key, "1", timeout=0),
    "wait_for_keys": lambda store, key: store.wait_for_keys(key, 0, timeout=0, candidate_keys=[]),
    "candidate_keys": lambda store, key: store.wait_for_keys("*", 0, timeout=0, candidate_keys=[key]),
    "list_keys": lambda store, key: store.list_keys(key),
    "watch": lambda store, key: store.watch(key),
}
"""Every method that takes a key or a pattern."""

WAITS: dict[str, Callable[[DictStore, Any], object]] = {
    "wait_for_key": lambda store, timeout: store.wait_for_key("k", timeout),
    "wait_for_value": lambda store, timeout: store.wait_for_value("k", "1", timeout),
    "wait_for_keys": lambda store, timeout: store.wait_for_keys("k*", 1, "1", timeout, ["k"]),
}


# --- arguments ---


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


# --- what reaches the backend ---


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


# --- waits ---


def test_an_empty_value_is_a_value(store: DictStore) -> None:
    store.set("k", "")
    assert store.wait_for_key("k", timeout=0) == b""
    assert store.wait_for_value("k", "", timeout=0) == b""


def test_a_wait_for_keys_returns_all_that_hold_the_value_sorted(listing: ListingStore) -> None:
    for rank in (2, 0, 1):
        listing.set(f"rank:{rank}", "1")
    listing.set("rank:3", "0")
    assert listing.wait_for_keys("rank:*", 2, timeout=0) == ["rank:0", "rank:1", "rank:2"]
    assert listing.wait_for_keys("rank:*", 1, "0", timeout=0) == ["rank:3"]
    assert listing.wait_for_keys("rank:*", 0, "7", timeout=0) == []


def test_candidates_are_all_that_is_looked_at_where_they_are_needed_and_ignored_elsewhere(
    store: DictStore, listing: ListingStore
) -> None:
    for each in (store, listing):
        each.set("rank:0", "1")
        each.set("rank:1", "1")
    assert store.wait_for_keys("rank:*", 1, timeout=0, candidate_keys=["rank:1", "rank:1", "else"]) == ["rank:1"]
    assert listing.wait_for_keys("rank:*", 1, timeout=0, candidate_keys=["rank:1"]) == ["rank:0", "rank:1"]


def test_a_wait_sees_what_another_thread_writes(store: DictStore, in_background: InBackground) -> None:
    wait = in_background(store.wait_for_value, "k", "7")
    store.set("k", "6")
    store.set("k", "7")
    assert wait.result(30) == b"7"


def test_a_key_that_never_came_is_named_with_the_facts_as_attributes(store: DictStore) -> None:
    with pytest.raises(WaitTimeoutError, match=r"timed out waiting for key 'k' to exist, waited 0\.0 s") as caught:
        store.wait_for_key("k", timeout=0)
    assert "0 of 1 matched; 1 absent: k" in str(caught.value)
    assert (caught.value.missing, caught.value.matched, caught.value.expected_count) == (["k"], [], 1)
    assert 0 <= caught.value.waited < 5
    assert caught.value.unreachable_for is None


def test_a_value_that_never_came_is_named_with_the_one_that_was_there(store: DictStore) -> None:
    store.set("version", "6")
    with pytest.raises(WaitTimeoutError, match="key 'version' to be '7'") as caught:
        store.wait_for_value("version", "7", timeout=0)
    assert "0 of 1 matched; 1 hold another value: version=b'6'" in str(caught.value)
    assert (caught.value.mismatched, caught.value.missing) == ({"version": b"6"}, [])


@pytest.mark.parametrize("kind", [DictStore, ListingStore])
def test_a_time_out_names_the_first_ten_of_each_kind_and_counts_the_rest(kind: type[DictStore]) -> None:
    store = kind()
    for rank in range(100, 103):
        store.set(f"rank:{rank}", "1")
    for rank in range(200, 212):
        store.set(f"rank:{rank}", "0")
    candidates = expand("rank:*", [*range(300, 315), *range(100, 103), *range(200, 212)])
    with pytest.raises(WaitTimeoutError) as caught:
        store.wait_for_keys("rank:*", 30, timeout=0, candidate_keys=candidates)
    said = str(caught.value)
    assert said.startswith("timed out waiting for 30 keys matching 'rank:*' to be '1', waited 0.0 s: 3 of 30 matched; ")
    others = ", ".join(f"rank:{rank}=b'0'" for rank in range(200, 210))
    absent = ", ".join(f"rank:{rank}" for rank in range(300, 310))
    assert f"; 12 hold another value: {others} and 2 more; 15 absent: {absent} and 5 more" in said
    assert caught.value.matched == ["rank:100", "rank:101", "rank:102"]
    assert caught.value.mismatched == {f"rank:{rank}": b"0" for rank in range(200, 212)}
    assert caught.value.missing == [f"rank:{rank}" for rank in range(300, 315)]
    assert caught.value.expected_count == 30


def test_without_candidates_a_time_out_calls_nobody_absent(listing: ListingStore) -> None:
    with pytest.raises(WaitTimeoutError, match=r"0 of 2 matched$") as caught:
        listing.wait_for_keys("rank:*", 2, timeout=0)
    assert caught.value.missing == []


def test_a_long_value_is_shortened_in_the_text_and_whole_in_the_attribute(store: DictStore) -> None:
    store.set("k", "x" * 10_000)
    with pytest.raises(WaitTimeoutError, match=r"\.\.\. \(10000 bytes\)") as caught:
        store.wait_for_value("k", "1", timeout=0)
    assert len(str(caught.value)) < 300
    assert caught.value.mismatched == {"k": b"x" * 10_000}


def test_nothing_is_logged_above_debug_while_all_is_well(
    store: DictStore, listing: ListingStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for each in (store, listing):
            for name in ("set", "get", "exists", "wait_for_key", "wait_for_value", "candidate_keys", "delete"):
                CALLS[name](each, "k")
            each.close()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


class SilentFollower(Follower):
    """A follower that says once what is there, and then lets a clock of its own run on."""

    def __init__(self, first: Sequence[Batch] = (), outage: Outage | None = None) -> None:
        self.first = first
        self.outage = outage
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def next(self, deadline: float) -> Sequence[Batch]:
        first, self.first = self.first, ()
        if not first:
            self.now = max(deadline, self.now)
        return first

    def close(self) -> None: ...


def silent_wait(monkeypatch: pytest.MonkeyPatch, follower: SilentFollower, timeout: float) -> WaitTimeoutError:
    """Wait in vain, on the follower's clock."""
    monkeypatch.setattr(skeleton, "monotonic", follower.clock)
    with FedStore(follower) as store, pytest.raises(WaitTimeoutError) as caught:
        store.wait_for_keys("rank:*", 2, timeout=timeout, candidate_keys=["rank:0", "rank:1"])
    return caught.value


def test_a_long_wait_says_so_after_30_seconds_and_then_at_doubling_intervals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = Batch([(b"job-42/trainer/rank:0", b"1")], restart=True)
    with caplog.at_level(logging.INFO):
        error = silent_wait(monkeypatch, SilentFollower([first]), 300.0)
    found = "1 of 2 matched; 1 absent: rank:1"
    assert [record.getMessage() for record in caplog.records] == [
        f"still waiting for 2 keys matching 'rank:*' to be '1', waited {waited}.0 s: {found}"
        for waited in (30, 60, 120, 240)
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert error.waited == 300.0
    assert str(error).endswith(f"waited 300.0 s: {found}")


def test_a_wait_that_never_read_the_store_calls_nobody_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    error = silent_wait(monkeypatch, SilentFollower(), 5.0)
    assert str(error).endswith("0 of 2 matched; the store was never read")
    assert error.missing == []


def test_a_time_out_during_an_outage_says_since_when_and_carries_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    cause = StoreUnavailableError("connection refused by h1:2379")
    error = silent_wait(monkeypatch, SilentFollower(outage=Outage(1002.0, cause)), 5.0)
    assert str(error).endswith("; the store has not answered for 3.0 s (connection refused by h1:2379)")
    assert error.unreachable_for == 3.0
    assert error.__cause__ is cause


# --- watch ---

PREFIX = b"job-42/trainer/"


def batch(restart: bool = False, **changes: bytes | None) -> Batch:
    return Batch([(PREFIX + key.encode(), value) for key, value in changes.items()], restart=restart)


@pytest.fixture
def feed() -> PushFollower:
    """A follower that has said already that `a` and `b` are there."""
    follower = PushFollower()
    follower.push(batch(restart=True, a=b"1", b=b"2"))
    return follower


def test_a_watch_gives_the_state_and_then_each_change_in_order(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        assert watch.state == {"a": b"1", "b": b"2"}
        feed.push(batch(a=b"3", c=b"4"))
        feed.push(batch(a=b"3"))
        feed.push(batch(b=None))
        seen = [watch.next(timeout=0) for _ in range(4)]
    assert seen == [Change("a", b"3"), Change("c", b"4"), Change("a", b"3"), Change("b", None)]


@pytest.mark.parametrize(
    "loss", [batch(a=b"0"), batch(a=None), batch(restart=True), batch(restart=True, a=b"0")], ids=repr
)
def test_a_wait_forgets_what_no_longer_holds_the_value(loss: Batch) -> None:
    feed = PushFollower()
    feed.push(batch(restart=True, a=b"1"))
    feed.push(loss)
    feed.push(batch(b=b"1"))
    with FedStore(feed) as store, pytest.raises(WaitTimeoutError) as caught:
        store.wait_for_keys("*", 2, timeout=0.01)
    assert caught.value.matched == ["b"]
    assert caught.value.mismatched == {key[len(PREFIX) :].decode(): value for key, value in loss.changes if value}


def test_a_wait_ends_with_the_first_batch_after_which_its_condition_holds() -> None:
    feed = PushFollower()
    feed.push(batch(restart=True, a=b"1"))
    feed.push(batch(b=b"1"))
    feed.push(batch(a=b"0", b=None))
    with FedStore(feed) as store:
        assert store.wait_for_keys("*", 2) == ["a", "b"]


def test_listed_keys_come_from_what_is_enumerated_where_a_backend_has_nothing_better(listing: ListingStore) -> None:
    listing.kept = {PREFIX + b"a": b"1", PREFIX + b"b": b""}
    assert list(listing._list(PREFIX, 0.0)) == [PREFIX + b"a", PREFIX + b"b"]


def test_changes_that_came_with_the_state_are_not_lost(feed: PushFollower) -> None:
    feed.push(batch(c=b"3"))
    with FedStore(feed) as store, store.watch() as watch:
        assert watch.state == {"a": b"1", "b": b"2"}
        assert watch.next(timeout=0) == Change("c", b"3")


def test_a_restart_yields_the_net_difference_deletions_included(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        feed.push(batch(c=b"3", d=b"4"))
        feed.push(batch(restart=True, b=b"5", c=b"3", e=b"6"))
        feed.push(batch(c=None))
        state = dict(watch.state)
        seen = [watch.next(timeout=0) for _ in range(7)]
        with pytest.raises(WaitTimeoutError):
            watch.next(timeout=0)
    assert seen[:2] == [Change("c", b"3"), Change("d", b"4")]
    assert sorted(seen[2:6]) == [("a", None), ("b", b"5"), ("d", None), ("e", b"6")]
    assert seen[6] == Change("c", None)
    for key, value in seen:
        state |= {key: value} if value is not None else {}
        if value is None:
            del state[key]
    assert state == {"b": b"5", "e": b"6"}


def test_a_restart_without_a_difference_yields_nothing(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        feed.push(batch(restart=True, b=b"2", a=b"1"))
        with pytest.raises(WaitTimeoutError, match=r"no change to a key matching '\*' in 0 s"):
            watch.next(timeout=0)


def test_a_watch_that_times_out_goes_on_afterwards(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        with pytest.raises(WaitTimeoutError):
            watch.next(timeout=0.01)
        feed.push(batch(a=None))
        assert watch.next(timeout=0) == Change("a", None)


def test_the_timeout_of_a_watch_is_checked(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        with pytest.raises(ValueError, match="not negative"):
            watch.next(timeout=-1)
        with pytest.raises(TypeError, match="number of seconds"):
            watch.next(timeout="5")  # type: ignore[arg-type]


def test_iterating_ends_when_the_store_is_closed(feed: PushFollower, in_background: InBackground) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        seen = in_background(list, watch)
        store.close()
        assert seen.result(30) == []
        with pytest.raises(StoreClosedError):
            watch.next()


def test_a_watch_whose_block_was_left_says_that_and_not_that_the_store_was_closed(feed: PushFollower) -> None:
    with FedStore(feed) as store:
        with store.watch() as watch:
            feed.push(batch(a=b"2"))
        with pytest.raises(StoreClosedError) as caught:
            watch.next(timeout=0)
        assert "block" in str(caught.value)
        assert list(watch) == []


def test_a_watch_starts_where_its_block_does_and_once(feed: PushFollower) -> None:
    with FedStore(feed) as store:
        watch = store.watch()
        with pytest.raises(RuntimeError, match="a watch starts where its block does"):
            watch.next(timeout=0)
        with watch, pytest.raises(RuntimeError, match=r"entered before; call watch\(\) again"), watch:
            pass


def test_a_watch_that_cannot_look_raises_the_cause_and_lets_go() -> None:
    cause = StoreUnavailableError("connection refused")
    with FedStore(SilentFollower(outage=Outage(0.0, cause))) as store:
        with pytest.raises(StoreUnavailableError, match="connection refused"), store.watch():
            pass
        assert store._followers == set()


def test_a_watch_that_times_out_during_an_outage_says_so(feed: PushFollower) -> None:
    with FedStore(feed) as store, store.watch() as watch:
        feed.outage = Outage(monotonic(), StoreUnavailableError("connection refused"))
        with pytest.raises(WaitTimeoutError, match="the store has not answered for") as caught:
            watch.next(timeout=0)
    assert caught.value.__cause__ is feed.outage.cause


# --- the end of a store ---


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_after_close_is_refused(call: Callable[[DictStore, Any], object], store: DictStore) -> None:
    store.close()
    with pytest.raises(StoreClosedError, match="this DictStore is closed; open another one"):
        call(store, "k")


@pytest.mark.parametrize("cleanup", [True, False])
def test_a_store_is_released_once_however_often_it_is_closed(cleanup: bool, store: DictStore) -> None:
    store.close(cleanup)
    store.close()
    store.close(not cleanup)
    assert store.released == [cleanup]


def test_two_threads_that_close_at_the_same_time_release_it_once(store: DictStore, in_background: InBackground) -> None:
    both_found_it_open = threading.Barrier(2)

    class Gate:
        """The store's lock, before which both threads meet."""

        lock = threading.Lock()

        def __enter__(self) -> None:
            both_found_it_open.wait(30)
            self.lock.acquire()

        def __exit__(self, *exc_info: object) -> None:
            self.lock.release()

    store._life = Gate()  # type: ignore[assignment]
    closing = [in_background(store.close) for _ in range(2)]
    assert [thread.result(30) for thread in closing] == [None, None]
    assert store.released == [True]


class SignallingStore(DictStore):
    """A store that tells when a wait has begun to look."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Event()

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        self.looked.set()
        return super()._read(key, deadline)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_close_ends_the_waits_of_other_threads(
    wait: Callable[[DictStore, Any], object], in_background: InBackground
) -> None:
    store = SignallingStore()
    endless = in_background(wait, store, math.inf)
    assert store.looked.wait(30)
    store.close()
    with pytest.raises(StoreClosedError):
        endless.result(30)
    assert store._followers == set()


def test_waits_are_told_before_the_backend_lets_go() -> None:
    follower = PushFollower()
    told: list[bool] = []

    class OrderedStore(FedStore):
        def _release(self, cleanup: bool, deadline: float) -> None:
            with pytest.raises(StoreClosedError):
                follower.next(0.0)
            told.append(True)

    store = OrderedStore(follower)
    store._attach(Selector(store._pattern("*", None)))
    store.close()
    assert told == [True]


def test_a_wait_that_begins_while_the_store_closes_ends_too() -> None:
    follower = PushFollower()

    class ClosingStore(FedStore):
        def _follow(self, selector: Selector) -> Follower:
            self.close()
            return follower

    with pytest.raises(StoreClosedError, match="this ClosingStore is closed"):
        ClosingStore(follower).wait_for_key("k")
    with pytest.raises(StoreClosedError):
        follower.next(0.0)


def test_a_wait_lets_go_of_its_follower_however_it_ends(store: DictStore) -> None:
    made: list[PollingFollower] = []

    class KeepingStore(DictStore):
        def _follow(self, selector: Selector) -> Follower:
            made.append(PollingFollower(self, selector))
            return made[-1]

    keeping = KeepingStore()
    with pytest.raises(WaitTimeoutError):
        keeping.wait_for_key("k", timeout=0)
    keeping.set("k", "1")
    keeping.wait_for_key("k")
    assert keeping._followers == set()
    for follower in made:
        with pytest.raises(StoreClosedError):
            follower.next(math.inf)


def test_a_repr_says_what_where_and_whether_it_is_closed(store: DictStore) -> None:
    shown = "<DictStore backend='dict' namespace='job-42' component='trainer' at this process"
    assert repr(store) == f"{shown}>"
    store.close()
    assert repr(store) == f"{shown}, closed>"


# --- fork ---

FORK = """
import os, signal, sys, threading
from etha.kvstore.errors import ForkedStoreError
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.follow import Batch, PushFollower
from etha.kvstore.skeleton import SkeletalStore

class Store(SkeletalStore):
    spec = BackendSpec("fork", "x:Store", "x", contract=1, capabilities=frozenset({"watch", "list_keys"}))
    def __init__(self):
        super().__init__("n", "c")
        self.kept = {}
    def _read(self, key, deadline): return self.kept.get(key)
    def _write(self, key, value, deadline): self.kept[key] = value
    def _remove(self, key, deadline): return self.kept.pop(key, None) is not None
    def _enumerate(self, prefix, deadline): return list(self.kept.items())
    def _release(self, cleanup, deadline): print("released in", who, flush=True)
    def __del__(self): print("destroyed in", who, flush=True)
    def _follow(self, selector):
        follower = PushFollower()
        follower.push(Batch([], restart=True))
        return follower

who = "parent"
store = Store()
store.set("k", "1")

def in_child(work):
    global who
    child = os.fork()
    if child == 0:
        who = "child"
        signal.alarm(30)  # a child that hangs shall not outlive the test
        try:
            work()
        except BaseException as error:
            print("failed:", repr(error), flush=True)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(
    ("work", "printed"),
    [
        (
            """
def work():
    calls = {
        "get": lambda: store.get("k"), "set": lambda: store.set("k", "2"), "exists": lambda: store.exists("k"),
        "get_bytes": lambda: store.get_bytes("k"), "set_bytes": lambda: store.set_bytes("k", b"2"),
        "delete": lambda: store.delete("k"), "list_keys": store.list_keys, "watch": store.watch,
        "wait_for_key": lambda: store.wait_for_key("k"), "wait_for_value": lambda: store.wait_for_value("k", "1"),
        "wait_for_keys": lambda: store.wait_for_keys("k*", 1, candidate_keys=["k"]),
    }
    for name, call in calls.items():
        try:
            call()
        except ForkedStoreError as error:
            assert "opened in another process" in str(error) and "open one here" in str(error)
        else:
            print(name, "was not refused")
in_child(work)
""",
            [],
        ),
        ("in_child(store.close)", []),
        ("in_child(lambda: globals().pop('store'))", []),
        (
            """
with store.watch() as watch:
    def work():
        try:
            watch.next(timeout=0)
        except ForkedStoreError:
            print("refused", flush=True)
        watch.__exit__(None, None, None)
    in_child(work)
    assert watch.state == {}
""",
            ["refused"],
        ),
        (
            """
watch = store.watch().__enter__()
held, let_go = threading.Event(), threading.Event()
def hold():
    with store._life:
        held.set()
        let_go.wait(30)
thread = threading.Thread(target=hold)
thread.start()
held.wait(30)
in_child(lambda: (watch.__exit__(None, None, None), store.close()))
let_go.set()
thread.join()
""",
            [],
        ),
        (
            """
def work():
    global store
    store = Store()
    store.set("k", "child")
    print(store.get("k").decode(), flush=True)
    store.close()
in_child(work)
""",
            ["child", "released in child"],
        ),
    ],
    ids=["calls", "close", "forget", "watch", "a lock held by another thread", "open another"],
)
def test_a_forked_childs_copy_refuses_its_calls_and_is_never_torn_down(
    work: str, printed: list[str], full_python: Callable[[str], str]
) -> None:
    script = f"import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n{FORK}{work}\n"
    last = "assert store.get('k') == b'1'; store.close()"
    assert full_python(script + last).splitlines() == [*printed, "released in parent", "destroyed in parent"]
