"""The skeleton's waits: when they end, what they return, and whom a time-out names."""

from __future__ import annotations

import logging

import pytest

from etha.kvstore import skeleton
from etha.kvstore.errors import StoreUnavailableError, WaitTimeoutError
from etha.kvstore.follow import Batch, Outage, PushFollower
from etha.kvstore.patterns import expand
from small_stores import CALLS, PREFIX, DictStore, FedStore, InBackground, ListingStore, SilentFollower, batch


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
