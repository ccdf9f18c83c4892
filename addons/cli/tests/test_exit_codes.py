"""Which exit code a command ends with, and that it ends quietly: no traceback, whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etha_kvstore_tcpstore import TCPKVStore

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Done, Place, Running, Terminal

Kv = Callable[..., "Done"]

ABSENT = "etcd://127.0.0.1:1/n/c?connect_timeout=0.2"

PLUGIN = """
from etha.kvstore.hookspecs import BackendSpec, hookimpl
from etha.kvstore.skeleton import SkeletalStore

SPEC = BackendSpec("shelf", "shelf_plugin:ShelfStore", "a shelf", contract=1)

class ShelfStore(SkeletalStore):
    spec = SPEC
    def _read(self, key, deadline):
        raise AttributeError("a slip of the shelf's author")
    _write = _remove = _read

@hookimpl
def kvstore_backend():
    return SPEC
"""


@pytest.fixture
def shelf(tmp_path: Path) -> str:
    """Install a backend with a bug, and give what to put into ``PYTHONPATH``."""
    (tmp_path / "shelf_plugin.py").write_text(textwrap.dedent(PLUGIN))
    metadata = tmp_path / "etha_kvstore_shelf-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: etha-kvstore-shelf\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[etha.kvstore]\nshelf = shelf_plugin\n")
    return str(tmp_path)


@pytest.mark.parametrize("command", [["get", "k"], ["set", "k", "1"], ["rm", "k"], ["ls"], ["watch"], ["top"]])
def test_a_store_that_can_not_be_reached_ends_a_command_with_3(run: Kv, command: list[str]) -> None:
    code, out, err = run(*command, "--url", ABSENT)
    assert (code, out) == (3, b"")
    assert "127.0.0.1:1" in err
    assert err.count("\n") == 1


def test_a_failure_in_json_is_one_document_on_standard_error(kv: Kv) -> None:
    _, out, err = kv("get", "k", "--url", ABSENT, "--json")
    assert out == b""
    assert json.loads(err)["error"] == "StoreUnavailableError"
    assert json.loads(err)["exit_code"] == 3


@pytest.mark.parametrize(
    "arguments", [["gte"], ["get"], ["get", "k", "--colour"], ["wait", "k", "--timeout", "soon"], ["wait"]]
)
def test_a_mistake_in_the_command_line_ends_it_with_2(run: Kv, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, b"")
    assert err.startswith("etha-kv: ")
    assert err.count("\n") == 1
    assert run(*arguments, "--json").code == 2
    assert json.loads(run(*arguments, "--json").err)["exit_code"] == 2


@pytest.mark.parametrize("arguments", [["get"], ["get", "k", "--colour"], ["get", "k", "l"]])
def test_a_mistake_in_the_command_line_is_a_sentence_and_the_help_another(run: Kv, arguments: list[str]) -> None:
    assert re.fullmatch(r"etha-kv: [A-Z].*[^.]\. --help says more\.\n", run(*arguments).err)


@pytest.mark.parametrize(
    "arguments", [["get", ""], ["set", "k" * 5000, "1"], ["wait", "k", "--timeout", "nan"], ["get", "k", "--bytes"]]
)
def test_what_a_store_refuses_to_be_given_ends_it_with_2(tcpstore: Place, arguments: list[str]) -> None:
    tcpstore.store().set("k", "not base64")
    code, out, err = tcpstore.kv(*arguments)
    assert (code, out) == (2, b"")
    assert err.count("\n") == 1


def test_a_watch_that_the_backend_lacks_is_a_mistake_and_what_to_use_is_said(tcpstore: Place) -> None:
    code, out, err = tcpstore.kv("watch")
    assert (code, out) == (2, b"")
    assert "backend 'tcpstore' lacks the capability 'watch'; etha-kv top looks once a second" in err


@pytest.mark.parametrize("command", [["ls"], ["ls", "--long"], ["top", "--once"]])
def test_keys_that_an_old_torch_can_not_list_are_asked_for_by_name(
    tcpstore: Place, kv: Kv, tmp_path: Path, command: list[str]
) -> None:
    metadata = tmp_path / "torch-2.9.1.dist-info"  # what the plugin goes by, found before the torch that is installed
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1\n")
    code, out, err = kv(*command, "--url", tcpstore.url, PYTHONPATH=str(tmp_path))
    assert (code, out) == (2, b"")
    assert "lacks the capability 'list_keys'; etha-kv get and etha-kv wait ask for keys by name" in err


def test_a_bug_of_a_backend_is_neither_an_answer_nor_a_traceback(kv: Kv, shelf: str) -> None:
    code, out, err = kv("get", "k", "--url", "shelf:///n/c", PYTHONPATH=shelf)
    assert (code, out) == (70, b"")
    assert err == "etha-kv: AttributeError: a slip of the shelf's author\n"


@pytest.mark.parametrize("command", ["get", "set", "rm", "ls", "watch", "wait", "top", "doctor", "backends"])
def test_the_help_of_each_command_says_its_exit_codes(run: Kv, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    said = " ".join(out.decode().split())
    assert "0 found or done; 1 not found, or timed out; 2 a mistake" in said
    assert "3 the store can't be reached or refuses" in said


def test_without_a_command_the_help_lists_them(run: Kv) -> None:
    code, out, _ = run()
    assert code == 0
    assert b"doctor" in out
    assert out == run("--help").out


@pytest.mark.parametrize("command", [["watch"], ["watch", "--table"], ["wait", "k"], ["top"]])
def test_ctrl_c_ends_a_command_with_130_and_gives_the_terminal_back(
    etcd: Place, terminal: Callable[..., Terminal], command: list[str]
) -> None:
    etcd.store().set("there", "1")
    screen = terminal(*command, "--url", etcd.url)
    screen.awaits("there|0 of 1")
    screen.press("\x03")
    assert screen.ends() == 130
    assert "Traceback" not in screen.text
    assert screen.has_cursor
    assert screen.modes_now == screen.modes


def test_ctrl_c_ends_a_wait_at_a_pipe_with_130_and_in_silence(place: Place, running: Callable[..., Running]) -> None:
    waiting = running("wait", "k", "--url", place.url)
    waiting.awaits("0 of 1")
    waiting.process.send_signal(signal.SIGINT)
    assert waiting.ends() == 130
    assert "Traceback" not in waiting.err
    assert waiting.out == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_closes_the_store_so_that_the_host_need_not_wait_for_it(
    running: Callable[..., Running], number: signal.Signals
) -> None:
    host = TCPKVStore("n", "c", host="127.0.0.1", port=0, is_master=True, timeout=60.0)
    waiting = running("wait", "k", "--url", f"tcpstore://127.0.0.1:{host.port}/n/c")
    waiting.awaits("0 of 1")
    waiting.process.send_signal(number)
    assert waiting.ends() == 128 + number
    began = time.monotonic()
    host.close()
    assert time.monotonic() - began < 30.0  # for one that did not say goodbye it waits its operation timeout


@pytest.mark.parametrize(
    "command", [["ls"], ["ls", "--json"], ["top", "--once"], ["get", "k"], ["watch"], ["backends"]]
)
def test_a_reader_that_has_gone_ends_a_command_in_silence(etcd: Place, command: list[str]) -> None:
    etcd.store().set("k", "1")
    unread, pipe = os.pipe()
    os.close(unread)
    ended = etcd.kv(*command, out=pipe)
    os.close(pipe)
    assert (ended.code, ended.err) == (141, "")


@pytest.mark.parametrize("command", [["ls"], ["ls", "--json"], ["top", "--once"], ["get", "k"]])
def test_a_result_that_can_not_be_written_is_not_taken_for_an_answer(etcd: Place, command: list[str]) -> None:
    etcd.store().set("k", "1")
    code, _, err = etcd.kv(*command, redirected=">/dev/full")
    assert code == 74
    assert "standard output can't be written: No space left on device" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "redirected", "code"),
    [(["get", "k"], ">&-", 0), (["wait", "k"], ">&- 2>&-", 0), (["get", "nothing"], "2>&-", 1), (["ls"], "<&-", 0)],
)
def test_a_command_works_where_what_it_does_not_need_is_closed(
    etcd: Place, command: list[str], redirected: str, code: int
) -> None:
    etcd.store().set("k", "1")
    ended = etcd.kv(*command, redirected=redirected)
    assert (ended.code, ended.err) == (code, "")


def test_a_log_on_a_full_disk_does_not_change_how_a_command_ends(place: Place, kv: Kv) -> None:
    place.store().set("k", "1")
    assert place.kv("wait", "k", redirected="2>/dev/full") == (0, b"1", "")
    assert kv("get", "k", "--url", ABSENT, redirected="2>/dev/full").code == 3


def test_a_value_is_not_read_from_an_input_that_is_closed(etcd: Place) -> None:
    code, _, err = etcd.kv("set", "k", "-", redirected="<&-")
    assert (code, err) == (2, "etha-kv: standard input is closed, so there is no value to read\n")
    assert not etcd.store().exists("k")


def test_nohup_is_respected(etcd: Place, running: Callable[..., Running]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what a command inherits from nohup
    try:
        waiting = running("wait", "k", "--url", etcd.url)
    finally:
        signal.signal(signal.SIGHUP, before)
    waiting.awaits("0 of 1")
    waiting.process.send_signal(signal.SIGHUP)
    etcd.store().set("k", "1")
    assert waiting.ends() == 0
    assert waiting.out == "1"
