"""The pages are built without a warning: no link leads nowhere, and every public name of the core has its place."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

from pages import ROOT

pytestmark = pytest.mark.xdist_group("docs-build")

DOCUMENTED = (
    *(
        f"etha.kvstore.{name}"
        for name in ("base", "config", "errors", "follow", "hookspecs", "keys", "options", "patterns")
    ),
    *("etha.kvstore.registry", "etha.kvstore.skeleton", "etha_kvstore_testkit"),
)
"""The modules whose public names the reference has to have."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the pages."""
    folder = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    command += ["-d", str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder / "html"


def test_every_page_is_built_and_can_be_reached(built: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not (built / page).exists()} == set()


def test_the_reference_has_every_public_name(built: Path) -> None:
    with (built / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    has = {name.rpartition(".")[2] for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    for module in map(import_module, DOCUMENTED):
        wanted = {
            name
            for name in module.__all__
            if inspect.isclass(getattr(module, name)) or inspect.isroutine(getattr(module, name))
        }
        assert wanted <= has, module.__name__


def test_every_link_leads_somewhere_within_what_was_built(built: Path) -> None:
    links = {
        (page.relative_to(built), link)
        for page in built.rglob("*.html")
        for link in re.findall(r'(?:href|src)="([^":#?]+)["#?]', page.read_text())
    }
    assert ("explanation/speed.html", "results-speed.html") in {(str(page), link) for page, link in links}
    assert [(page, link) for page, link in links if not (built / page.parent / link).exists()] == []
