"""The pattern matcher, compared with regular expressions, which it is not; and what patterns expand to."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etha.kvstore.patterns import Pattern, expand

FEW = "ab*/"
WIDE = "a*é\u0301\U0001f600"


def oracle(pattern: str, key: str, literal: int = 0) -> bool:
    """What a regular expression over characters says, the first `literal` of which mean themselves."""
    pieces = [re.escape(piece) for piece in pattern[literal:].split("*")]
    return re.fullmatch(re.escape(pattern[:literal]) + ".*".join(pieces), key, re.DOTALL) is not None


@st.composite
def near(draw: st.DrawFn) -> tuple[str, str]:
    """A pattern, and a key that it matches or, by one character too few, only just may not."""
    pattern = draw(st.text(FEW, max_size=8))
    key = "".join(draw(st.text(FEW, max_size=2)) if letter == "*" else letter for letter in pattern)
    missing = draw(st.integers(0, 2 * len(key)))  # beyond the end: none
    return pattern, key[:missing] + key[missing + 1 :]


@given(st.one_of(near(), st.tuples(st.text(FEW, max_size=8), st.text(FEW, max_size=12))), st.integers(0, 8))
@settings(deadline=None, max_examples=1000)
def test_it_matches_what_a_regular_expression_matches(pattern_and_key: tuple[str, str], literal: int) -> None:
    pattern, key = pattern_and_key
    assert Pattern(pattern.encode()).matches(key.encode()) == oracle(pattern, key)
    assert Pattern(pattern.encode(), literal).matches(key.encode()) == oracle(pattern, key, literal)


@given(st.text(WIDE, max_size=6), st.text(WIDE, max_size=8))
@settings(deadline=None, max_examples=200)
def test_matching_bytes_is_matching_characters(pattern: str, key: str) -> None:
    assert Pattern(pattern.encode()).matches(key.encode()) == oracle(pattern, key)


@given(st.text(FEW, max_size=8), st.text(FEW, max_size=12), st.integers(0, 8))
@settings(deadline=None, max_examples=200)
def test_every_match_begins_with_the_literal_prefix(pattern: str, key: str, literal: int) -> None:
    compiled = Pattern(pattern.encode(), literal)
    stars = pattern.count("*", literal)
    assert compiled.is_literal == (stars == 0)
    assert compiled.literal_prefix.decode() == (pattern if not stars else pattern[: pattern.index("*", literal)])
    if compiled.matches(key.encode()):
        assert key.encode().startswith(compiled.literal_prefix)


@pytest.mark.parametrize("special", ["?", "[ab]", ".", "\\", "+", "^$", "{1}", "(a|b)", "\n"])
def test_all_but_the_star_means_itself(special: str) -> None:
    assert Pattern(f"k{special}*".encode()).matches(f"k{special}1".encode())
    assert not Pattern(f"k{special}*".encode()).matches(b"ka1")


@pytest.mark.parametrize("run", ["", "0", "a/b", "*", "\n", "é"])
def test_a_star_stands_for_any_run_none_and_slashes_included(run: str) -> None:
    assert Pattern(b"rank:*/ready").matches(f"rank:{run}/ready".encode())


@pytest.mark.parametrize(
    ("pattern", "key"), [("aa*aa", "aaa"), ("a*a", "a"), ("ab*b*bc", "abbc"), ("*ab*ab*", "xabx"), ("*ab*b", "xab")]
)
def test_two_pieces_never_share_a_character(pattern: str, key: str) -> None:
    assert not Pattern(pattern.encode()).matches(key.encode())


def test_a_literal_beginning_shares_no_character_either() -> None:
    assert not Pattern(b"*a*a", 1).matches(b"*a")
    assert Pattern(b"*a*a", 1).matches(b"*aa")


class CountingKey(bytes):
    """A key that counts how often it is searched."""

    searches = 0

    def find(self, *arguments: Any) -> int:
        self.searches += 1
        return super().find(*arguments)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        (b"*a" * 1000 + b"b", b"a" * 4000),  # the end alone settles it
        (b"*a" * 1000 + b"*b*", b"a" * 4000),  # here a matcher that backtracks would try all ways to place the pieces
        (b"*a" * 1000 + b"*", b"a" * 4000),
        (b"*" * 4000, b"a" * 4000),
    ],
)
def test_a_hostile_pattern_costs_one_search_for_each_piece_and_no_second_try(pattern: bytes, key: bytes) -> None:
    counting = CountingKey(key)
    assert Pattern(pattern).matches(counting) == (b"b" not in pattern)
    assert counting.searches <= pattern.count(b"*")


def test_expand_writes_out_one_key_for_each_value_in_order() -> None:
    assert expand("rank:*/ready", (2, "b", 0)) == ["rank:2/ready", "rank:b/ready", "rank:0/ready"]
    assert expand("*", range(2)) == ["0", "1"]
    assert expand("rank:*", []) == []


def test_what_expand_writes_matches_its_pattern() -> None:
    pattern = Pattern(b"pair:foo/rank:*/ready")
    assert all(pattern.matches(key.encode()) for key in expand("pair:foo/rank:*/ready", range(64)))


@pytest.mark.parametrize(("pattern", "stars"), [("rank:0", 0), ("", 0), ("a*b*", 2)])
def test_expand_takes_a_pattern_with_one_star(pattern: str, stars: int) -> None:
    with pytest.raises(ValueError, match=f"holds {stars}"):
        expand(pattern, range(2))
