"""The picture on the first page is what its source draws, and names every backend of this project."""

from __future__ import annotations

import runpy
from pathlib import Path
from xml.etree import ElementTree

from etha.kvstore.registry import KNOWN_DISTRIBUTIONS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_picture_is_what_its_source_draws() -> None:
    source = runpy.run_path(str(DOCS / "architecture.py"))
    assert (DOCS / "architecture.svg").read_text() == source["draw"](), "Next: python docs/architecture.py"


def test_the_picture_names_every_backend_of_this_project() -> None:
    texts = {node.text for node in ElementTree.parse(DOCS / "architecture.svg").iter()}
    assert {*KNOWN_DISTRIBUTIONS, *KNOWN_DISTRIBUTIONS.values()} <= texts
