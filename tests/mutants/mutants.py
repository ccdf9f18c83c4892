"""The mutants: what their headers say, and how one is put into a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Mutant", "MutantError", "apply", "copy_tree", "read_mutant", "read_mutants", "sources"]

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

HERE = Path(__file__).resolve().parent
FIELDS = ("Bug", "Source", "Tests")


class MutantError(Exception):
    """A mutant is not what it should be, so that nothing can be learned from it."""


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes
    ----------
    path : Path
        The patch.
    bug : str
        What goes wrong.
    source : str
        Who had it, and where that is told.
    tests : tuple of str
        The paths that pytest is given, below the checkout.
    changes : tuple of str
        The files that the patch changes, below the checkout.
    """

    path: Path
    bug: str
    source: str
    tests: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The patch's name."""
        return self.path.stem


def read_mutant(path: Path) -> Mutant:
    """Read a patch, and its header: the fields ``Bug``, ``Source`` and ``Tests``, continued on indented lines."""
    header, begin, diff = path.read_text("utf-8").partition("--- a/")
    fields = {
        name: " ".join(text.split()) for name, text in re.findall(r"^(\w+): (.*(?:\n .*)*)", header, re.MULTILINE)
    }
    if tuple(fields) != FIELDS or not all(fields.values()):
        raise MutantError(f"{path.name}: the header's fields are {', '.join(FIELDS)}, and not {', '.join(fields)}")
    changes = re.findall(r"^\+\+\+ b/(\S+)$", begin + diff, re.MULTILINE)
    return Mutant(path, fields["Bug"], fields["Source"], tuple(fields["Tests"].split()), tuple(changes))


def read_mutants() -> list[Mutant]:
    """Read them all, in the order of their names."""
    return [read_mutant(path) for path in sorted(HERE.glob("*.patch"))]


def copy_tree(copy: Path) -> None:
    """Copy the checkout as it is: what git tracks, and what it neither tracks nor ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # one that was deleted and not committed is still listed
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)


def apply(mutant: Mutant, tree: Path) -> None:
    """Put a mutant into a tree that is no git repository; the lines around it must be the ones that the patch knows."""
    # Inside a repository git would look for the files below its root, find none, and say that all is well.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = str(tree.parent.resolve())
    command = ["git", "apply", str(mutant.path)]
    applied = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if applied.returncode != 0:
        raise MutantError(f"{mutant.name} does not apply any more: {applied.stderr.strip()}")


def sources(tree: Path) -> list[Path]:
    """Find the folders of a tree that hold packages."""
    return sorted([tree / "core/src", *tree.glob("plugins/*/src"), *tree.glob("addons/*/src")])
