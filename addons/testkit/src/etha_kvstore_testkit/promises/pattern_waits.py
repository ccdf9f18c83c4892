"""`wait_for_keys`: patterns, counts, candidates, and what a timeout says of who was missing."""

from __future__ import annotations

import re
from functools import partial
from string import ascii_lowercase

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import WaitTimeoutError
from etha.kvstore.patterns import expand
from etha_kvstore_testkit.harness import Harness
from etha_kvstore_testkit.observe import GRACE, PATIENCE, in_background, see_under_way, takes
from etha_kvstore_testkit.tables import PATTERNS, PatternCase

__all__ = ["PatternWaitPromises"]

RANKS = expand("rank:*/ready", range(4))


class PatternWaitPromises(Harness):
    """`wait_for_keys` returns all keys that match and hold the value, once there are enough at the same time.

    The candidates are given throughout, since a backend without the capability ``waits_by_pattern`` needs them.
    """

    @pytest.mark.parametrize("case", PATTERNS, ids=lambda case: case.pattern)
    def test_a_star_is_any_run_of_characters_and_all_else_means_itself(
        self, store: KVStore, other: KVStore, case: PatternCase
    ) -> None:
        everything = [*case.others, *case.matching]
        for key in everything:
            other.set(key, "1")
        found = store.wait_for_keys(case.pattern, len(case.matching), timeout=PATIENCE, candidate_keys=everything)
        assert found == sorted(case.matching)

    def test_it_waits_until_enough_keys_hold_the_value(self, store: KVStore, other: KVStore) -> None:
        waiting = in_background(store.wait_for_keys, "rank:*/ready", 3, "1", PATIENCE, RANKS)
        other.set(RANKS[2], "1")
        other.set(RANKS[0], "1")
        other.set(RANKS[1], "0")
        see_under_way(store, waiting)
        other.set(RANKS[1], "1")
        assert waiting.result(PATIENCE) == RANKS[:3]

    def test_it_returns_all_that_match_sorted_and_not_only_as_many_as_expected(self, store: KVStore) -> None:
        for key in reversed(RANKS):
            store.set(key, "1")
        assert store.wait_for_keys("rank:*/ready", 2, timeout=PATIENCE, candidate_keys=RANKS[::-1]) == RANKS

    def test_what_it_returns_can_be_passed_to_get(self, store: KVStore) -> None:
        for key in RANKS:
            store.set(key, "here")
        found = store.wait_for_keys("*", len(RANKS), "here", PATIENCE, RANKS)
        assert [store.get(key) for key in found] == [b"here"] * len(RANKS)

    def test_it_waits_for_any_value_that_a_text_can_be(self, store: KVStore) -> None:
        for value in ("", "\u00e9", "two words"):
            store.set("rank:0", value)
            assert store.wait_for_keys("rank:*", 1, value, 0, ["rank:0"]) == ["rank:0"]

    @pytest.mark.parametrize("leave", ["overwritten", "deleted"])
    def test_a_key_that_left_the_value_is_not_counted(self, store: KVStore, other: KVStore, leave: str) -> None:
        other.set(RANKS[0], "1")
        waiting = in_background(store.wait_for_keys, "rank:*/ready", 2, "1", PATIENCE, RANKS[:2])
        see_under_way(store, waiting)
        if leave == "overwritten":
            other.set(RANKS[0], "0")
        else:
            other.delete(RANKS[0])
        other.set(RANKS[1], "1")
        see_under_way(store, waiting)  # each held the value, but never both at the same time
        other.set(RANKS[0], "1")
        assert waiting.result(PATIENCE) == RANKS[:2]

    def test_one_key_written_twice_is_one_key(self, store: KVStore, other: KVStore) -> None:
        waiting = in_background(store.wait_for_keys, "rank:*/ready", 2, "1", PATIENCE, RANKS[:2])
        see_under_way(store, waiting)
        other.set(RANKS[0], "1")
        other.set(RANKS[0], "1")
        see_under_way(store, waiting)
        other.set(RANKS[1], "1")
        assert waiting.result(PATIENCE) == RANKS[:2]

    def test_a_count_of_zero_returns_the_present_matches_at_once(self, store: KVStore, other: KVStore) -> None:
        with takes(at_most=GRACE):
            assert store.wait_for_keys("rank:*/ready", 0, "1", 2 * GRACE, RANKS) == []
            assert store.wait_for_keys("rank:*/ready", 0, "1", 2 * GRACE, []) == []
        other.set(RANKS[3], "1")
        other.set(RANKS[1], "1")
        other.set(RANKS[2], "0")
        with takes(at_most=GRACE):
            assert store.wait_for_keys("rank:*/ready", 0, "1", 2 * GRACE, RANKS) == [RANKS[1], RANKS[3]]

    def test_candidates_may_repeat_and_those_that_do_not_match_are_left_aside(self, store: KVStore) -> None:
        store.set(RANKS[0], "1")
        store.set("engine:0/ready", "1")
        candidates = [RANKS[0], "engine:0/ready", RANKS[1], RANKS[0], RANKS[1]]
        assert store.wait_for_keys("rank:*/ready", 1, timeout=PATIENCE, candidate_keys=candidates) == [RANKS[0]]
        with pytest.raises(WaitTimeoutError) as timeout:
            store.wait_for_keys("rank:*/ready", 2, timeout=0.05, candidate_keys=candidates)
        assert (timeout.value.matched, timeout.value.missing) == ([RANKS[0]], [RANKS[1]])

    @pytest.mark.parametrize("candidates", [None, [], RANKS[:1], RANKS[:1] * 2, [RANKS[0], "engine:0"]])
    def test_too_few_candidates_are_enough_or_refused_at_once(
        self, store: KVStore, candidates: list[str] | None
    ) -> None:
        for key in RANKS[:2]:
            store.set(key, "1")
        wait = partial(store.wait_for_keys, "rank:*/ready", 2, "1", 2 * GRACE, candidates)
        if self.has("waits_by_pattern"):
            assert wait() == RANKS[:2]
            return
        with takes(at_most=GRACE), pytest.raises(ValueError, match="candidate_keys"):
            wait()

    def test_a_timeout_names_who_matched_who_holds_another_value_and_who_is_absent(
        self, store: KVStore, other: KVStore
    ) -> None:
        other.set(RANKS[1], "1")
        other.set(RANKS[2], "starting")
        with takes(at_least=0.2, at_most=0.2 + GRACE), pytest.raises(WaitTimeoutError) as timeout:
            store.wait_for_keys("rank:*/ready", 4, timeout=0.2, candidate_keys=RANKS)
        error = timeout.value
        assert 0.2 <= error.waited <= 0.2 + GRACE
        assert (error.expected_count, error.matched) == (4, [RANKS[1]])
        assert error.mismatched == {RANKS[2]: b"starting"}
        assert error.missing == [RANKS[0], RANKS[3]]
        assert error.unreachable_for is None
        for fact in ("rank:*/ready", "'1'", f"{error.waited:.1f} s", RANKS[2], "b'starting'", *error.missing):
            assert fact in str(error)

    def test_a_timeout_lists_the_first_ten_of_each_and_counts_the_rest(self, store: KVStore) -> None:
        ready, absent, strange = (
            [f"{word}-{letter}" for letter in ascii_lowercase[:count]]
            for word, count in (("ready", 8), ("absent", 13), ("strange", 14))
        )
        for key in ready:
            store.set(key, "1")
        for key in strange:
            store.set(key, "?")
        with pytest.raises(WaitTimeoutError) as timeout:
            store.wait_for_keys("*-*", 35, timeout=0, candidate_keys=ready + absent + strange)
        error, text = timeout.value, str(timeout.value)
        assert (error.matched, error.missing, error.mismatched) == (ready, absent, dict.fromkeys(strange, b"?"))
        assert re.search(rf"\b{len(ready)}\b", text), "it says how many matched"
        for names in (absent, strange):
            assert [name for name in names if name in text] == names[:10]
            rest = len(names) - 10
            assert f"{rest} more" in text or str(len(names)) in text
