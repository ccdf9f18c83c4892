"""The page "What is promised" names tests that exist, and none without a link to its file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "what-is-promised.md"
TEXT = PAGE.read_text()
FILES = dict(re.findall(r"^\[(\w+)\]: (\S+)$", TEXT, re.MULTILINE))
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|") and not line.startswith(("| ---", "| guarantee", "| **"))
]
LINK = re.compile(r"\[`(test_\w+)`\]\[(\w+)\]")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_guarantee_says_what_each_backend_does_and_links_to_tests_that_exist(row: list[str]) -> None:
    _, *backends, shown_by = row
    assert len(backends) == 3
    assert any(backends)
    links = LINK.findall(shown_by)
    assert shown_by == ", ".join(f"[`{test}`][{file}]" for test, file in links) != ""
    for test, file in links:
        tree = ast.parse((PAGE.parent / FILES[file]).read_text())
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_no_file_is_named_that_no_guarantee_needs() -> None:
    assert set(FILES) == {file for _, file in LINK.findall(TEXT)}
