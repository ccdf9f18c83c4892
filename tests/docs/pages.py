"""The blocks of a Markdown page, and what a page says of how each is to be run.

A comment on the line before a block says what the block can't say itself:

- ``<!-- file: NAME -->``: the block is a file's content; of a ``diff``, what is changed in the file.
- ``<!-- in another terminal -->``: the block's commands run while the last command of the block before goes on.
- ``<!-- prints -->``: the block is what the page's Python has printed since the last such block.
- ``<!-- on a terminal: COMMAND -->``: the block is what the command shows on one, which the tests of the add-on see.
- ``<!-- from: NAME -->``: the block stands as it is, but for indentation, in a file of the repository.
- ``<!-- not run: REASON -->``: nothing here can run it.

In what is printed, ``...`` stands for anything: within a line for any text, alone on a line for any lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["LANGUAGES", "ROOT", "Block", "Command", "blocks_of", "commands_of", "pages", "says"]

ROOT = Path(__file__).parents[2]

LANGUAGES = ("python", "console")
"""Every block in one of these is run, unless it says why not."""

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+) -->\n\n?)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """One fenced block: its language, what the comment before it says, its text, and the line on which that begins."""

    language: str
    mark: str
    text: str
    line: int

    @property
    def why_not_run(self) -> str:
        """Why nothing runs it; empty where something does."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def file(self) -> str:
        """The file whose content it is; empty where it is none."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""

    @property
    def source(self) -> str:
        """The file that it is from; empty where it is from none."""
        return self.mark.removeprefix("from: ") if self.mark.startswith("from: ") else ""


class Command(NamedTuple):
    """One command of a console block, and what the page says that it prints."""

    text: str
    printed: str


def pages() -> list[Path]:
    """List all pages that have a block to run."""
    found = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")]
    found += (page for folder in ("plugins", "addons", "examples") for page in ROOT.glob(f"{folder}/*/README.md"))
    return sorted(page for page in found if any(block.language in LANGUAGES for block in blocks_of(page)))


def blocks_of(page: Path) -> list[Block]:
    """Read the blocks of a page."""
    text = page.read_text()
    return [
        Block(match["language"], match["mark"] or "", match["text"], text.count("\n", 0, match.start("text")) + 1)
        for match in _BLOCK.finditer(text)
    ]


def commands_of(block: Block) -> Iterator[Command]:
    """Give the commands of a console block. A line that begins with ``> `` goes on with the command before it."""
    text, printed = "", ""
    for line in [*block.text.splitlines(keepends=True), "$ "]:
        if line.startswith("$ "):
            if text:
                yield Command(text, printed)
            text, printed = line[2:].rstrip("\n"), ""
        elif line.startswith("> ") and not printed:
            text += f"\n{line[2:].rstrip()}"
        else:
            printed += line


def says(expected: str, printed: str) -> bool:
    """Tell whether a page's output is what was printed."""
    pieces = [_as_pattern(line) for line in expected.strip("\n").split("\n")]
    return re.fullmatch("".join(pieces), _trimmed(printed)) is not None


def _as_pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    return ".*?".join(map(re.escape, line.rstrip().split("..."))) + r"\n"


def _trimmed(printed: str) -> str:
    lines = [line.rstrip() for line in printed.strip("\n").split("\n")]
    return "\n".join(lines) + "\n"
