"""``watch`` and ``top``: what they show, at a pipe and in a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer, crash_etcd
from etha_kvstore_cli.show import runs
from etha_kvstore_cli.top import Readiness

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Done, Place, Running, Terminal

CLOCK = r"\d\d:\d\d:\d\d"


def test_watch_writes_what_is_there_and_then_every_change(etcd: Place, running: Callable[..., Running]) -> None:
    store = etcd.store()
    store.set("engine:a", "up")
    store.set("other", "1")
    watching = running("watch", "engine:*", "--url", etcd.url)
    watching.awaits("is +engine:a = up\n")
    store.set("engine:b", "two\nlines")
    store.delete("engine:a")
    watching.awaits("deleted +engine:a\n")
    lines = [line.split(maxsplit=1) for line in watching.out.splitlines()]
    assert [text for _, text in lines] == [
        "is       engine:a = up",
        r"set      engine:b = two\nlines",
        "deleted  engine:a",
    ]
    assert all(re.fullmatch(rf"{CLOCK}\.\d\d\d", at) for at, _ in lines)


def test_watch_writes_json_a_line_a_change(etcd: Place, running: Callable[..., Running]) -> None:
    store = etcd.store()
    store.set("engine:a", "up")
    watching = running("watch", "--json", "--url", etcd.url)
    watching.awaits("engine:a")
    store.set_bytes("engine:a", b"\xff")
    store.delete("engine:a")
    watching.awaits("deleted.*\n")
    said = [json.loads(line) for line in watching.out.splitlines()]
    assert all(re.match(r"\d{4}-\d\d-\d\dT", each.pop("time")) for each in said)
    assert said == [
        {"event": "is", "key": "engine:a", "value": "up"},
        {"event": "set", "key": "engine:a", "base64": "/w=="},
        {"event": "deleted", "key": "engine:a"},
    ]


def test_watch_says_when_the_store_does_not_answer_and_when_it_does_again(
    kv: Callable[..., Done], running: Callable[..., Running], terminal: Callable[..., Terminal]
) -> None:
    with EtcdServer(binary=crash_etcd()) as server:
        url = f"etcd://{server.endpoint}/n/c?timeout=1"
        assert kv("set", "engine:a", "up", "--url", url).code == 0
        watching, screen = running("watch", "--url", url), terminal("watch", "--table", "--url", url)
        watching.awaits("engine:a")
        screen.awaits("engine:a")
        server.kill()
        watching.awaits("etha-kv: the store does not answer\n")
        screen.awaits(r"key +value +changed\nengine:a +up\nthe store does not answer$")
        assert screen.text.count("engine:a") == 1  # what is said beside it does not tear the table
        server.start()
        watching.awaits("etha-kv: the store answers again\n")
        screen.awaits(r"engine:a +up$")


@pytest.mark.parametrize("arguments", [["--table"], ["--table", "--json"]])
def test_a_table_that_nobody_looks_at_is_refused(etcd: Place, arguments: list[str]) -> None:
    code, _, err = etcd.kv("watch", *arguments)
    assert code == 2
    assert "--table is for a terminal" in err


def test_watch_draws_a_table_that_stays_current(etcd: Place, terminal: Callable[..., Terminal]) -> None:
    store = etcd.store()
    store.set("engine:a", "up")
    screen = terminal("watch", "engine:*", "--table", "--url", etcd.url)
    screen.awaits(r"key +value +changed\nengine:a +up$")
    store.set("engine:b", "starting")
    screen.awaits(rf"engine:a +up\nengine:b +starting +{CLOCK}")
    store.set("engine:a", "busy")
    store.delete("engine:b")
    screen.awaits(rf"changed\nengine:a +busy +{CLOCK}$")


def test_a_table_is_no_longer_than_the_screen_and_keeps_what_changed_last(
    etcd: Place, terminal: Callable[..., Terminal]
) -> None:
    store = etcd.store()
    for number in range(30):
        store.set(f"engine:{number:02}", "up")
    screen = terminal("watch", "--table", "--url", etcd.url, rows=10)
    screen.awaits("and 23 more")
    store.set("engine:29", "busy")
    screen.awaits(rf"changed\nengine:29 +busy +{CLOCK}\nengine:00")
    assert len(screen.text.splitlines()) <= 10


def test_top_once_draws_components_their_keys_and_who_is_ready(place: Place) -> None:
    trainer = place.store()
    for rank in (0, 1, 2, 5):
        trainer.set(f"rank:{rank}/ready", "1")
        trainer.set(f"rank:{rank}/address", f"10.0.0.{rank}:29500")
    trainer.set("rank:3/address", "10.0.0.3:29500")
    place.store("inference").set("engine:a", "up")
    code, out, err = place.kv("top", "--once", "--component", "trainer", "--component", "inference")
    assert (code, err) == (0, "")
    text = out.decode()
    assert re.match(rf"{place.namespace}  10 keys in trainer, inference  {CLOCK}", text)
    assert re.search(r"ready    4 of 5: 0\.\.2 5\s+not yet  1: 3\s", text)
    assert re.search(r"rank:3/address +10\.0\.0\.3:29500", text)
    assert re.search(r"inference *\n *key +value +changed *\n *engine:a +up", text)


def test_top_shows_the_configured_component_and_says_where_nothing_is(etcd: Place) -> None:
    etcd.store("inference").set("engine:a", "up")
    text = etcd.kv("top", "--once").out.decode()
    assert "0 keys in trainer" in text
    assert "no keys" in text
    assert "engine:a" not in text


def test_top_in_json_is_one_document(etcd: Place) -> None:
    store = etcd.store()
    store.set("rank:0/ready", "1")
    store.set("rank:1/ready", "0")
    assert json.loads(etcd.kv("top", "--json").out) == {
        "namespace": etcd.namespace,
        "components": {
            "trainer": {
                "keys": [{"key": "rank:0/ready", "value": "1"}, {"key": "rank:1/ready", "value": "0"}],
                "ready": ["0"],
                "not_ready": ["1"],
            }
        },
    }


def test_top_stays_current_says_what_changed_last_and_leaves_at_q(
    place: Place, terminal: Callable[..., Terminal]
) -> None:
    store = place.store()
    store.set("rank:0/ready", "1")
    store.set("rank:1/address", "10.0.0.1:29500")
    screen = terminal("top", "--url", place.url)
    screen.awaits(r"ready    1 of 2: 0\nnot yet  1: 1")
    store.set("rank:1/ready", "1")
    screen.awaits(rf"last change  {CLOCK}  trainer  rank:1/ready = 1")
    screen.awaits(r"ready    2 of 2: 0\.\.1\nkey")
    store.delete("rank:0/ready")
    screen.awaits(rf"last change  {CLOCK}  trainer  rank:0/ready deleted")
    screen.press("q")
    assert screen.ends() == 0
    assert screen.has_cursor
    assert screen.modes_now == screen.modes


def test_who_is_not_ready_is_shown_however_many_are_and_ranks_are_in_the_order_of_their_numbers(
    etcd: Place, terminal: Callable[..., Terminal]
) -> None:
    store = etcd.store()
    for rank in range(0, 40, 2):  # no two in a row, so that their names fill a line
        store.set(f"rank:{rank}/ready", "1")
    store.set("rank:39/ready", "failed")
    screen = terminal("top", "--url", etcd.url, columns=40)
    screen.awaits(r"ready    20 of 21: 0 2 4 .*…\nnot yet  1: 39\nkey.*\nrank:0/.*\nrank:2/.*\nrank:4/")


def test_ready_is_a_pattern_of_ones_own(etcd: Place, run: Callable[..., Done]) -> None:
    store = etcd.store()
    store.set("pair:x/rank:left/ready", "1")
    store.set("pair:x/rank:right/address", "10.0.0.1:1")
    text = etcd.kv("top", "--once", "--ready", "pair:x/rank:*/ready").out.decode()
    assert re.search(r"ready    1 of 2: left\s+not yet  1: right\s", text)
    code, _, err = run("top", "--ready", "ready", "--url", etcd.url)
    assert code == 2
    assert "--ready is a pattern with one *" in err


def test_a_rank_of_which_there_is_any_key_is_one() -> None:
    state = {"rank:0/ready": b"1", "rank:1/ready": b"", "rank:2/deep/key": b"x", "other": b"1"}
    assert Readiness("rank:*/ready").sort(state) == (["0"], ["1", "2"])


@pytest.mark.parametrize(
    ("names", "said"), [([], ""), (["3", "1", "2"], "1..3"), (["0", "2", "b", "a"], "0 2 a b"), (["9", "10"], "9..10")]
)
def test_names_in_a_row_are_written_as_a_range(names: list[str], said: str) -> None:
    assert runs(names) == said
