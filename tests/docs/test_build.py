"""The pages are built without a warning: no link leads nowhere, and every public name of the core has its place."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from sphinx.util.inventory import InventoryFile

import etha.kvstore
from pages import ROOT

pytestmark = pytest.mark.xdist_group("docs-build")

DOCUMENTED = [
    *(f"etha.kvstore.{found.name}" for found in iter_modules(etha.kvstore.__path__) if found.name != "__main__"),
    "etha_kvstore_testkit",
]
"""The modules whose public names the reference has to have: all of the core, and the kit."""


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


@pytest.fixture(scope="module")
def described(built: Path) -> set[str]:
    """Give the names of Python that the reference describes, without their modules."""
    with (built / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    names = [name.split(".") for kind, found in inventory.items() if kind.startswith("py:") for name in found]
    return {".".join(parts[first:]) for parts in names for first in range(len(parts))}


@pytest.mark.parametrize("module", DOCUMENTED)
def test_the_reference_has_every_public_name_and_the_calls_of_every_class(module: str, described: set[str]) -> None:
    names = import_module(module).__all__
    public = set(names)
    for name in names:
        given = getattr(import_module(module), name)
        if inspect.isclass(given):
            inherited = {call for base in given.__mro__[1:] for call in vars(base)}
            calls = {call for call, what in vars(given).items() if inspect.isroutine(what)} - inherited
            public |= {f"{name}.{call}" for call in calls if not call.startswith("_")}
    assert public - described == set()


def test_every_link_leads_somewhere_within_what_was_built(built: Path) -> None:
    links = {
        (page.relative_to(built), link)
        for page in built.rglob("*.html")
        for link in re.findall(r'(?:href|src)="([^":#?]+)["#?]', page.read_text())
    }
    assert ("explanation/speed.html", "results-speed.html") in {(str(page), link) for page, link in links}
    assert [(page, link) for page, link in links if not (built / page.parent / link).exists()] == []
