"""The checker itself: on histories known to be good or bad, and against a search that tries every order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checker import Operation, check


def wrote(value: str, called: float, returned: float = inf, key: str = "key") -> Operation:
    return Operation("set", value, called, returned, key)


def read(value: str | None, called: float, returned: float, key: str = "key") -> Operation:
    return Operation("get", value, called, returned, key)


def deleted(was_there: bool | None, called: float, returned: float = inf) -> Operation:
    return Operation("delete", was_there, called, returned)


def existed(answer: bool, called: float, returned: float) -> Operation:
    return Operation("exists", answer, called, returned)


History = Sequence[Operation]

GOOD: dict[str, History] = {
    "nothing": [],
    "one after another": [
        read(None, 0, 1),
        wrote("a", 2, 3),
        read("a", 4, 5),
        deleted(True, 6, 7),
        deleted(False, 8, 9),
        existed(False, 10, 11),
    ],
    "a read during a write gives the old": [wrote("a", 0, 1), wrote("b", 2, 9), read("a", 3, 4), read("b", 10, 11)],
    "a read during a write gives the new": [wrote("a", 0, 1), wrote("b", 2, 9), read("b", 3, 4), read("b", 5, 6)],
    "two writes at once, seen in the order of their returns": [
        wrote("a", 0, 5),
        wrote("b", 1, 6),
        read("a", 2, 3),
        read("b", 7, 8),
    ],
    "two writes at once, seen in the other order": [
        wrote("a", 0, 5),
        wrote("b", 1, 6),
        read("b", 2, 3),
        read("a", 7, 8),
    ],
    "two deletions at once, one of which did it": [
        wrote("a", 0, 1),
        deleted(True, 2, 5),
        deleted(False, 3, 4),
        existed(False, 6, 7),
    ],
    "a lost write that happened": [wrote("a", 0, 1), wrote("b", 2), read("b", 3, 4)],
    "a lost write that never happened": [wrote("a", 0, 1), wrote("b", 2), read("a", 3, 4), read("a", 100, 101)],
    "a lost write that happened late, over a newer one": [
        wrote("a", 0),
        wrote("b", 1, 2),
        read("b", 3, 4),
        read("a", 5, 6),
    ],
    "a lost deletion that happened late": [wrote("a", 0, 1), deleted(None, 2), read("a", 3, 4), existed(False, 5, 6)],
    "a lost write that nobody read made the key exist": [wrote("a", 0), existed(True, 1, 2), deleted(True, 3, 4)],
    "two lost writes of the same value, both of them happened": [
        wrote("a", 0),
        wrote("a", 1),
        read("a", 2, 3),
        deleted(True, 4, 5),
        read("a", 6, 7),
    ],
    "one returned at the instant at which the other was called": [wrote("a", 0, 1), read(None, 1, 2), read("a", 3, 4)],
    "keys know nothing of each other": [
        wrote("a", 0, 1, key="one"),
        read(None, 2, 3, key="other"),
        read("a", 4, 5, key="one"),
    ],
}

BAD: dict[str, History] = {
    "a value that nobody wrote": [wrote("a", 0, 1), read("b", 2, 3)],
    "an acknowledged write is lost": [wrote("a", 0, 1), read(None, 2, 3)],
    "an overwritten value is read": [wrote("a", 0, 1), wrote("b", 2, 3), read("a", 4, 5)],
    "an existing key is denied": [wrote("a", 0, 1), existed(False, 2, 3)],
    "a key exists before it was written": [existed(True, 0, 1), wrote("a", 2, 3)],
    "a value is read before it was written": [read("a", 0, 1), wrote("a", 2, 3)],
    "a deleted key comes back": [wrote("a", 0, 1), deleted(True, 2, 3), read("a", 4, 5)],
    "a deleted key still exists": [wrote("a", 0, 1), deleted(True, 2, 3), existed(True, 4, 5)],
    "a deletion denies that the key was there": [wrote("a", 0, 1), deleted(False, 2, 3)],
    "two deletions of one value both claim it": [wrote("a", 0, 1), deleted(True, 2, 5), deleted(True, 3, 4)],
    "a deletion of nothing claims it": [deleted(True, 0, 1)],
    "a read goes back behind another during one write": [
        wrote("a", 0, 1),
        wrote("b", 2, 9),
        read("b", 3, 4),
        read("a", 5, 6),
    ],
    "two readers see two writes in different orders": [
        wrote("a", 0, 10),
        wrote("b", 0, 10),
        read("a", 1, 2),
        read("b", 3, 4),
        read("a", 5, 6),
    ],
    "a write took effect twice, the second time over another's": [
        wrote("a", 0, 9),
        wrote("b", 1, 2),
        read("a", 3, 4),
        wrote("c", 5, 6),
        read("a", 7, 8),
    ],
    "a lost write happened before its call": [read("a", 0, 1), wrote("a", 2)],
    "a lost write happened twice": [
        wrote("a", 0),
        read("a", 1, 2),
        wrote("b", 3, 4),
        read("b", 5, 6),
        read("a", 7, 8),
        deleted(True, 9, 10),
        read("a", 11, 12),
    ],
    "one lost deletion explains only one absence": [
        wrote("a", 0, 1),
        deleted(None, 2),
        existed(False, 3, 4),
        wrote("b", 5, 6),
        existed(False, 7, 8),
    ],
    "a lost deletion does not bring an older value back": [
        wrote("a", 0, 1),
        wrote("b", 2, 3),
        deleted(None, 4),
        read("a", 5, 6),
    ],
    "one key is fine and the other is not": [
        wrote("a", 0, 1, key="one"),
        read("a", 2, 3, key="one"),
        read("a", 4, 5, key="other"),
    ],
    "the last of two hundred reads is stale": [
        wrote("a", 0, 1),
        wrote("b", 2, 3),
        *(read("b", 4 + number, 4.5 + number) for number in range(200)),
        read("a", 300, 301),
    ],
    "an empty value is not an absent key": [wrote("", 0, 1), read(None, 2, 3)],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_found_good(name: str) -> None:
    assert check(GOOD[name]) == ""


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_found_bad_and_not_given_up(name: str) -> None:
    assert "not linearizable" in check(BAD[name])


def test_what_is_wrong_is_told_with_the_key_and_the_operation_that_fits_nowhere() -> None:
    text = check(BAD["one key is fine and the other is not"])
    assert text.startswith("'other': not linearizable: after 0 of 1 operations it holds None")
    assert "get(other): 'a'" in text
    assert "'one'" not in text


def overlapping(count: int) -> list[Operation]:
    """Make writes that all overlap and are all read, so that every set of them can come first."""
    writes = [wrote(str(number), number / 1000, 10 + number / 1000) for number in range(count)]
    return [*writes, *(read(str(number), 20, 30) for number in range(count))]


def test_giving_up_is_no_success_and_says_so() -> None:
    assert "gave up after 501 states" in check([*overlapping(20), read("never written", 40, 41)], budget=500)


def with_lost_writes(count: int) -> list[Operation]:
    """Make a history in which every write may be undone, or done again, by those that were lost before it."""
    lost = [wrote(f"lost {number}", number) for number in range(count)] + [deleted(None, 0) for _ in range(count)]
    known = [
        (wrote("a", number, number + 0.5), existed(number % 2 == 0, number + 0.6, number + 0.9))
        for number in range(count)
    ]
    return lost + [each for pair in known for each in pair]


def test_hundreds_of_lost_writes_do_not_make_it_give_up() -> None:
    assert check(with_lost_writes(400)) == ""
    assert "not linearizable" in check([*with_lost_writes(60), read("never written", 61, 62)])


VALUES = st.sampled_from(["a", "b", "c"])
TIMES = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    kind = draw(st.sampled_from(["get", "exists", "set", "delete"]))
    called, returned = draw(TIMES)
    if kind in ("set", "delete") and draw(st.booleans()):
        return Operation(kind, draw(VALUES) if kind == "set" else None, called)
    value = draw({"set": VALUES, "get": st.none() | VALUES}.get(kind, st.booleans()))
    return Operation(kind, value, called, returned)


def explained(history: History) -> bool:
    """Try all orders of all that may have happened."""
    known = [operation for operation in history if operation.returned < inf]
    lost = [operation for operation in history if operation.returned == inf]
    happened = (chosen for count in range(len(lost) + 1) for chosen in combinations(lost, count))
    return any(plays(order) for chosen in happened for order in permutations([*known, *chosen]))


def plays(order: History) -> bool:
    """Whether a register that is used in this order, by a clock that goes forward, gives all that was given."""
    state: str | None = None
    latest_call = -inf
    for operation in order:
        latest_call = max(latest_call, operation.called)
        if operation.returned < latest_call:
            return False
        present = state is not None
        match operation.kind:
            case "set":
                state = str(operation.value)
            case "get" if operation.value != state:
                return False
            case "exists" if operation.value != present:
                return False
            case "delete":
                if operation.value not in (None, present):
                    return False
                state = None
    return True


def told_apart(history: History) -> Iterator[Operation]:
    """Number the clients, so that equal operations stay two."""
    for number, each in enumerate(history):
        yield Operation(each.kind, each.value, each.called, each.returned, each.key, str(number))


@settings(max_examples=400, deadline=None)
@given(st.lists(operations(), max_size=5))
@example([wrote("a", 0), existed(True, 1, 2), read("a", 3, 4)])
@example([wrote("a", 0), wrote("b", 0), existed(True, 1, 2), read("a", 3, 4), read("b", 3, 5)])
def test_the_search_agrees_with_one_that_tries_every_order(history: list[Operation]) -> None:
    distinct = list(told_apart(history))
    assert (check(distinct) == "") == explained(distinct)
