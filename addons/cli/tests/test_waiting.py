"""``wait``: what ends it, what it writes, and how it says how far it has come."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer, free_port
from etha_kvstore_cli.target import UsageError
from etha_kvstore_cli.wanted import names_of
from tcpstore_host import TorchHost

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Done, Place, Running, Terminal

Start = Callable[..., "Running"]
READY = "rank:*/ready"


def test_a_key_that_comes_ends_a_wait_which_writes_its_value(place: Place, running: Start) -> None:
    waiting = running("wait", "address", "--timeout", "60", "--url", place.url)
    waiting.awaits("0 of 1; 1 absent: address")
    place.store().set("address", "10.0.0.1:29500")
    assert waiting.ends() == 0
    assert waiting.out == "10.0.0.1:29500"
    said = waiting.err.splitlines()
    assert said[0] == "etha-kv: waiting for key 'address' to exist, at most 1 min 00 s"
    assert said[-1].startswith("etha-kv: 1 of 1 after ")


def test_a_value_that_comes_ends_a_wait_and_another_one_does_not(place: Place, running: Start) -> None:
    store = place.store()
    store.set("weights/version", "6")
    waiting = running("wait", "weights/version", "--value", "7", "--url", place.url)
    waiting.awaits("0 of 1; 1 with another value: weights/version=6")
    store.set("weights/version", "7")
    assert waiting.ends() == 0
    assert waiting.out == "7"


def test_enough_keys_end_a_wait_which_lists_them_and_says_meanwhile_who_is_missing(
    place: Place, running: Start
) -> None:
    store = place.store()
    store.set("rank:2/ready", "1")
    store.set("rank:1/ready", "failed")
    waiting = running("wait", READY, "--for", "0..2", "--url", place.url)
    waiting.awaits("1 of 3; 1 absent: rank:0/ready; 1 with another value: rank:1/ready=failed")
    store.set("rank:0/ready", "1")
    waiting.awaits("2 of 3; 1 with another value: rank:1/ready=failed")
    store.set("rank:1/ready", "1")
    assert waiting.ends() == 0
    assert waiting.out == "rank:0/ready\nrank:1/ready\nrank:2/ready\n"


def test_a_count_needs_no_names_where_the_backend_looks_by_pattern(etcd: Place, running: Start) -> None:
    store = etcd.store()
    store.set("rank:a/ready", "up")
    waiting = running("wait", READY, "--count", "2", "--value", "up", "--url", etcd.url)
    waiting.awaits("1 of 2")
    store.set("rank:b/ready", "up")
    assert waiting.ends() == 0
    assert waiting.out == "rank:a/ready\nrank:b/ready\n"


def test_a_count_without_names_is_refused_at_once_where_the_backend_needs_them(tcpstore: Place) -> None:
    code, _, err = tcpstore.kv("wait", READY, "--count", "64")
    assert code == 2
    assert (
        "backend 'tcpstore' can't look for keys by pattern: say who they are with --for, for instance --for 0..63"
        in err
    )


def test_fewer_may_be_waited_for_than_are_named(place: Place) -> None:
    store = place.store()
    store.set("rank:0/ready", "1")
    store.set("rank:3/ready", "1")
    done = place.kv("wait", READY, "--count", "2", "--for", "0..3", "--timeout", "5")
    assert (done.code, done.out) == (0, b"rank:0/ready\nrank:3/ready\n")


def test_a_wait_that_times_out_ends_with_1_and_says_who_was_missing(place: Place) -> None:
    store = place.store()
    store.set("rank:0/ready", "1")
    store.set("rank:1/ready", "failed")
    code, out, err = place.kv("wait", READY, "--for", "0..2", "--timeout", "0.1")
    assert (code, out) == (1, b"")
    last = err.splitlines()[-1]
    assert "1 of 3 matched; 1 hold another value: rank:1/ready=b'failed'; 1 absent: rank:2/ready" in last


def test_a_wait_that_times_out_gives_the_same_facts_in_json(place: Place) -> None:
    place.store().set("rank:1/ready", "failed")
    code, out, err = place.kv("wait", READY, "--for", "0..1", "--timeout", "0", "--json")
    assert (code, out) == (1, b"")
    said = [json.loads(line) for line in err.splitlines()]
    assert said[0] == {"waiting_for": "2 keys matching 'rank:*/ready' to be '1'", "expected": 2}
    facts = said[-1]
    assert (facts["error"], facts["exit_code"], facts["expected_count"]) == ("WaitTimeoutError", 1, 2)
    assert (facts["matched"], facts["missing"]) == ([], ["rank:0/ready"])
    assert facts["mismatched"] == {"rank:1/ready": {"value": "failed"}}


def test_quiet_leaves_only_the_answer(etcd: Place) -> None:
    etcd.store().set("rank:0/ready", "1")
    assert etcd.kv("wait", READY, "--count", "1", "--quiet") == (0, b"rank:0/ready\n", "")
    assert etcd.kv("wait", READY, "--count", "1", "-q", "--json") == (0, b'["rank:0/ready"]\n', "")


def test_a_server_that_comes_up_in_time_is_waited_for(running: Start) -> None:
    server = TorchHost(free_port())
    waiting = running("wait", "ready", "--timeout", "60", "--url", f"tcpstore://{server.endpoint}/n/c?timeout=5")
    waiting.awaits("waiting for key 'ready'")
    with server:
        waiting.awaits("0 of 1; 1 absent: ready")
        assert waiting.process.poll() is None


def test_a_server_that_stays_silent_to_the_deadline_ends_a_wait_with_3(kv: Callable[..., Done]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"etcd://127.0.0.1:{silent.getsockname()[1]}/n/c?connect_timeout=1"
        code, out, err = kv("wait", "k", "--timeout", "1", "--url", url)
    assert (code, out) == (3, b"")
    assert "did not answer in time" in err.splitlines()[-1]


def test_a_wait_that_times_out_while_the_server_is_gone_ends_with_3_since_nobody_knows(running: Start) -> None:
    with EtcdServer() as server:
        waiting = running("wait", "ready", "--timeout", "4", "--url", f"etcd://{server.endpoint}/n/c?timeout=1")
        waiting.awaits("0 of 1")
        server.kill()
        assert waiting.ends() == 3
    assert "the store has not answered for" in waiting.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([READY], "how many keys are to match 'rank:*/ready'? Give --count 64, or --for 0..63"),
        (["ready", "--for", "0..3"], "--for says what stands for the one * in a pattern, and 'ready' has 0"),
        (["a*b*", "--for", "0..3"], "and 'a*b*' has 2"),
        ([READY, "--count", "5", "--for", "0..3"], "--count 5 of the 4 keys that --for names could never be"),
        ([READY, "--count", "-1"], "--count takes a whole number, such as 64, and not '-1'"),
        ([READY, "--count", "1.5"], "and not '1.5'"),
        (["ready", "--timeout", "-1"], "--timeout takes seconds, such as 600, or inf for never, and not '-1'"),
        (["ready", "--timeout", "nan"], "and not 'nan'"),
        ([READY, "--for", "3..0"], "the range 3..0 ends before it begins"),
        ([READY, "--for", "0..99999999"], "more than 100,000 names"),
        ([READY, "--for", "0,,1"], "has an empty name"),
    ],
)
def test_a_wait_that_makes_no_sense_is_refused(run: Callable[..., Done], arguments: list[str], said: str) -> None:
    code, _, err = run("wait", *arguments, "--url", "etcd://127.0.0.1:1/n/c")
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0..3", ["0", "1", "2", "3"]),
        ("7..7", ["7"]),
        ("0..1,8,left", ["0", "1", "8", "left"]),
        ("08..11", ["08", "09", "10", "11"]),
        ("node-1", ["node-1"]),
    ],
)
def test_names_are_ranges_and_words(text: str, names: list[str]) -> None:
    assert names_of(text) == names


def test_an_empty_text_names_nobody() -> None:
    with pytest.raises(UsageError, match="empty name"):
        names_of("")


def test_a_terminal_shows_a_bar_who_is_missing_and_the_time_left(
    place: Place, terminal: Callable[..., Terminal]
) -> None:
    store = place.store()
    store.set("rank:0/ready", "1")
    screen = terminal("wait", READY, "--for", "0..3", "--timeout", "90", "--url", place.url)
    screen.awaits(
        r"rank:\*/ready = 1 +━+.* 1 of 4 +1 min \d+ s left\n3 absent: rank:1/ready, rank:2/ready, rank:3/ready"
    )
    assert not screen.has_cursor
    store.set("rank:2/ready", "1")
    screen.awaits(r" 2 of 4 .* left\n2 absent: rank:1/ready, rank:3/ready")
    store.set("rank:1/ready", "1")
    store.set("rank:3/ready", "failed")
    screen.awaits(r" 3 of 4 .* left\n1 with another value: rank:3/ready=failed")
    store.set("rank:3/ready", "1")
    assert screen.ends() == 0
    assert [line for line in screen.text.splitlines() if line.startswith("rank:0")] == ["rank:0/ready"]
    assert " 4 of 4  after " in screen.text
    assert "absent" not in screen.text
    assert screen.has_cursor


def test_a_terminal_too_narrow_for_all_names_shows_as_many_as_fit(
    etcd: Place, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal("wait", READY, "--for", "0..99", "--url", etcd.url, columns=60, rows=10)
    screen.awaits(r"0 of 100 .*\n100 absent: rank:0/ready, .*…$")


def test_a_narrow_terminal_shows_the_count_the_bar_and_the_time_left_all_the_same(
    etcd: Place, terminal: Callable[..., Terminal]
) -> None:
    etcd.store().set("rank:0/is-ready", "1")
    screen = terminal("wait", "rank:*/is-ready", "--for", "0..63", "--timeout", "90", "--url", etcd.url, columns=40)
    screen.awaits(r"^rank:\*/is-ready = 1\n[━╸╺]{10,}  1 of 64  1 min \d\d s left\n63 absent: rank:1/is-ready, .*…$")


@pytest.mark.parametrize("variable", [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_lines_are_written_where_there_is_no_terminal_whatever_the_environment_says_of_colours(
    etcd: Place, kv: Callable[..., Done], variable: dict[str, str]
) -> None:
    code, _, err = kv("wait", "ready", "--timeout", "0", "--url", etcd.url, **variable)
    assert code == 1
    assert all(line.startswith("etha-kv: ") and line.isprintable() for line in err.splitlines())


def test_a_terminal_that_can_not_be_drawn_on_gets_lines_and_one_frame(
    etcd: Place, terminal: Callable[..., Terminal]
) -> None:
    waiting = terminal("wait", "ready", "--url", etcd.url, term="dumb")
    waiting.awaits("^etha-kv: waiting for key 'ready' to exist, .*\netha-kv: 0 of 1; 1 absent: ready$")
    frame = terminal("top", "--url", etcd.url, term="dumb")
    assert frame.ends() == 0
    assert frame.text.endswith("no keys")


def test_a_wait_that_times_out_in_a_terminal_leaves_its_last_frame_and_the_reason(
    etcd: Place, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal("wait", READY, "--for", "0..1", "--timeout", "1", "--url", etcd.url)
    assert screen.ends() == 1
    assert "2 absent: rank:0/ready, rank:1/ready\netha-kv: timed out waiting for 2 keys" in screen.text
    assert screen.has_cursor
