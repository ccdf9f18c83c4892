"""What tests repeat over: every call of a store, and patterns with what they match."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from etha.kvstore.base import KVStore

__all__ = ["EVERY_CALL", "OPTIONAL", "PATTERNS", "READS", "WAITS", "WRITES", "PatternCase"]

KEY = "rank:0/ready"

Call = Callable[..., object]
"""Takes a store, and by name a ``key``, a ``component`` and (`WAITS` only) a ``timeout``."""

READS: Mapping[str, Call] = {
    "get": lambda store, key=KEY, **more: store.get(key, **more),
    "get_bytes": lambda store, key=KEY, **more: store.get_bytes(key, **more),
    "exists": lambda store, key=KEY, **more: store.exists(key, **more),
}

WRITES: Mapping[str, Call] = {
    "set": lambda store, key=KEY, **more: store.set(key, "1", **more),
    "set_bytes": lambda store, key=KEY, **more: store.set_bytes(key, b"\xff\x00", **more),
    "delete": lambda store, key=KEY, **more: store.delete(key, **more),
}

WAITS: Mapping[str, Call] = {
    "wait_for_key": lambda store, key=KEY, timeout=0.0, **more: store.wait_for_key(key, timeout, **more),
    "wait_for_value": lambda store, key=KEY, timeout=0.0, **more: store.wait_for_value(key, "1", timeout, **more),
    "wait_for_keys": lambda store, key=KEY, timeout=0.0, **more: store.wait_for_keys(
        f"*{key}", 1, timeout=timeout, **{"candidate_keys": [key], **more}
    ),
}
"""The three waits; each ends when the key is set to ``"1"``."""


def _state(store: KVStore, key: str = KEY, *, component: str | None = None) -> dict[str, bytes]:
    """Enter a watch and leave it again."""
    with store.watch(key, component=component) as changes:
        return changes.state


OPTIONAL: Mapping[str, Call] = {
    "list_keys": lambda store, key=KEY, **more: store.list_keys(key, **more),
    "watch": _state,
}
"""The calls that a backend may lack, each named as its capability is."""

EVERY_CALL: Mapping[str, Call] = {**READS, **WRITES, **WAITS, **OPTIONAL}
"""Every call of a store but `close`."""


class PatternCase(NamedTuple):
    """A pattern, and keys that it matches and does not match."""

    pattern: str
    matching: tuple[str, ...]
    others: tuple[str, ...]


PATTERNS = (
    PatternCase("rank:*/ready", ("rank:/ready", "rank:0/ready", "rank:a/b/ready"), ("rank:0/ready/", "a-rank:0/ready")),
    PatternCase("*", ("a", "a/b", "*", "?"), ()),
    PatternCase("**", ("a", "*"), ()),
    PatternCase("a*", ("a", "a*", "ab", "a/b"), ("b", "ba")),
    PatternCase("*a", ("a", "ba", "b/a"), ("ab",)),
    PatternCase("*a*", ("a", "bab"), ("b",)),
    PatternCase("ab*ba", ("abba", "ab/ba"), ("aba",)),
    PatternCase("a*b*c", ("abc", "axbxc", "abcbc"), ("ab", "acb")),
    PatternCase("literal", ("literal",), ("literal/", "literal2", "Literal")),
    PatternCase("a?c", ("a?c",), ("abc", "ac")),
    PatternCase("a[bc]*", ("a[bc]", "a[bc]d"), ("ab", "ac")),
    PatternCase("a.*", ("a.", "a.b"), ("ab",)),
    PatternCase("(a|b)+$*", ("(a|b)+$",), ("a", "b", "ab")),
    PatternCase("a\\*", ("a\\", "a\\b"), ("a*", "ab")),
    PatternCase("a_%*", ("a_%", "a_%b"), ("abc",)),
    PatternCase("\u00e9*", ("\u00e9", "\u00e9t\u00e9"), ("e\u0301", "e")),
)
"""``*`` is any run of characters, none and ``/`` included; all else means itself."""
