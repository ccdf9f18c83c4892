"""The screens in the pages are what a terminal shows: each block that says so is compared with the real one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from etcd_server import EtcdServer
from etha.kvstore import open_store_from_config
from pages import Block, blocks_of, pages

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Terminal

MARK = "on a terminal: "
"""What stands before a block that is a screen, with the command; the store is the one of the scenario."""

Write = tuple[str, str, "str | None"]
"""A component, a key, and its value; `None` deletes it."""


class Scenario(NamedTuple):
    """What other processes write before the command, and what while it is on the screen."""

    before: list[Write]
    then: list[Write]


ENGINES: list[Write] = [
    ("inference", "engine:b/state", "starting"),
    ("inference", "engine:a/state", "serving"),
]
RANKS: list[Write] = [
    *(("trainer", f"rank:{rank}/address", f"10.0.0.{rank + 1}:29500") for rank in range(4)),
    *(("trainer", f"rank:{rank}/ready", "1") for rank in (0, 1, 3)),
]
SCENARIOS = {
    "etha-kv set maintenance 1": Scenario([], []),
    "etha-kv watch --component inference": Scenario(
        ENGINES[1:], [("inference", "engine:b/state", "loading weights"), ("inference", "engine:a/state", None)]
    ),
    "etha-kv watch --table --component inference": Scenario(ENGINES, [("inference", "engine:b/state", "serving")]),
    "etha-kv wait 'rank:*/ready' --for 0..63 --timeout 600": Scenario(
        [("trainer", f"rank:{rank}/ready", "failed" if rank == 40 else "1") for rank in range(64) if rank != 17], []
    ),
    "etha-kv top --component trainer --component inference": Scenario(
        [*RANKS, *ENGINES], [("inference", "engine:b/state", "loading weights")]
    ),
}

SCREENS = [block for page in pages() for block in blocks_of(page) if block.mark.startswith(MARK)]

PASSING = (r"\d\d:\d\d:\d\d", r"(?<=:\d\d\.)\d{3}", r"\d+ min \d\d s left")
"""What is another at each run: the time of day, its milliseconds, and the time left."""


@pytest.fixture
def url() -> Iterator[str]:
    """The store of the pages, on a server of its own."""
    with EtcdServer() as server:
        yield f"etcd://{server.endpoint}/job-42/trainer"


def drawn(block: Block) -> str:
    """Make the pattern of a whole screen of what the page shows of it."""
    parts = re.split(f"({'|'.join(PASSING)})", block.text.rstrip())  # what passes is every second one
    return r"\A" + "".join(_passing(part) if at % 2 else re.escape(part) for at, part in enumerate(parts)) + r"\Z"


def _passing(part: str) -> str:
    return next(pattern for pattern in PASSING if re.fullmatch(pattern.rpartition(")")[2], part))


def test_each_screen_of_the_pages_is_compared_and_none_else() -> None:
    assert sorted(block.mark.removeprefix(MARK) for block in SCREENS) == sorted(SCENARIOS)


@pytest.mark.parametrize("block", SCREENS, ids=lambda block: block.mark.removeprefix(MARK))
def test_a_screen_of_the_pages_is_what_a_terminal_shows(
    block: Block, url: str, terminal: Callable[..., Terminal]
) -> None:
    command = block.mark.removeprefix(MARK)
    before, then = SCENARIOS[command]
    with ExitStack() as closing:
        stores = {
            component: closing.enter_context(open_store_from_config(url, component=component))
            for component in ("trainer", "inference")
        }

        def write(writes: list[Write]) -> None:
            for component, key, value in writes:
                if value is None:
                    stores[component].delete(key)
                else:
                    stores[component].set(key, value)

        write(before)
        lease = "?lease_ttl=60" if command.startswith("etha-kv set") else ""
        screen = terminal(*shlex.split(command)[1:], "--url", url + lease, rows=30, columns=90)
        if then:
            screen.awaits(re.escape(before[-1][1]))
        write(then)
        screen.awaits(drawn(block))


def test_what_is_no_time_stands_for_itself() -> None:
    block = Block("text", "", "at 17:10:52.123 (a)  9 min 59 s left\n", 1)
    assert re.search(drawn(block), "at 08:00:00.004 (a)  10 min 01 s left")
    for other in ("at 08:00:00.004 (b)  10 min 01 s left", "at 08:00:00.004 (a)  10 min 01 s left\nmore"):
        assert re.search(drawn(block), other) is None
