"""Options: text becomes the type of its option, and what does not fit is refused by name."""

from __future__ import annotations

import pytest

from etha.kvstore.errors import ConfigError
from etha.kvstore.hookspecs import BackendSpec, Option
from etha.kvstore.options import check_options

SPEC = BackendSpec(
    "shelf",
    "shelf.store:ShelfStore",
    "keys in a file",
    contract=1,
    options=(
        Option("path", str),
        Option("port", int),
        Option("timeout", float),
        Option("is_master", bool),
        Option("endpoints", list),
        Option("password", str, secret=True),
        Option("client", object),
    ),
)
ANY_OBJECT = object()


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("path", "5", "5"),
        ("path", "", ""),
        ("port", "2379", 2379),
        ("port", 2379, 2379),
        ("timeout", "5", 5.0),
        ("timeout", "inf", float("inf")),
        ("timeout", 5, 5.0),
        ("is_master", True, True),
        ("is_master", "true", True),
        ("is_master", "Yes", True),
        ("is_master", "1", True),
        ("is_master", "on", True),
        ("is_master", "false", False),
        ("is_master", "NO", False),
        ("is_master", "0", False),
        ("is_master", "off", False),
        ("endpoints", "h1:1", ["h1:1"]),
        ("endpoints", "h1:1,h2:2", ["h1:1", "h2:2"]),
        ("endpoints", ["h1:1"], ["h1:1"]),
        ("endpoints", ("h1:1", "h2:2"), ["h1:1", "h2:2"]),
        ("client", ANY_OBJECT, ANY_OBJECT),
        ("client", "text too", "text too"),
    ],
)
def test_a_value_is_taken_and_turned_into_the_type_of_its_option(name: str, given: object, taken: object) -> None:
    checked = check_options(SPEC, {name: given})
    assert checked == {name: taken}
    assert type(checked[name]) is type(taken)


@pytest.mark.parametrize("option", SPEC.options, ids=lambda option: option.name)
def test_none_stands_for_the_default_which_is_the_store_classs(option: Option) -> None:
    assert check_options(SPEC, {option.name: None}) == {}


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("path", 5, "str"),
        ("path", b"p", "str"),
        ("port", "http", "int"),
        ("port", "1.5", "int"),
        ("port", 1.0, "int"),
        ("port", True, "int"),
        ("timeout", "soon", "float"),
        ("timeout", True, "float"),
        ("timeout", 10**400, "float"),
        ("timeout", [5], "float"),
        ("is_master", 1, "bool"),
        ("is_master", "maybe", "bool"),
        ("endpoints", [1], "a list of str"),
        ("endpoints", {"h1": 1}, "a list of str"),
    ],
)
def test_what_is_not_of_its_options_type_is_refused_with_the_value(name: str, given: object, wanted: str) -> None:
    with pytest.raises(ConfigError, match=f"option '{name}' of backend 'shelf' is of type {wanted}") as caught:
        check_options(SPEC, {name: given})
    assert repr(given)[:20] in str(caught.value)


@pytest.mark.security
def test_a_secret_of_the_wrong_type_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="option 'password' of backend 'shelf' is of type str") as caught:
        check_options(SPEC, {"password": 271828})
    assert "271828" not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"path": None}, {"path": ""}])
def test_an_option_without_which_no_store_opens_is_asked_for_with_what_it_means(options: dict[str, object]) -> None:
    needing = BackendSpec(
        "shelf", "shelf:Store", "a file", 1, options=(Option("path", str, help="the file", required=True),)
    )
    with pytest.raises(ConfigError, match=r"backend 'shelf' needs the option 'path': the file"):
        check_options(needing, options)
    assert check_options(needing, {"path": "x"}) == {"path": "x"}


def test_an_unknown_option_is_refused_with_the_backend_and_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"backend 'shelf' has no option 'timeuot'; did you mean 'timeout'\?"):
        check_options(SPEC, {"timeuot": 5})


def test_where_no_option_is_near_all_are_listed() -> None:
    with pytest.raises(ConfigError, match="no option 'zzz'; it knows client, endpoints, is_master"):
        check_options(SPEC, {"zzz": 5})


def test_a_backend_without_options_says_that_it_has_none() -> None:
    bare = BackendSpec("bare", "bare:Store", "no options", contract=1)
    assert check_options(bare, {}) == {}
    with pytest.raises(ConfigError, match="backend 'bare' has no option 'zzz'; it knows none"):
        check_options(bare, {"zzz": 5})


def test_an_option_is_declared_with_a_type_that_a_configuration_can_say() -> None:
    with pytest.raises(TypeError, match="option 'when' has the type"):
        Option("when", dict)


def test_a_backend_declares_known_capabilities_only() -> None:
    with pytest.raises(ValueError, match=r"backend 'odd' declares \['flies'\]; the capabilities are .*'watch'"):
        BackendSpec("odd", "odd:Store", "odd", contract=1, capabilities=frozenset({"flies", "watch"}))
