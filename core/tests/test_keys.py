"""The key format: what is a legal name, and that two different triples never make the same full key."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etha.kvstore.errors import InvalidKeyError
from etha.kvstore.keys import MAX_KEY_BYTES, check_part, join, prefix, split

PREFIX = prefix("job-42", "trainer")
PARTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
SLASHED = st.text("ab/", min_size=1, max_size=3)

LEGAL_KEYS = [
    "k",
    "/",
    "//",
    "a/b",
    "/a",
    "a/",
    "..",
    "a/../b",
    "*",
    "?",
    "[a]",
    ".",
    " ",
    "\n",
    "é",
    "e\u0301",
    "\U0001f600",
]


@pytest.mark.parametrize("key", LEGAL_KEYS)
def test_a_key_is_any_text_that_utf8_can_say(key: str) -> None:
    full = join(PREFIX, key)
    assert full == b"job-42/trainer/" + key.encode()
    assert split(full) == ("job-42", "trainer", key)


def test_different_legal_keys_make_different_full_keys() -> None:
    assert len({join(PREFIX, key) for key in LEGAL_KEYS}) == len(LEGAL_KEYS)


@given(PARTS, PARTS, KEYS)
@settings(deadline=None)
def test_split_undoes_join(namespace: str, component: str, key: str) -> None:
    assert split(join(prefix(namespace, component), key)) == (namespace, component, key)


@pytest.mark.security
@given(st.lists(st.tuples(SLASHED, SLASHED, SLASHED), min_size=2, max_size=2, unique=True))
@settings(deadline=None, max_examples=200)
def test_two_different_triples_never_make_the_same_full_key(triples: list[tuple[str, str, str]]) -> None:
    full = set()
    for namespace, component, key in triples:
        if "/" in namespace + component:
            with pytest.raises(InvalidKeyError):
                prefix(namespace, component)
            return
        full.add(join(prefix(namespace, component), key))
    assert len(full) == 2


@pytest.mark.security
def test_one_namespace_never_reaches_into_another_whose_name_begins_alike() -> None:
    assert not prefix("ns10", "c").startswith(prefix("ns1", "c"))
    assert not prefix("ns", "c10").startswith(prefix("ns", "c1"))


@pytest.mark.parametrize("what", ["namespace", "component"])
@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("", "is empty"),
        ("/", "holds '/'"),
        ("a/b", "holds '/'"),
        ("a\0", "NUL"),
        ("a\ud800", "lone surrogate"),
        ("x" * MAX_KEY_BYTES, "leaves no room"),
    ],
)
def test_a_part_that_breaks_a_rule_is_refused_by_name(part: str, said: str, what: str) -> None:
    with pytest.raises(InvalidKeyError, match=said) as caught:
        check_part(part, what)
    assert what in str(caught.value)


@pytest.mark.parametrize(("key", "said"), [("", "is empty"), ("a\0b", "NUL"), ("\udfff", "lone surrogate")])
@pytest.mark.parametrize("what", ["key", "pattern"])
def test_a_key_that_breaks_a_rule_is_refused_by_name(key: str, said: str, what: str) -> None:
    with pytest.raises(InvalidKeyError, match=said) as caught:
        join(PREFIX, key, what)
    assert what in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 1, b"k", ["k"], 1.5])
def test_what_is_no_str_is_a_type_error_that_names_what_and_which(wrong: object) -> None:
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"a namespace is a str, not {kind}"):
        check_part(wrong, "namespace")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"a key is a str, not {kind}"):
        join(PREFIX, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("letter", ["k", "é", "\U0001f600"])
def test_the_length_of_a_full_key_is_counted_in_bytes_of_utf8(letter: str) -> None:
    room = MAX_KEY_BYTES - len(PREFIX)
    fits = letter * (room // len(letter.encode()))
    fits += "k" * (room - len(fits.encode()))
    assert len(join(PREFIX, fits)) == MAX_KEY_BYTES
    with pytest.raises(InvalidKeyError, match=f"{MAX_KEY_BYTES + 1} bytes; at most {MAX_KEY_BYTES}"):
        join(PREFIX, fits + "k")


def test_the_longest_part_leaves_room_for_the_shortest_key() -> None:
    longest = check_part("n" * (MAX_KEY_BYTES - 4), "namespace")
    assert len(join(prefix(longest, "c"), "k")) == MAX_KEY_BYTES
    with pytest.raises(InvalidKeyError):
        check_part(longest + "n", "namespace")


def test_an_error_shows_no_more_than_the_beginning_of_a_long_name() -> None:
    with pytest.raises(InvalidKeyError) as caught:
        join(PREFIX, "k" * MAX_KEY_BYTES)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("wrong", [b"", b"a", b"a/b", b"a/b/", b"/b/c", b"a//c", b"\xff/b/c", b"a/b/\0", b"a/b/\xff"])
def test_what_is_no_full_key_is_not_split(wrong: bytes) -> None:
    with pytest.raises(InvalidKeyError):
        split(wrong)
