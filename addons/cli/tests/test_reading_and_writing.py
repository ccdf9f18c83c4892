"""``get``, ``set``, ``rm`` and ``ls`` on real servers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from addons.cli.tests.conftest import Place, Terminal

BINARY = bytes(range(256))


@pytest.mark.parametrize("text", ["", "Grüße 💫,\ntwo lines\n"])
def test_get_writes_the_bytes_of_a_text_and_no_more(place: Place, text: str) -> None:
    place.store().set("greeting", text)
    assert place.kv("get", "greeting") == (0, text.encode(), "")


def test_get_of_a_key_that_is_not_there_ends_with_1_and_writes_nothing(etcd: Place) -> None:
    code, out, err = etcd.kv("get", "rank:7/ready")
    assert (code, out) == (1, b"")
    assert err == f"etha-kv: there is no key 'rank:7/ready' in {etcd.namespace}/trainer\n"


def test_set_stores_a_text_from_the_command_line_a_file_or_standard_input_and_leaves_it(
    place: Place, tmp_path: Path
) -> None:
    file = tmp_path / "value"
    file.write_text("Grüße 💫")
    assert place.kv("set", "from-line", "10.0.0.1:29500") == (0, b"", "")
    assert place.kv("set", "from-file", "--file", str(file)) == (0, b"", "")
    assert place.kv("set", "from-input", "-") == (0, b"", "")
    store = place.store()
    written = [store.get(key) for key in ("from-line", "from-file", "from-input")]
    assert written == [b"10.0.0.1:29500", "Grüße 💫".encode(), b""]


def test_a_value_may_begin_with_a_minus_after_two_of_them(etcd: Place) -> None:
    assert etcd.kv("set", "offset", "--", "-1").code == 0
    assert etcd.store().get("offset") == b"-1"


def test_bytes_come_back_exactly_and_to_python_too(place: Place, tmp_path: Path) -> None:
    (tmp_path / "shards").write_bytes(BINARY)
    assert place.kv("set", "shards", "--bytes", "--file", str(tmp_path / "shards")).code == 0
    assert place.store().get_bytes("shards") == BINARY
    assert place.kv("get", "shards", "--bytes") == (0, BINARY, "")


@pytest.mark.parametrize("source", ["file", "input"])
def test_what_is_no_text_is_refused_unless_it_is_to_be_bytes(etcd: Place, tmp_path: Path, source: str) -> None:
    (tmp_path / "shards").write_bytes(BINARY)
    arguments = ["--file", str(tmp_path / "shards")] if source == "file" else ["-"]
    code, _, err = etcd.kv("set", "shards", *arguments, given=BINARY)
    assert code == 2
    assert "not text in UTF-8; with --bytes it is stored as binary data" in err
    assert not etcd.store().exists("shards")


def test_a_newline_that_echo_added_is_stored_and_pointed_out(etcd: Place) -> None:
    code, _, err = etcd.kv("set", "ready", "-", given=b"1\n")
    assert code == 0
    assert "ends with a newline" in err
    assert etcd.store().get("ready") == b"1\n"


@pytest.mark.parametrize("arguments", [[], ["1", "--file", "value"]])
def test_set_takes_one_value(etcd: Place, arguments: list[str]) -> None:
    code, _, err = etcd.kv("set", "ready", *arguments)
    assert (code, err) == (2, "etha-kv: give one of VALUE, --file FILE, and - for standard input\n")


def test_a_file_that_can_not_be_read_is_a_mistake_of_the_command(etcd: Place, tmp_path: Path) -> None:
    code, _, err = etcd.kv("set", "ready", "--file", str(tmp_path / "nothing"))
    assert (code, err) == (2, f"etha-kv: {tmp_path / 'nothing'} can't be read: No such file or directory\n")


def test_a_lease_takes_the_key_away_which_set_says_in_json_and_keeps_from_a_log(etcd: Place) -> None:
    leased = ["set", "ready", "1", "--url", f"{etcd.url}?lease_ttl=2"]
    with etcd.store().watch("ready") as changes:
        assert etcd.kv(*leased) == (0, b"", "")
        assert [changes.next(30.0).value, changes.next(30.0).value] == [b"1", None]
    assert json.loads(etcd.kv(*leased, "--json").out) == {"key": "ready", "bytes": 1, "lease_ttl": 2}


def test_rm_deletes_a_key_and_a_second_one_finds_none(place: Place) -> None:
    place.store().set("ready", "1")
    assert place.kv("rm", "ready") == (0, b"", "")
    assert not place.store().exists("ready")
    code, out, err = place.kv("rm", "ready")
    assert (code, out) == (1, b"")
    assert "no key 'ready'" in err


def test_ls_lists_the_keys_that_match_sorted(place: Place) -> None:
    store = place.store()
    for key in ("rank:1/ready", "rank:0/ready", "weights/version"):
        store.set(key, "1")
    assert place.kv("ls") == (0, b"rank:0/ready\nrank:1/ready\nweights/version\n", "")
    assert place.kv("ls", "rank:*/ready").out == b"rank:0/ready\nrank:1/ready\n"
    assert place.kv("ls", "rank:*/done").code == 1


def test_ls_long_has_the_values_after_a_tab(tcpstore: Place) -> None:
    store = tcpstore.store()
    store.set("rank:0/address", "10.0.0.1:29500")
    store.set("note", "a\ttab, a\nline")
    assert tcpstore.kv("ls", "--long").out == b"note\ta\\ttab, a\\nline\nrank:0/address\t10.0.0.1:29500\n"


def test_a_key_of_several_lines_is_one_line_of_ls_and_exact_in_json(etcd: Place) -> None:
    etcd.store().set("two\nlines\x1b[2J", "1")
    assert etcd.kv("ls").out == b"two\\nlines\\x1b[2J\n"
    assert json.loads(etcd.kv("ls", "--json").out) == ["two\nlines\x1b[2J"]


def test_component_overrides_the_one_of_the_url(etcd: Place) -> None:
    etcd.store("inference").set("ready", "1")
    assert etcd.kv("get", "ready").code == 1
    assert etcd.kv("get", "ready", "--component", "inference").out == b"1"


def test_json_says_what_a_person_sees(etcd: Place) -> None:
    said = [json.loads(etcd.kv(*command, "--json").out) for command in (["set", "ready", "1"], ["get", "ready"])]
    said += [json.loads(etcd.kv(*command, "--json").out) for command in (["ls", "--long"], ["rm", "ready"])]
    assert said == [
        {"key": "ready", "bytes": 1},
        {"key": "ready", "value": "1"},
        [{"key": "ready", "value": "1"}],
        {"key": "ready", "deleted": True},
    ]
    code, out, err = etcd.kv("get", "ready", "--json")
    assert (code, out) == (1, b"")
    assert json.loads(err) | {"message": ""} == {"error": "NotFoundError", "message": "", "exit_code": 1}


def test_json_gives_binary_data_as_base64(etcd: Place) -> None:
    etcd.store().set_bytes("shards", BINARY)
    encoded = base64.b64encode(BINARY).decode()
    assert json.loads(etcd.kv("get", "shards", "--json").out) == {"key": "shards", "base64": encoded}
    assert json.loads(etcd.kv("ls", "--long", "--json").out) == [{"key": "shards", "base64": encoded}]


def test_on_a_terminal_get_adds_a_line_end(etcd: Place, terminal: Callable[..., Terminal]) -> None:
    etcd.store().set("address", "10.0.0.1:29500")
    screen = terminal("get", "address", "--url", etcd.url)
    assert screen.ends() == 0
    assert screen.text == "10.0.0.1:29500"


@pytest.mark.security
def test_a_value_does_nothing_to_a_terminal(etcd: Place, terminal: Callable[..., Terminal]) -> None:
    etcd.store().set("note", "before\x1b[2J\x1b]0;title\x07after")
    screen = terminal("get", "note", "--url", etcd.url)
    assert screen.ends() == 0
    assert r"before\x1b[2J\x1b]0;title\x07after" in screen.text
    assert "send the output to a file to get them" in screen.text.replace("\n", "")
