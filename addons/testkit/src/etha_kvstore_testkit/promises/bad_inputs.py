"""Bad input: every argument of every call refuses what it can't be, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import InvalidKeyError, UnsupportedOperationError
from etha_kvstore_testkit.harness import Harness
from etha_kvstore_testkit.observe import PATIENCE, in_background
from etha_kvstore_testkit.tables import EVERY_CALL, OPTIONAL, READS, WAITS, WRITES

__all__ = ["NOT_TIMEOUTS", "BadInputPromises"]

KEPT = "rank:0/ready"
"""The key that is there with the value ``"1"``, so that no call but a refused one takes any time."""

BadValues = Mapping[str, tuple[object, type[Exception]]]
"""Values by what is wrong with them, and the error that each must raise."""

NOT_KEYS: BadValues = {
    "empty": ("", InvalidKeyError),
    "NUL alone": ("\0", InvalidKeyError),
    "with NUL": ("a\0b", InvalidKeyError),
    "with a lone surrogate": ("a\ud800b", InvalidKeyError),
    "with half a pair": ("\udfff", InvalidKeyError),
    "too long": ("k" * 4096, InvalidKeyError),
    "too long in UTF-8": ("\u00e9" * 2100, InvalidKeyError),
    "bytes": (b"key", TypeError),
    "None": (None, TypeError),
    "an int": (7, TypeError),
    "a float": (1.5, TypeError),
    "a bool": (True, TypeError),
    "a list": (["key"], TypeError),
    "a type": (str, TypeError),
}

NOT_COMPONENTS: BadValues = {
    "empty": ("", InvalidKeyError),
    "a slash": ("/", InvalidKeyError),
    "with a slash": ("a/b", InvalidKeyError),
    "with NUL": ("a\0b", InvalidKeyError),
    "with a lone surrogate": ("a\ud800", InvalidKeyError),
    "too long": ("c" * 4096, InvalidKeyError),
    "bytes": (b"component", TypeError),
    "an int": (7, TypeError),
    "zero": (0, TypeError),
    "a bool": (False, TypeError),
    "a tuple": (("component",), TypeError),
}

NOT_TEXTS: BadValues = {
    "bytes": (b"1", TypeError),
    "a bytearray": (bytearray(b"1"), TypeError),
    "None": (None, TypeError),
    "an int": (1, TypeError),
    "a float": (1.0, TypeError),
    "a bool": (True, TypeError),
    "a list": (["1"], TypeError),
    "with a lone surrogate": ("\ud800", ValueError),
}

NOT_DATA: BadValues = {
    "text": ("1", TypeError),
    "no text": ("", TypeError),
    "None": (None, TypeError),
    "an int": (4, TypeError),
    "a list": ([1, 2], TypeError),
    "a dict": ({}, TypeError),
}

NOT_TIMEOUTS: BadValues = {
    "negative": (-1, ValueError),
    "a little negative": (-1e-9, ValueError),
    "minus infinity": (-math.inf, ValueError),
    "very negative": (-(10**400), ValueError),
    "NaN": (math.nan, ValueError),
    "text": ("1", TypeError),
    "bytes": (b"1", TypeError),
    "None": (None, TypeError),
    "a list": ([1.0], TypeError),
    "a complex": (1j, TypeError),
}

NOT_COUNTS: BadValues = {
    "negative": (-1, ValueError),
    "very negative": (-(10**400), ValueError),
    "True": (True, TypeError),
    "False": (False, TypeError),
    "a float": (1.0, TypeError),
    "NaN": (math.nan, TypeError),
    "text": ("1", TypeError),
    "None": (None, TypeError),
    "a list": ([1], TypeError),
}

NOT_CANDIDATES: BadValues = {
    "text": (KEPT, TypeError),
    "no text": ("", TypeError),
    "bytes": (KEPT.encode(), TypeError),
    "an int": (1, TypeError),
    "a list of bytes": ([KEPT.encode()], TypeError),
    "a list with None": ([KEPT, None], TypeError),
    "a list of ints": ([1], TypeError),
    "a list with an empty key": ([KEPT, ""], InvalidKeyError),
    "a list with NUL": ([KEPT, "a\0b"], InvalidKeyError),
    "a list with a lone surrogate": (["a\ud800"], InvalidKeyError),
    "a list with a key too long": ([KEPT, "k" * 4096], InvalidKeyError),
}


class Argument(NamedTuple):
    """One argument of one call, and what it must refuse.

    Attributes
    ----------
    name : str
        The call, and the argument.
    call : callable
        Takes the store and the value.
    bad : mapping
        The values.
    """

    name: str
    call: Callable[[KVStore, Any], object]
    bad: BadValues


def _named(call: str, argument: str, bad: BadValues) -> Argument:
    """Make an argument that the calls of `EVERY_CALL` take by name."""
    return Argument(f"{call} {argument}", lambda store, value: EVERY_CALL[call](store, **{argument: value}), bad)


ARGUMENTS = [
    *(_named(call, "key", NOT_KEYS) for call in [*READS, *WRITES, "wait_for_key", "wait_for_value", *OPTIONAL]),
    *(_named(call, "component", NOT_COMPONENTS) for call in EVERY_CALL),
    *(_named(call, "timeout", NOT_TIMEOUTS) for call in WAITS),
    Argument("set value", lambda store, value: store.set(KEPT, value), NOT_TEXTS),
    Argument("set_bytes data", lambda store, data: store.set_bytes(KEPT, data), NOT_DATA),
    Argument("wait_for_value expected", lambda store, value: store.wait_for_value(KEPT, value, 0), NOT_TEXTS),
    Argument(
        "wait_for_keys key_pattern",
        lambda store, key: store.wait_for_keys(key, 0, timeout=0, candidate_keys=[KEPT]),
        NOT_KEYS,
    ),
    Argument(
        "wait_for_keys expected_count",
        lambda store, count: store.wait_for_keys(KEPT, count, timeout=0, candidate_keys=[KEPT]),
        NOT_COUNTS,
    ),
    Argument(
        "wait_for_keys value",
        lambda store, value: store.wait_for_keys(KEPT, 0, value, 0, [KEPT]),
        NOT_TEXTS,
    ),
    Argument(
        "wait_for_keys candidate_keys",
        lambda store, keys: store.wait_for_keys("rank:*", 0, timeout=0, candidate_keys=keys),
        NOT_CANDIDATES,
    ),
]


class BadInputPromises(Harness):
    """What breaks a rule raises before anything is sent, and what was there stays."""

    @pytest.mark.parametrize("argument", ARGUMENTS, ids=lambda argument: argument.name)
    def test_a_bad_value_is_refused_and_nothing_is_sent(
        self, store: KVStore, other: KVStore, argument: Argument, record_property: Callable[[str, object], None]
    ) -> None:
        record_property("bad inputs", len(argument.bad))
        other.set(KEPT, "1")
        raised = {
            what: in_background(argument.call, store, value).exception(PATIENCE)
            for what, (value, _) in argument.bad.items()
        }
        optional = argument.name.split()[0]
        lacking = (UnsupportedOperationError,) if optional in OPTIONAL and not self.has(optional) else ()
        wrong = {
            f"{what}, {value!a:.20}": found or "accepted"
            for what, (value, error) in argument.bad.items()
            if not isinstance(found := raised[what], (error, *lacking))
        }
        assert wrong == {}
        assert (store.get(KEPT), other.get(KEPT)) == (b"1", b"1")
        if self.has("list_keys"):
            assert other.list_keys() == [KEPT]

    def test_bytes_given_to_set_are_told_of_set_bytes(self, store: KVStore) -> None:
        with pytest.raises(TypeError, match="set_bytes"):
            store.set(KEPT, b"1")  # type: ignore[arg-type]
