"""Every Python and console block of every page runs as it stands, and prints what the page says; `pages` says how.

The blocks of a page run in order in an empty folder. Where they name the port 2379, an etcd is started at a free port
that takes its place. 29400 stands for a free port too, where a rank hosts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from pages import LANGUAGES, ROOT, Block, Command, blocks_of, commands_of, pages
from sessions import Session

PAGES = pages()

FOLLOWED = {
    "docs/how-to/write-a-backend.md": "tests/packaging/test_write_a_backend.py",
    "docs/how-to/test-a-backend.md": "tests/packaging/test_write_a_backend.py",
}
"""Pages whose blocks another test runs, since they install what they write."""

HERE = [page for page in PAGES if str(page.relative_to(ROOT)) not in FOLLOWED]


def console_of(block: Block) -> Iterator[Command]:
    return commands_of(block) if block.language == "console" else iter(())


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("page", HERE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_as_they_stand(
    page: Path, tmp_path: Path, ending: ExitStack, record_property: Callable[[str, object], None]
) -> None:
    record_property("blocks of the docs", Session(page, tmp_path, ending).run())


@pytest.mark.parametrize("page", FOLLOWED)
def test_who_runs_the_blocks_of_a_page_instead_reads_it(page: str) -> None:
    assert Path(page).name in (ROOT / FOLLOWED[page]).read_text()


def test_what_a_page_shows_of_a_file_stands_there() -> None:
    shown = [block for page in PAGES for block in blocks_of(page) if block.source]
    assert shown
    for block in shown:
        of_file, of_page = (
            "\n".join(line.strip() for line in text.splitlines())
            for text in ((ROOT / block.source).read_text(), block.text)
        )
        assert of_page in of_file, block


def test_few_blocks_are_run_by_nobody(record_property: Callable[[str, object], None]) -> None:
    found = [block for page in PAGES for block in blocks_of(page) if block.language in LANGUAGES]
    reasons = [block.why_not_run for block in found if block.why_not_run]
    elsewhere = [reason for reason in reasons if reason.startswith("tests/")]
    for reason in elsewhere:
        assert (ROOT / reason.split()[0]).exists(), reason
    record_property("blocks of the docs that other tests run", len(elsewhere))
    record_property("blocks of the docs that nothing here can run", len(reasons) - len(elsewhere))
    assert len(reasons) - len(elsewhere) <= len(found) // 10


def test_make_example_runs_the_command_that_the_page_shows_next() -> None:
    found = [[command.text for block in blocks_of(page) for command in console_of(block)] for page in PAGES]
    made = {
        command: after for commands in found for command, after in pairwise(commands) if command.startswith("make ex")
    }
    assert len(made) == 3
    for command, after in made.items():
        dry = [*command.split(), "--dry-run", "--no-print-directory"]
        told = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert told.splitlines()[-1].endswith(f'" {after}')
