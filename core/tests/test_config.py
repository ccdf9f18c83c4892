"""Configurations: mapping, TOML, URL and environment all open the same store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from etha.kvstore import open_store_from_config
from etha.kvstore.errors import BackendNotFoundError, ConfigError, InvalidKeyError

pytestmark = pytest.mark.usefixtures("noted_backends")


def opened(source: Any = None, **overrides: object) -> tuple[str, str, Mapping[str, object]]:
    """Open the store that a configuration describes, and tell its namespace, component and options."""
    with open_store_from_config(source, **overrides) as store:
        return store.namespace, store.component, vars(store)["options"]


BASE = {"backend": "many", "namespace": "job-42", "component": "trainer"}


# --- a mapping ---


def test_a_mapping_gives_backend_names_and_options() -> None:
    assert opened(BASE) == ("job-42", "trainer", {})
    configuration = {**BASE, "options": {"endpoints": ["h1:1"], "timeout": 5}}
    assert opened(configuration) == ("job-42", "trainer", {"endpoints": ["h1:1"], "timeout": 5.0})


def test_a_mapping_is_left_as_it_was() -> None:
    options = {"endpoints": ["h1:1"]}
    configuration = {**BASE, "options": options}
    opened(configuration, timeout=5, component="inference")
    assert configuration == {**BASE, "options": {"endpoints": ["h1:1"]}}
    assert configuration["options"] is options


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"no key 'namspace'; did you mean 'namespace'\?"):
        opened({"backend": "many", "namspace": "job-42", "component": "trainer"})


@pytest.mark.parametrize("field", ["backend", "namespace", "component"])
def test_a_field_that_is_missing_or_no_text_is_named(field: str) -> None:
    with pytest.raises(ConfigError, match=f"the configuration names no {field}"):
        opened({name: value for name, value in BASE.items() if name != field})
    with pytest.raises(ConfigError, match=f"'{field}' in the configuration is a str, not int"):
        opened({**BASE, field: 42})


@pytest.mark.parametrize("options", [None, "timeout=5", ["timeout"], 5])
def test_options_are_a_table(options: object) -> None:
    with pytest.raises(ConfigError, match=f"'options' is a table of options, not {type(options).__name__}"):
        opened({**BASE, "options": options})


@pytest.mark.parametrize("field", ["backend", "namespace", "component"])
def test_a_field_among_the_options_is_refused_rather_than_chosen_between(field: str) -> None:
    with pytest.raises(ConfigError, match=f"'{field}'"):
        opened({**BASE, "options": {field: "other"}})
    with pytest.raises(ConfigError, match=f"'{field}'"):
        opened(f"many:///job-42/trainer?{field}=other")


@pytest.mark.parametrize("source", [5, 1.5, b"many:///job-42/trainer", ["many"]])
def test_what_is_no_configuration_is_a_type_error(source: object) -> None:
    with pytest.raises(TypeError, match=f"a mapping, a URL or a path, not {type(source).__name__}"):
        opened(source)


# --- a TOML file ---

TOML = """
[elsewhere]
key = "of somebody else"

[kvstore]
backend = "many"
namespace = "job-${ATTEMPT}"
component = "trainer"

