"""Draws the picture on the first page: ``python docs/architecture.py`` writes docs/architecture.svg.

The picture is a description, boxes on a grid and arrows between them, and what follows it turns that into SVG. It has
a background of its own and follows the reader's choice of a light or a dark screen.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

PICTURE = Path(__file__).with_suffix(".svg")

WIDTH, HEIGHT = 960, 580
LINE = 17


class Box(NamedTuple):
    """A box: where it is, its title, and the lines below it. Its kind is what the style sheet knows it by."""

    left: int
    top: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    kind: str = "part"

    @property
    def middle(self) -> int:
        """Halfway from left to right."""
        return self.left + self.width // 2


class Arrow(NamedTuple):
    """An arrow downwards at a distance from the left edge, with a word beside it."""

    at: int
    top: int
    bottom: int
    said: str = ""
    kind: str = "arrow"


BACKENDS = (
    ("memory", "etha-kvstore-memory", ("this process",), "place"),
    ("tcpstore", "etha-kvstore-tcpstore", ("a TCPStore in a rank,", "or in torchrun's agent"), "place"),
    ("etcd", "etha-kvstore-etcd", ("an etcd cluster",), "place"),
    ("yours", "such as etha-kvstore-sqlite", ("a SQLite file, a service, ...",), "theirs"),
)
"""The plugins from left to right, and where each keeps the keys."""

CORE = Box(30, 128, 900, 172, "the core: etha-kvstore", kind="group")
USERS = (
    Box(30, 24, 420, 62, "your job", ("ranks, engines, front ends",), "user"),
    Box(470, 24, 220, 62, "etha-kv", ("the command line, an add-on",), "user"),
    Box(710, 24, 220, 62, "etha-kvstore-testkit", ("the conformance kit, an add-on",), "user"),
)
PARTS = (
    Box(
        50,
        162,
        270,
        118,
        "open_store",
        (
            "a name, a URL, a file, the environment",
            "the registry loads the one plugin",
            "that is asked for, and checks options",
        ),
    ),
    Box(
        345,
        162,
        270,
        118,
        "KVStore: the contract",
        ("get, set, exists, delete", "three waits, close", "list_keys, watch; the errors"),
    ),
    Box(
        640,
        162,
        270,
        118,
        "SkeletalStore",
        ("keys, deadlines, all waits,", "what a time-out says", "the same for every backend"),
    ),
)


def columns() -> list[tuple[Box, Box]]:
    """Place each plugin, and below it where its keys are."""
    placed = []
    for number, (name, distribution, where, kind) in enumerate(BACKENDS):
        left = 30 + number * 230
        plugin = Box(left, 352, 210, 62, name, (distribution,), "theirs" if kind == "theirs" else "plugin")
        placed.append((plugin, Box(left, 470, 210, 80, "keys in", where, kind)))
    return placed


def arrows() -> list[Arrow]:
    """Say who uses whom."""
    words = ("opens a store by name", "", "tests it")
    found = [Arrow(user.middle, 86, 128, said) for user, said in zip(USERS, words, strict=True)]
    for plugin, place in columns():
        found += [Arrow(plugin.middle, 300, 352), Arrow(place.middle, 414, 470)]
    return found


STYLE = """
  .ground { fill: #ffffff; }
  text { font: 13px system-ui, sans-serif; fill: #3d4451; text-anchor: middle; }
  text.title { font-weight: 600; font-size: 14px; fill: #11151c; }
  text.said { text-anchor: start; font-style: italic; }
  rect { stroke-width: 1.4; rx: 7px; }
  .user { fill: #eef4ff; stroke: #3b6fc4; }
  .group { fill: #f6f7f9; stroke: #8b93a1; }
  .part { fill: #ffffff; stroke: #8b93a1; }
  .plugin { fill: #eaf7ef; stroke: #2f8a57; }
  .theirs { fill: none; stroke: #2f8a57; stroke-dasharray: 5 4; }
  .place { fill: #fff5e6; stroke: #b9761b; }
  .arrow { stroke: #6b7280; stroke-width: 1.6; }
  .head { fill: #6b7280; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #14181f; }
    text { fill: #b9c1cd; }
    text.title { fill: #f1f4f8; }
    .user { fill: #1b2940; stroke: #7ba6ea; }
    .group { fill: #1b2028; stroke: #7d8694; }
    .part { fill: #14181f; stroke: #7d8694; }
    .plugin { fill: #16301f; stroke: #62c48d; }
    .theirs { stroke: #62c48d; }
    .place { fill: #33260f; stroke: #e0a652; }
    .arrow { stroke: #9aa3b0; }
    .head { fill: #9aa3b0; }
  }
"""


def drawn_box(box: Box) -> str:
    """Write a box with its texts: in the middle, or at the top where other boxes lie in it."""
    rows = 1 + len(box.lines)
    first = box.top + 22 if box.kind == "group" else box.top + (box.height - rows * LINE) // 2 + 13
    drawn = [f'<rect class="{box.kind}" x="{box.left}" y="{box.top}" width="{box.width}" height="{box.height}"/>']
    for row, text in enumerate((box.title, *box.lines)):
        kind = ' class="title"' if row == 0 else ""
        drawn.append(f'<text{kind} x="{box.middle}" y="{first + row * LINE}">{escape(text)}</text>')
    return "\n".join(drawn)


def drawn_arrow(arrow: Arrow) -> str:
    """Write an arrow with its word."""
    tip = arrow.bottom - 1
    drawn = [
        f'<line class="{arrow.kind}" x1="{arrow.at}" y1="{arrow.top}" x2="{arrow.at}" y2="{tip - 8}"/>',
        f'<path class="head" d="M{arrow.at - 5} {tip - 9} h10 l-5 9 z"/>',
    ]
    if arrow.said:
        middle = (arrow.top + arrow.bottom) // 2 + 4
        drawn.append(f'<text class="said" x="{arrow.at + 12}" y="{middle}">{escape(arrow.said)}</text>')
    return "\n".join(drawn)


def draw() -> str:
    """Write the picture."""
    boxes = [*USERS, CORE, *PARTS, *(box for column in columns() for box in column)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "<title>The parts of etha.kvstore, and where the keys are</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
            *map(drawn_box, boxes),
            *map(drawn_arrow, arrows()),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw())
