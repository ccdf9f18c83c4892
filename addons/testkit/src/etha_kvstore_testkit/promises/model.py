"""Any sequence of calls agrees with a plain dict: a Hypothesis state machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count, product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from etha.kvstore.base import KVStore, Watch
from etha.kvstore.errors import WaitTimeoutError
from etha_kvstore_testkit.harness import Harness, OpenStores
from etha_kvstore_testkit.observe import PATIENCE

__all__ = ["ModelPromises"]

WHO = st.integers(0, 1)
"""Which of the two stores makes a call."""

WHERE = st.sampled_from(["near", "near", "far"])
"""The component of a call, made different for each run."""

FEW_KEYS = ["a", "a/b", "*", "rank:0/ready"]

KEYS = st.one_of(
    *[st.sampled_from(FEW_KEYS)] * 4,  # so that most calls meet what others left
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
)

VALUES = st.sampled_from(["1", "", "0"])
"""Texts that are written and waited for."""

TEXTS = st.one_of(VALUES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))

DATA = st.binary(max_size=50).map(lambda data: b"\xff" + data)
"""Binary values; neither they nor their base64 is one of `VALUES`, so that no backend's wait finds them equal."""

LAST = "the last key that a run writes"
"""Longer than any of `KEYS`."""

PATTERNS = st.sampled_from(["*", "a*", "*/*", "rank:*/ready", "a", "**b"])


class DictMachine(RuleBasedStateMachine):
    """Two stores on one side, a dict on the other, and the same calls on both.

    Parameters
    ----------
    stores : sequence of KVStore
        Two stores of one server and namespace.
    capabilities : frozenset of str
        What their backend declares.
    run : int
        The number of this run; its components are its own, so that it begins with nothing.
    """

    def __init__(self, stores: Sequence[KVStore], capabilities: frozenset[str], run: int) -> None:
        super().__init__()
        self._stores = stores
        self._capabilities = capabilities
        self._run = run
        self._texts: dict[tuple[str, str], bytes] = {}
        self._data: dict[tuple[str, str], bytes] = {}
        self._watching = ExitStack()
        self._watch: Watch | None = None
        if "watch" in capabilities:
            self._watch = self._watching.enter_context(stores[1].watch(component=self._component("near")))

    # One rule does both, since Hypothesis leaves out some rules in most runs: without writes there is nothing to see.
    @rule(
        where=WHERE,
        key=KEYS,
        writer=WHO,
        value=st.one_of(TEXTS, DATA, st.none()),
        reader=WHO,
        pattern=PATTERNS,
        awaited=VALUES,
        more=st.integers(-1, 1),
    )
    def write_and_look(
        self,
        where: str,
        key: str,
        writer: int,
        value: str | bytes | None,
        reader: int,
        pattern: str,
        awaited: str,
        more: int,
    ) -> None:
        self._write(self._stores[writer], where, key, value)
        self._look(self._stores[reader], where, key, pattern, awaited, more)

    def teardown(self) -> None:
        """Look at all that is there at the end, and at what a consumer of the watch holds then."""
        for where, store in product(("near", "far"), self._stores):
            for key in {*FEW_KEYS, *self._keys(where)}:
                self._look(store, where, key, "*", "1", 0)
        if self._watch is not None:
            self._follow_to_the_end(self._watch)

    def _write(self, store: KVStore, where: str, key: str, value: str | bytes | None) -> None:
        """Set a text, set data, or delete."""
        component = self._component(where)
        was_there = [held.pop((where, key), None) is not None for held in (self._texts, self._data)]
        if value is None:
            assert store.delete(key, component=component) == any(was_there)
        elif isinstance(value, str):
            store.set(key, value, component=component)
            self._texts[where, key] = value.encode()
        else:
            store.set_bytes(key, value, component=component)
            self._data[where, key] = value

    def _look(self, store: KVStore, where: str, key: str, pattern: str, awaited: str, more: int) -> None:
        """Read one key in every way, await it, and await and list many."""
        self._read(store, where, key)
        self._await_one(store, where, key, awaited)
        self._await_many(store, where, pattern, awaited, more)
        if "list_keys" in self._capabilities:
            found = store.list_keys(pattern, component=self._component(where))
            assert found == self._matching(where, pattern)

    def _read(self, store: KVStore, where: str, key: str) -> None:
        component = self._component(where)
        there = (where, key) in self._texts or (where, key) in self._data
        assert store.exists(key, component=component) == there
        if (where, key) not in self._data:
            assert store.get(key, component=component) == self._texts.get((where, key))
        if (where, key) not in self._texts:
            assert store.get_bytes(key, component=component) == self._data.get((where, key))

    def _await_one(self, store: KVStore, where: str, key: str, value: str) -> None:
        component, text = self._component(where), self._texts.get((where, key))
        there = text is not None or (where, key) in self._data
        if there:
            found = store.wait_for_key(key, 0, component=component)
            assert text is None or found == text
        if text == value.encode():
            assert store.wait_for_value(key, value, 0, component=component) == text
            return
        with pytest.raises(WaitTimeoutError) as timeout:
            store.wait_for_value(key, value, 0, component=component)
        assert timeout.value.missing == ([] if there else [key])
        assert list(timeout.value.mismatched) == ([key] if there else [])

    def _await_many(self, store: KVStore, where: str, pattern: str, value: str, more: int) -> None:
        matching = self._matching(where, pattern)
        holders = [key for key in matching if self._texts.get((where, key)) == value.encode()]
        absent = [pattern.replace("*", LAST)] if "*" in pattern else []
        candidates = matching + absent
        expected = min(max(0, len(holders) + more), len(candidates))
        component = self._component(where)
        if expected <= len(holders):
            assert store.wait_for_keys(pattern, expected, value, 0, candidates, component=component) == holders
            return
        with pytest.raises(WaitTimeoutError) as timeout:
            store.wait_for_keys(pattern, expected, value, 0, candidates, component=component)
        assert timeout.value.matched == holders
        assert list(timeout.value.mismatched) == [key for key in matching if key not in holders]
        assert timeout.value.missing == absent

    def _follow_to_the_end(self, changes: Watch) -> None:
        """Apply the changes until the last one; whoever does ends in the store's state."""
        with self._watching:
            found = dict(changes.state)
            self._stores[0].set(LAST, "", component=self._component("near"))
            while LAST not in found:
                key, value = changes.next(PATIENCE)
                if value is None:
                    del found[key]
                else:
                    found[key] = value
        del found[LAST]
        store, component = self._stores[1], self._component("near")
        assert found == {key: store.get(key, component=component) for key in self._keys("near")}

    def _component(self, where: str) -> str:
        return f"{where}-{self._run}"

    def _keys(self, where: str) -> list[str]:
        """Give the keys of the dict."""
        return [key for place, key in [*self._texts, *self._data] if place == where]

    def _matching(self, where: str, pattern: str) -> list[str]:
        """Give the keys of the dict that match, sorted; by another way than the stores'."""
        expression = ".*".join(map(re.escape, pattern.split("*")))
        return sorted(key for key in self._keys(where) if re.fullmatch(expression, key, flags=re.DOTALL))


class ModelPromises(Harness):
    """What a store does is what a dict does."""

    def test_any_sequence_of_calls_agrees_with_a_dict(self, opened: OpenStores) -> None:
        stores, capabilities, runs = opened(2), self.spec.capabilities, count()

        class Machine(DictMachine):
            def __init__(self) -> None:
                super().__init__(stores, capabilities, next(runs))

        modest = settings(max_examples=12, stateful_step_count=60, deadline=None, print_blob=True)
        run_state_machine_as_test(Machine, settings=modest)