[kvstore.options]
endpoints = ["${HOST}:2379", "h2:2379"]
timeout = 5
tls = true
"""


@pytest.mark.parametrize("kind", [str, Path])
def test_a_toml_file_holds_a_table_with_the_same_keys(
    kind: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTEMPT", "7")
    monkeypatch.setenv("HOST", "h1")
    file = tmp_path / "kvstore.toml"
    file.write_text(TOML, encoding="utf-8")
    options = {"endpoints": ["h1:2379", "h2:2379"], "timeout": 5.0, "tls": True}
    assert opened(kind(file)) == ("job-7", "trainer", options)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[kvstore", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
        (b"", r"has no \[kvstore\] table"),
        (b"kvstore = 1", r"has no \[kvstore\] table"),
        (b"[kvstore]\nbackend = 'many'\nnamespace = 'n'", "names no component"),
        (b"[kvstore]\nbackend = 'many'\ncompnent = 'c'", "did you mean 'component'"),
    ],
)
def test_a_toml_file_that_is_not_as_it_should_be_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "kvstore.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        opened(file)
    if "did you mean" not in said:
        assert str(file) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml can't be read: No such file"):
        opened(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        opened(tmp_path)


# --- a URL ---


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("many:///job-42/trainer", {}),
        ("many://h1:2379/job-42/trainer", {"endpoints": ["h1:2379"]}),
        ("many://h1/job-42/trainer/", {"endpoints": ["h1"]}),
        ("many://h1:2379,h2:2379/job-42/trainer", {"endpoints": ["h1:2379", "h2:2379"]}),
        ("many://[::1]:2379/job-42/trainer", {"endpoints": ["[::1]:2379"]}),
        ("many://h1:1,[::1]:2,[fe80::1]:3/job-42/trainer", {"endpoints": ["h1:1", "[::1]:2", "[fe80::1]:3"]}),
        ("many://u@h1/job-42/trainer", {"user": "u", "endpoints": ["h1"]}),
        ("many://u:@h1/job-42/trainer", {"user": "u", "password": "", "endpoints": ["h1"]}),
        ("many://u:p:w@h1/job-42/trainer", {"user": "u", "password": "p:w", "endpoints": ["h1"]}),
        ("many://u:a@b@h1/job-42/trainer", {"user": "u", "password": "a@b", "endpoints": ["h1"]}),
        ("many://a%3Ab:%40%2F%3F%23%25@h1/job-42/trainer", {"user": "a:b", "password": "@/?#%", "endpoints": ["h1"]}),
        ("many://u:[\u2100]@h1/job-42/trainer", {"user": "u", "password": "[\u2100]", "endpoints": ["h1"]}),
        ("many://u:p@/job-42/trainer", {"user": "u", "password": "p"}),
        ("one:///job-42/trainer", {}),
        ("one://h1/job-42/trainer", {"host": "h1"}),
        ("one://h1:29500/job-42/trainer", {"host": "h1", "port": 29500}),
        ("one://[::1]:29500/job-42/trainer", {"host": "::1", "port": 29500}),
        ("one://[::1]/job-42/trainer", {"host": "::1"}),
        ("alone:///job-42/trainer?timeout=5", {"timeout": 5.0}),
        ("alone:///job-42/trainer?timeout=0.5&retries=3&tls=true", {"timeout": 0.5, "retries": 3, "tls": True}),
        ("alone:///job-42/trainer?user=a%26b%20c", {"user": "a&b c"}),
        ("alone:///job-42/trainer?user=", {"user": ""}),
    ],
)  # fmt: skip
def test_a_url_gives_hosts_login_names_and_options(url: str, options: dict[str, object]) -> None:
    assert opened(url) == ("job-42", "trainer", options)


def test_names_in_a_url_are_percent_decoded_once() -> None:
    assert opened("alone:///job%2042/tr%C3%A4ner%2541") == ("job 42", "träner%41", {})
    with pytest.raises(InvalidKeyError, match="holds '/'"):
        opened("alone:///job%2F42/trainer")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("alone://", "the URL names no namespace"),
        ("alone:///job-42", "the URL names no component"),
        ("alone:///job-42/trainer/key", r"backend://\[user:password@\]hosts/namespace/component"),
        ("alone:///job-42/trainer#part", r"backend://\[user:password@\]hosts/namespace/component"),
        ("://h1/job-42/trainer", r"backend://\[user:password@\]hosts/namespace/component"),
        ("alone://h1/job-42/trainer", "backend 'alone' connects to no host; write alone:///namespace/component"),
        ("one://h1,h2/job-42/trainer", "backend 'one' connects to one host"),
        ("one://h1:http/job-42/trainer", "option 'port' of backend 'one' is of type int"),
        ("alone:///job-42/trainer?timeout=soon", "option 'timeout' of backend 'alone' is of type float"),
        ("alone:///job-42/trainer?timeuot=5", r"no option 'timeuot'; did you mean 'timeout'\?"),
        ("alone:///job-42/trainer?timeout=5&timeout=6", "twice"),
        ("many://u:p@h1/job-42/trainer?user=v", "twice"),
        ("many://h1/job-42/trainer?endpoints=h2", "twice"),
    ],
)
def test_a_url_that_is_not_as_it_should_be_is_refused_with_the_reason(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        opened(url)


def test_a_url_of_an_unknown_backend_says_so() -> None:
    with pytest.raises(BackendNotFoundError, match=r"'mnay'.*Did you mean 'many'"):
        opened("mnay://h1/job-42/trainer")


# --- overrides ---


@pytest.mark.parametrize(
    "source", [{**BASE, "options": {"endpoints": ["h1"], "timeout": 1}}, "many://h1/job-42/trainer?timeout=1"]
)
def test_keywords_win_over_the_source(source: object) -> None:
    assert opened(source, component="inference") == ("job-42", "inference", {"endpoints": ["h1"], "timeout": 1.0})
    assert opened(source, timeout=2, retries=3)[2] == {"endpoints": ["h1"], "timeout": 2.0, "retries": 3}
    assert opened(source, backend="many", namespace="job-43")[0] == "job-43"


def test_keywords_may_complete_a_source() -> None:
    assert opened({"backend": "alone"}, namespace="job-42", component="trainer") == ("job-42", "trainer", {})
    assert opened("alone:///job-42", component="trainer") == ("job-42", "trainer", {})


def test_an_unknown_keyword_is_an_unknown_option() -> None:
    with pytest.raises(ConfigError, match="backend 'many' has no option 'timeuot'"):
        opened(BASE, timeuot=5)


# --- the environment ---


def test_without_a_source_the_url_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETHA_KVSTORE_URL", "many://h1/job-42/trainer")
    assert opened() == ("job-42", "trainer", {"endpoints": ["h1"]})
    assert opened(component="inference")[1] == "inference"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_source_and_without_the_variable_the_error_names_it(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ETHA_KVSTORE_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("ETHA_KVSTORE_URL", value)
    with pytest.raises(ConfigError, match="ETHA_KVSTORE_URL is not set; set it to a URL such as etcd://"):
        opened()


def test_the_variable_holds_a_url_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETHA_KVSTORE_URL", "kvstore.toml")
    with pytest.raises(ConfigError, match="ETHA_KVSTORE_URL is not a URL"):
        opened()
    monkeypatch.setenv("ETHA_KVSTORE_URL", "many:///job-42")
    with pytest.raises(ConfigError, match="ETHA_KVSTORE_URL names no component"):
        opened()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("job-${RUN}", "job-7"),
        ("${RUN}-${ATTEMPT}", "7-0"),
        ("$${RUN}", "${RUN}"),
        ("${RUN}$${RUN}", "7${RUN}"),
        ("$RUN", "$RUN"),
        ("${NESTED}", "${RUN}"),
        ("${EMPTY}x", "x"),
    ],
)
def test_the_environments_values_stand_for_their_names_once(
    written: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RUN": "7", "ATTEMPT": "0", "NESTED": "${RUN}", "EMPTY": ""}.items():
        monkeypatch.setenv(name, value)
    assert opened({**BASE, "namespace": written})[0] == meant
    assert opened(f"alone:///{written}/trainer")[0] == meant
    assert opened({**BASE, "options": {"user": written}})[2] == {"user": meant}
    assert opened(f"alone:///job-42/trainer?user={written}")[2] == {"user": meant}


@pytest.mark.parametrize("hosts", [["${HOST}:1", "h2:2"], ("${HOST}:1", "h2:2")])
def test_they_stand_in_every_string_of_a_list_as_well(hosts: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "h1")
    assert opened({**BASE, "options": {"endpoints": hosts}})[2] == {"endpoints": ["h1:1", "h2:2"]}


def test_they_stand_in_the_hosts_and_the_login_of_a_url_unencoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTS", "h1:1,[::1]:2")
    monkeypatch.setenv("SECRET", "p@ss/w%41rd")
    options = {"user": "u", "password": "p@ss/w%41rd", "endpoints": ["h1:1", "[::1]:2"]}
    assert opened("many://u:${SECRET}@${HOSTS}/job-42/trainer")[2] == options


@pytest.mark.parametrize(
    "source", [{**BASE, "namespace": "job-${UNSET}"}, "alone:///job-${UNSET}/trainer", "alone:///a/b?user=${UNSET}"]
)
def test_an_unset_variable_is_an_error_that_names_it(source: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    with pytest.raises(ConfigError, match=r"uses \$\{UNSET\}, and the environment variable UNSET is not set"):
        opened(source)
