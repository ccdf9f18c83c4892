"""The suite fails every store that breaks a promise, and the test that says so is the one that names the promise.

Each class below is the memory store with one defect. `caught_by` names the tests that must fail for it; the intact
store must pass the same ones.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import translate
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import pytest

from etha.kvstore import keys, skeleton
from etha.kvstore.base import KVStore
from etha.kvstore.errors import (
    InvalidKeyError,
    StoreClosedError,
    UnsupportedOperationError,
    ValueDecodeError,
    WaitTimeoutError,
)
from etha.kvstore.follow import Batch, Follower, PollingFollower, Selector
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.patterns import Pattern
from etha.kvstore.waiting import Tally
from etha_kvstore_memory import MemoryHub, MemoryStore
from etha_kvstore_memory.plugin import SPEC
from etha_kvstore_testkit import OpenStores, StoreConformance

pytest_plugins = ["pytester"]


def suite_of(store: type[MemoryStore]) -> type[StoreConformance]:
    """Make the suite for a kind of memory store, as its author would write it."""

    class Suite(StoreConformance):
        spec = store.spec
        value_limit = getattr(store, "LIMIT", None)

        @pytest.fixture
        def open_stores(self) -> OpenStores:
            hub = MemoryHub()

            def open_stores(
                count: int = 1, *, namespace: str = "conformance", component: str = "suite", **options: Any
            ) -> list[KVStore]:
                return [store(namespace, component, hub=hub, **options) for _ in range(count)]

            return open_stores

    return Suite


class BareStore(MemoryStore):
    """An intact store that can do no more than it must, and keeps data as base64, as one on TCPStore."""

    spec = BackendSpec("bare", MemoryStore, "memory that is polled", contract=1, options=SPEC.options)

    def _encode(self, data: bytes) -> bytes:
        return b64encode(data)

    def _decode(self, key: str, stored: bytes) -> bytes:
        try:
            return b64decode(stored, validate=True)
        except ValueError as error:
            raise ValueDecodeError(f"the value of {key!r} is not base64") from error

    def _follow(self, selector: Selector) -> Follower:
        return PollingFollower(self, selector)


class LimitedStore(MemoryStore):
    """An intact store that holds no value of more than a thousand bytes."""

    LIMIT = 1000

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        if len(value) > self.LIMIT:
            raise self._refuse_size(key, len(value), self.LIMIT)
        super()._write(key, value, deadline)


class TidyStore(MemoryStore):
    """An intact store that has the capability ``cleanup``: its hubs remember who wrote a key last."""

    spec = replace(SPEC, capabilities=SPEC.capabilities | {"cleanup"})
    writers: ClassVar[WeakKeyDictionary[MemoryHub, dict[bytes, MemoryStore]]] = WeakKeyDictionary()

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        super()._write(key, value, deadline)
        self.writers.setdefault(self._hub, {})[key] = self

    def _remove(self, key: bytes, deadline: float) -> bool:
        self.writers.get(self._hub, {}).pop(key, None)
        return super()._remove(key, deadline)

    def _release(self, cleanup: bool, deadline: float) -> None:
        if cleanup:
            for key, writer in list(self.writers.get(self._hub, {}).items()):
                if writer is self:
                    self._remove(key, deadline)


class Altered(Follower):
    """A follower whose batches are changed on the way."""

    def __init__(self, inner: Follower, alter: Callable[[Sequence[Batch]], Sequence[Batch]]) -> None:
        self._inner = inner
        self._alter = alter

    def next(self, deadline: float) -> Sequence[Batch]:
        return self._alter(self._inner.next(deadline))

    def close(self) -> None:
        self._inner.close()


class Broken:
    """What each broken store says of itself.

    Attributes
    ----------
    caught_by : tuple of str
        The tests that must fail; with their parameters where others would only take longer.
    intact : type
        The store that it is like, but for its defect.
    """

    caught_by: ClassVar[tuple[str, ...]]
    intact: ClassVar[type[MemoryStore]] = MemoryStore


# --- keys and names ---


class NormalizesKeys(Broken, MemoryStore):
    caught_by = ("test_a_key_that_unicode_composes_differs_from_the_one_it_decomposes",)

    def _full(self, key: str, component: str | None, what: str = "key") -> bytes:
        return super()._full(unicodedata.normalize("NFC", key), component, what)


class StripsKeys(Broken, MemoryStore):
    caught_by = ("test_any_text_is_a_key_and_no_two_are_the_same",)

    def _full(self, key: str, component: str | None, what: str = "key") -> bytes:
        return super()._full(key.strip("/ ") or key, component, what)


class CountsCharacters(Broken, MemoryStore):
    """Takes the limit of a key for one of characters."""

    caught_by = ("test_a_full_key_takes_4096_bytes_of_utf8_and_not_one_more",)

    def _full(self, key: str, component: str | None, what: str = "key") -> bytes:
        full = self._prefix(component) + key.encode()
        if len(full.decode()) > keys.MAX_KEY_BYTES:
            raise InvalidKeyError(f"the {what} is longer than {keys.MAX_KEY_BYTES}")
        return full


class RefusesTheLongestKey(Broken, MemoryStore):
    caught_by = ("test_a_full_key_takes_4096_bytes_of_utf8_and_not_one_more",)

    def _full(self, key: str, component: str | None, what: str = "key") -> bytes:
        full = super()._full(key, component, what)
        if len(full) == keys.MAX_KEY_BYTES:
            raise InvalidKeyError(f"the {what} is longer than {keys.MAX_KEY_BYTES - 1}")
        return full


class CreatesWhatItReads(Broken, MemoryStore):
    caught_by = ("test_reading_an_absent_key_finds_nothing_and_creates_nothing",)

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        found = super()._read(key, deadline)
        if found is None:
            self._write(key, b"", deadline)
        return found


class ForgetsTheComponent(Broken, MemoryStore):
    caught_by = ("test_every_call_takes_another_component",)

    def exists(self, key: str, *, component: str | None = None) -> bool:
        return super().exists(key)


class ListsNeighbours(Broken, MemoryStore):
    """Ranges over a prefix without its trailing slash."""

    caught_by = ("test_a_component_does_not_see_another_whose_name_begins_with_its_own",)

    def list_keys(self, pattern: str = "*", *, component: str | None = None) -> list[str]:
        found = self._hub.snapshot(self._prefix(component)[:-1])
        return sorted(keys.split(full)[2] for full, _ in found)


class AwaitsNeighbours(Broken, MemoryStore):
    """Takes a namespace for the beginning of one."""

    caught_by = ("test_a_namespace_does_not_see_another_whose_name_begins_with_its_own",)

    def _pattern(self, pattern: str, component: str | None) -> Pattern:
        namespace, rest = self._full(pattern, component).split(b"/", 1)
        return Pattern(namespace + b"*/" + rest, len(namespace))


class LetsStarsInNames(Broken, MemoryStore):
    """Matches the whole of a full key, a star in the component included."""

    caught_by = ("test_a_star_in_a_namespace_or_a_component_means_itself",)

    def _pattern(self, pattern: str, component: str | None) -> Pattern:
        return Pattern(self._full(pattern, component, "pattern"))


class LetsSlashesInNames(Broken, MemoryStore):
    caught_by = ("test_a_name_with_a_slash_is_refused_so_that_no_two_triples_make_one_full_key",)

    def _prefix(self, component: str | None) -> bytes:
        return super()._prefix(None) if component is None else f"{self.namespace}/{component}/".encode()


# --- values ---


class ReadsStale(Broken, MemoryStore):
    """Answers from what it read before."""

    caught_by = ("test_a_write_is_seen_by_every_reader_as_soon_as_it_returns",)

    def __init__(self, namespace: str, component: str, *, hub: MemoryHub | None = None, timeout: float = 10.0) -> None:
        super().__init__(namespace, component, hub=hub, timeout=timeout)
        self._cache: dict[bytes, bytes | None] = {}

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        return self._cache.setdefault(key, super()._read(key, deadline))


class DeletesAlways(Broken, MemoryStore):
    caught_by = ("test_delete_tells_whether_it_deleted",)

    def _remove(self, key: bytes, deadline: float) -> bool:
        super()._remove(key, deadline)
        return True


class DeletesInTwoSteps(Broken, MemoryStore):
    caught_by = ("test_of_many_who_delete_a_key_at_once_one_deleted_it",)

    def _remove(self, key: bytes, deadline: float) -> bool:
        was_there = self._read(key, deadline) is not None
        time.sleep(0.001)
        super()._remove(key, deadline)
        return was_there


class TakesEmptyForAbsent(Broken, MemoryStore):
    caught_by = ("test_a_key_exists_whatever_its_value",)

    def _exists(self, key: bytes, deadline: float) -> bool:
        return bool(self._read(key, deadline))


class DecodesText(Broken, MemoryStore):
    """Keeps binary data as text, with what is no text replaced."""

    caught_by = ("test_get_bytes_returns_exactly_what_set_bytes_was_given",)

    def _encode(self, data: bytes) -> bytes:
        return data.decode(errors="replace").encode()


class ReturnsItsBuffer(Broken, MemoryStore):
    caught_by = ("test_get_returns_the_utf8_of_what_set_was_given",)

    def get(self, key: str, *, component: str | None = None) -> bytes | None:
        found = super().get(key, component=component)
        return None if found is None else bytearray(found)  # type: ignore[return-value]


class CutsLargeValues(Broken, LimitedStore):
    caught_by = ("test_a_value_as_large_as_the_limit_is_stored_and_a_larger_one_is_refused",)
    intact = LimitedStore

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        super()._write(key, value[: self.LIMIT], deadline)


class ForgetsTheOldValue(Broken, LimitedStore):
    """Deletes what was there, and then finds the new value too large."""

    caught_by = ("test_a_value_as_large_as_the_limit_is_stored_and_a_larger_one_is_refused",)
    intact = LimitedStore

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        self._remove(key, deadline)
        super()._write(key, value, deadline)


class ForgetsWhoCameBack(Broken, MemoryStore):
    """Does not list a key that it deleted and somebody wrote again."""

    caught_by = ("test_any_sequence_of_calls_agrees_with_a_dict",)

    def _remove(self, key: bytes, deadline: float) -> bool:
        self._removed = key
        return super()._remove(key, deadline)

    def list_keys(self, pattern: str = "*", *, component: str | None = None) -> list[str]:
        removed = getattr(self, "_removed", None)
        return [key for key in super().list_keys(pattern, component=component) if self._full(key, component) != removed]


# --- waits ---


class MissesWakeUps(Broken, MemoryStore):
    """Looks, and begins to follow a moment later."""

    caught_by = (
        "test_a_condition_that_comes_true_and_stays_true_is_never_missed[wait_for_key]",
        "test_nothing_is_missed_between_the_state_and_the_first_change",
    )

    def _follow(self, selector: Selector) -> Follower:
        seen = [(key, value) for key, value in self._hub.snapshot(b"") if selector.pattern.matches(key)]
        time.sleep(0.002)
        follower = self._hub.follow(selector)
        follower.next(0)
        follower.push(Batch(seen, restart=True))
        return follower


class PollsThoughItDeclaresWatch(Broken, MemoryStore):
    caught_by = ("test_a_condition_that_holds_for_a_moment_is_caught_where_every_change_is_followed",)

    class Poll(PollingFollower):
        SHORTEST_PAUSE = LONGEST_PAUSE = 0.2

    def _follow(self, selector: Selector) -> Follower:
        return super()._follow(selector) if selector.expected is None else self.Poll(self, selector)


class WaitsForSomething(Broken, MemoryStore):
    """Takes an empty value for an absent key."""

    caught_by = ("test_a_wait_that_is_satisfied_already_returns_at_once",)

    def wait_for_key(self, key: str, timeout: float = 3600.0, *, component: str | None = None) -> bytes:
        deadline = time.monotonic() + timeout
        while not (value := self.get(key, component=component)):
            if time.monotonic() >= deadline:
                raise WaitTimeoutError(f"no key {key!r}", waited=timeout, missing=[key])
            time.sleep(0.001)
        return value


class TakesAbsentForEmpty(Broken, MemoryStore):
    caught_by = ("test_wait_for_value_does_not_take_an_absent_key_for_an_empty_one",)

    def wait_for_value(
        self, key: str, expected: str, timeout: float = 3600.0, *, component: str | None = None
    ) -> bytes:
        if not expected and not self.exists(key, component=component):
            return b""
        return super().wait_for_value(key, expected, timeout, component=component)


class CountsWhoLeft(Broken, MemoryStore):
    """Counts the keys that had the value once."""

    caught_by = ("test_a_key_that_left_the_value_is_not_counted",)

    def wait_for_keys(self, key_pattern: str, expected_count: int, *more: Any, **named: Any) -> list[str]:
        with self.watch(key_pattern) as changes:
            seen = {key for key, held in changes.state.items() if held == b"1"}
            while len(seen) < expected_count:
                change = changes.next()
                if change.value == b"1":
                    seen.add(change.key)
        return sorted(seen)


class Answers(Broken, MemoryStore):
    """Answers `wait_for_keys` as its subclasses say."""

    def answer(self, found: list[str], expected_count: int) -> list[str]:
        raise NotImplementedError

    def wait_for_keys(self, key_pattern: str, expected_count: int, *more: Any, **named: Any) -> list[str]:
        found = super().wait_for_keys(key_pattern, expected_count, *more, **named)
        return self.answer(found, expected_count)


class ReturnsUnsorted(Answers):
    caught_by = ("test_it_returns_all_that_match_sorted_and_not_only_as_many_as_expected",)

    def answer(self, found: list[str], expected_count: int) -> list[str]:
        return found[::-1]


class ReturnsOnlyAsManyAsExpected(Answers):
    caught_by = ("test_it_returns_all_that_match_sorted_and_not_only_as_many_as_expected",)

    def answer(self, found: list[str], expected_count: int) -> list[str]:
        return found[:expected_count]


class ReturnsFullKeys(Answers):
    caught_by = ("test_what_it_returns_can_be_passed_to_get",)

    def answer(self, found: list[str], expected_count: int) -> list[str]:
        return [f"{self.namespace}/{self.component}/{key}" for key in found]


class MatchesLikeAShell(Broken, MemoryStore):
    caught_by = (
        "test_a_star_is_any_run_of_characters_and_all_else_means_itself",
        "test_it_lists_the_keys_that_match_whatever_their_values",
        "test_the_pattern_chooses_what_is_seen",
    )

    class ShellPattern(Pattern):
        def __init__(self, text: bytes, literal: int = 0) -> None:
            super().__init__(text, literal)
            self._shell = re.compile(re.escape(text[:literal].decode()) + translate(text[literal:].decode()))

        def matches(self, key: bytes) -> bool:
            return self._shell.match(key.decode()) is not None

    def _pattern(self, pattern: str, component: str | None) -> Pattern:
        full = self._full(pattern, component, "pattern")
        return self.ShellPattern(full, len(self._prefix(component)))


class StopsStarsAtSlashes(Broken, MemoryStore):
    caught_by = ("test_a_star_is_any_run_of_characters_and_all_else_means_itself[*]",)

    class PathPattern(Pattern):
        def matches(self, key: bytes) -> bool:
            return super().matches(key) and key.count(b"/") <= self.literal_prefix.count(b"/") + self._suffix.count(
                b"/"
            )

    def _pattern(self, pattern: str, component: str | None) -> Pattern:
        return self.PathPattern(self._full(pattern, component, "pattern"), len(self._prefix(component)))


class NamesNobody(Broken, MemoryStore):
    caught_by = (
        "test_a_timeout_says_what_was_waited_for_and_for_how_long",
        "test_a_timeout_names_the_value_that_the_key_has_instead",
        "test_a_timeout_names_who_matched_who_holds_another_value_and_who_is_absent",
    )

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        try:
            return super()._wait(selector, timeout, component, wanted)
        except WaitTimeoutError as error:
            raise WaitTimeoutError("timed out", waited=error.waited) from None


class ListsEverybody(Broken, MemoryStore):
    """Writes a thousand names into one message."""

    caught_by = ("test_a_timeout_lists_the_first_ten_of_each_and_counts_the_rest",)

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        try:
            return super()._wait(selector, timeout, component, wanted)
        except WaitTimeoutError as error:
            error.args = (f"{error} {error.missing} {error.mismatched}",)
            raise


class NeedsCandidates(Broken, MemoryStore):
    """Declares ``waits_by_pattern`` and looks at the candidates alone."""

    caught_by = ("test_too_few_candidates_are_enough_or_refused_at_once[candidates2]",)

    def _follow(self, selector: Selector) -> Follower:
        chosen = None if selector.candidates is None else set(selector.candidates)

        def choose(batches: Sequence[Batch]) -> Sequence[Batch]:
            if chosen is None:
                return batches
            return [Batch([pair for pair in batch.changes if pair[0] in chosen], batch.restart) for batch in batches]

        return Altered(super()._follow(selector), choose)


class WaitsForTooFewCandidates(Broken, BareStore):
    """Finds out after the timeout that the candidates were too few."""

    caught_by = ("test_too_few_candidates_are_enough_or_refused_at_once[candidates2]",)
    intact = BareStore

    def _fitting(
        self, candidate_keys: Iterable[str] | None, pattern: Pattern, component: str | None
    ) -> list[bytes] | None:
        fitting = super()._fitting(candidate_keys, pattern, component)
        return fitting and fitting * 9


class OverflowsClocks(Broken, MemoryStore):
    caught_by = ("test_a_wait_can_be_for_ever_or_for_longer_than_a_clock_can_count",)

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        if timeout > threading.TIMEOUT_MAX:
            raise OverflowError("timestamp too large to convert to C PyTime_t")
        return super()._wait(selector, timeout, component, wanted)


class HoldsUpItsThreads(Broken, MemoryStore):
    """Has one lock, and waits with it."""

    caught_by = ("test_waiting_threads_do_not_hold_up_the_others[wait_for_key]",)

    def __init__(self, namespace: str, component: str, *, hub: MemoryHub | None = None, timeout: float = 10.0) -> None:
        super().__init__(namespace, component, hub=hub, timeout=timeout)
        self._only = threading.Lock()

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        with self._only:
            return super()._wait(selector, timeout, component, wanted)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        with self._only:
            super()._write(key, value, deadline)


# --- optional ---


class DeclaresAListing(Broken, BareStore):
    caught_by = ("test_it_lists_what_is_there_now_sorted",)
    intact = MemoryStore
    spec = replace(SPEC, capabilities=SPEC.capabilities | {"list_keys"})

    def list_keys(self, pattern: str = "*", *, component: str | None = None) -> list[str]:
        raise UnsupportedOperationError("backend 'memory' lacks the capability 'list_keys'")


class ListsUndeclared(Broken, BareStore):
    caught_by = ("test_it_lists_what_is_there_now_sorted",)
    intact = BareStore

    def list_keys(self, pattern: str = "*", *, component: str | None = None) -> list[str]:
        return []


class RefusesWithoutItsName(Broken, BareStore):
    caught_by = ("test_it_lists_what_is_there_now_sorted",)
    intact = BareStore

    def list_keys(self, pattern: str = "*", *, component: str | None = None) -> list[str]:
        raise UnsupportedOperationError("not supported")


class WatchesUndeclared(Broken, BareStore):
    caught_by = ("test_state_is_what_was_there_at_the_start",)
    intact = BareStore

    def watch(self, pattern: str = "*", *, component: str | None = None) -> Any:
        return skeleton._SkeletalWatch(self, Selector(self._pattern(pattern, component)), pattern, component)


class Watches(Broken, MemoryStore):
    """Alters what a watch is told, as its subclasses say."""

    def alter(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        raise NotImplementedError

    def _follow(self, selector: Selector) -> Follower:
        inner = super()._follow(selector)
        return inner if selector.expected is not None else Altered(inner, self.alter)


class DropsDeletions(Watches):
    caught_by = ("test_every_change_comes_in_order_and_once_deletions_included",)

    def alter(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        return [Batch([one for one in batch.changes if one[1] is not None], batch.restart) for batch in batches]


class YieldsTwice(Watches):
    caught_by = ("test_every_change_comes_in_order_and_once_deletions_included",)

    def alter(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        return [batch for batch in batches for _ in range(1 if batch.restart else 2)]


class YieldsTheLatestOnly(Watches):
    caught_by = ("test_every_change_comes_in_order_and_once_deletions_included",)

    def alter(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        latest = {key: value for batch in batches for key, value in batch.changes}
        return [Batch(list(latest.items()), batches[0].restart)] if batches else []


class ForgetsTheState(Watches):
    caught_by = ("test_state_is_what_was_there_at_the_start",)

    def alter(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        return [Batch((), restart=True) if batch.restart else batch for batch in batches]


class CleansThePrefix(Broken, TidyStore):
    caught_by = (
        "test_it_never_deletes_the_keys_of_others",
        "test_it_never_deletes_what_another_store_has_overwritten_even_with_the_same_value",
    )
    intact = TidyStore

    def _release(self, cleanup: bool, deadline: float) -> None:
        for key, _ in self._hub.snapshot(self.namespace.encode()) if cleanup else ():
            self._remove(key, deadline)


class CleansByValue(Broken, TidyStore):
    caught_by = ("test_it_never_deletes_what_another_store_has_overwritten_even_with_the_same_value",)
    intact = TidyStore

    def __init__(self, namespace: str, component: str, *, hub: MemoryHub | None = None, timeout: float = 10.0) -> None:
        super().__init__(namespace, component, hub=hub, timeout=timeout)
        self._written: dict[bytes, bytes] = {}

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        super()._write(key, value, deadline)
        self._written[key] = value

    def _release(self, cleanup: bool, deadline: float) -> None:
        for key, value in self._written.items() if cleanup else ():
            if self._read(key, deadline) == value:
                self._remove(key, deadline)


class CleansNothing(Broken, TidyStore):
    caught_by = ("test_it_deletes_what_this_store_wrote", "test_it_is_the_default_and_leaving_the_block_does_it")
    intact = TidyStore

    def _release(self, cleanup: bool, deadline: float) -> None:
        pass


class CleansUndeclared(Broken, TidyStore):
    caught_by = ("test_it_deletes_what_this_store_wrote",)
    spec = SPEC


# --- life ---


class CoercesBytes(Broken, MemoryStore):
    caught_by = ("test_a_bad_value_is_refused_and_nothing_is_sent[set value]",)

    def set(self, key: str, value: str | bytes, *, component: str | None = None) -> None:
        super().set(key, value.decode() if isinstance(value, bytes) else value, component=component)


class WritesBeforeItChecks(Broken, MemoryStore):
    caught_by = ("test_a_bad_value_is_refused_and_nothing_is_sent[set value]",)

    def set(self, key: str, value: str, *, component: str | None = None) -> None:
        self._write(self._full(key, component), b"", math.inf)
        super().set(key, value, component=component)


class TakesNanForAnHour(Broken, MemoryStore):
    caught_by = ("test_a_bad_value_is_refused_and_nothing_is_sent[wait_for_key timeout]",)

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        return super()._wait(selector, 3600.0 if timeout != timeout else timeout, component, wanted)


class CountsBools(Broken, MemoryStore):
    caught_by = ("test_a_bad_value_is_refused_and_nothing_is_sent[wait_for_keys expected_count]",)

    def wait_for_keys(self, key_pattern: str, expected_count: int, *more: Any, **named: Any) -> list[str]:
        count = int(expected_count) if isinstance(expected_count, bool) else expected_count
        return super().wait_for_keys(key_pattern, count, *more, **named)


class SpellsOutCandidates(Broken, MemoryStore):
    """Takes a text for the list of its characters."""

    caught_by = ("test_a_bad_value_is_refused_and_nothing_is_sent[wait_for_keys candidate_keys]",)

    def _fitting(
        self, candidate_keys: Iterable[str] | None, pattern: Pattern, component: str | None
    ) -> list[bytes] | None:
        spelt = list(candidate_keys) if isinstance(candidate_keys, str) else candidate_keys
        return super()._fitting(spelt, pattern, component)


class LivesOn(Broken, MemoryStore):
    caught_by = ("test_a_call_after_close_is_refused", "test_leaving_the_block_closes_the_store")

    def close(self, cleanup: bool = True) -> None:
        pass


class ClosesOnce(Broken, MemoryStore):
    caught_by = ("test_close_may_be_called_again",)

    def close(self, cleanup: bool = True) -> None:
        if self._refusal is not None:
            raise StoreClosedError("this store is closed already")
        super().close(cleanup)


class ClosesWithoutTellingItsWaits(Broken, MemoryStore):
    caught_by = ("test_close_from_another_thread_ends_a_wait[wait_for_key]",)

    def close(self, cleanup: bool = True) -> None:
        self._refusal = StoreClosedError("this store is closed")


class SwallowsCtrlC(Broken, MemoryStore):
    caught_by = ("test_ctrl_c_ends_a_wait_and_the_store_goes_on[wait_for_key]",)

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        try:
            return super()._wait(selector, timeout, component, wanted)
        except KeyboardInterrupt:
            return super()._wait(selector, timeout, component, wanted)


class ClosesBehindItsOwnCall(Broken, MemoryStore):
    caught_by = ("test_close_in_a_signals_handler_ends_whatever_the_call_was_doing[set]",)

    def __init__(self, namespace: str, component: str, *, hub: MemoryHub | None = None, timeout: float = 10.0) -> None:
        super().__init__(namespace, component, hub=hub, timeout=timeout)
        self._alone = threading.Lock()

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        with self._alone:
            super()._write(key, value, deadline)

    def close(self, cleanup: bool = True) -> None:
        held = self._alone.acquire(timeout=8.0)
        super().close(cleanup)
        if held:
            self._alone.release()


class KnowsNoForks(Broken, MemoryStore):
    caught_by = (
        "test_every_call_in_a_forked_child_is_refused",
        "test_the_refusal_says_to_open_a_store_in_the_child",
    )

    def __init__(self, namespace: str, component: str, *, hub: MemoryHub | None = None, timeout: float = 10.0) -> None:
        super().__init__(namespace, component, hub=hub, timeout=timeout)
        skeleton._open_stores.discard(self)


class HangsInForks(Broken, MemoryStore):
    caught_by = ("test_close_in_a_forked_child_is_quick_and_harms_nothing",)

    def close(self, cleanup: bool = True) -> None:
        if self._refusal is not None and not isinstance(self._refusal, StoreClosedError):
            time.sleep(1.5)
        super().close(cleanup)


class PicklesItself(Broken, MemoryStore):
    caught_by = ("test_pickling_a_store_is_a_type_error_that_says_to_open_one_there",)

    def __reduce__(self) -> Any:
        return MemoryStore, (self.namespace, self.component)


class HidesItsNamespace(Broken, MemoryStore):
    caught_by = ("test_repr_shows_backend_namespace_and_component_even_after_close",)

    def __repr__(self) -> str:
        return f"<memory store {self.component}>"


class RenamesAnArgument(Broken, MemoryStore):
    caught_by = ("test_a_method_takes_what_the_specification_says",)

    def delete(self, name: str, *, component: str | None = None) -> bool:
        return super().delete(name, component=component)


class HasAnOptionThatItsSpecLacks(Broken, MemoryStore):
    caught_by = ("test_the_spec_names_every_option_of_the_store_class_and_its_default",)

    def __init__(
        self,
        namespace: str,
        component: str,
        *,
        hub: MemoryHub | None = None,
        timeout: float = 10.0,
        secret_option: int = 0,
    ) -> None:
        super().__init__(namespace, component, hub=hub, timeout=timeout)


class Prints(Broken, MemoryStore):
    caught_by = ("test_a_healthy_life_prints_nothing_and_logs_nothing_above_debug",)

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        print("reading", key)
        return super()._read(key, deadline)


class LogsEveryRead(Broken, MemoryStore):
    caught_by = ("test_a_healthy_life_prints_nothing_and_logs_nothing_above_debug",)

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        logging.getLogger("somebody").info("reading %r", key)
        return super()._read(key, deadline)


class ReportsAtOnce(Broken, MemoryStore):
    caught_by = ("test_a_wait_says_nothing_before_its_first_report",)

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        logging.getLogger("etha.kvstore").info("waiting for %s", wanted)
        return super()._wait(selector, timeout, component, wanted)


class NeverReports(Broken, MemoryStore):
    caught_by = ("test_a_wait_that_goes_on_says_so_at_info_and_then_at_doubling_intervals",)

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        logger = logging.getLogger("etha.kvstore")
        logger.disabled = True
        try:
            return super()._wait(selector, timeout, component, wanted)
        finally:
            logger.disabled = False


BROKEN = [
    store
    for store in list(globals().values())
    if isinstance(store, type) and issubclass(store, Broken) and "caught_by" in vars(store)
]

TestBareStore = suite_of(BareStore)
TestTidyStore = suite_of(TidyStore)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_store_fails_where_the_intact_one_passes(
    broken: type[Broken], check_that_broken_fails_and_intact_passes: Callable[[type, type, Sequence[str]], None]
) -> None:
    check_that_broken_fails_and_intact_passes(broken, broken.intact, broken.caught_by)
