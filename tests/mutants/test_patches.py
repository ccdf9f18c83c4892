"""Every mutant can be put into the tree as it is, changes the product alone, and says whose bug it is."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from mutants import ROOT, Mutant, MutantError, apply, read_mutant, read_mutants

MUTANTS = read_mutants()
TABLE = (ROOT / "tests/mutants/README.md").read_text("utf-8")
INHERITED = sorted((ROOT / "addons/testkit/src").rglob("promises/*.py"))
"""Where the tests are that a file of tests may inherit."""

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@pytest.fixture
def tree(mutant: Mutant, tmp_path: Path) -> Path:
    """Copy the files that a mutant changes."""
    for file in mutant.changes:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_there_are_as_many_mutants_of_each_part_as_are_promised() -> None:
    parts = Counter(mutant.name.partition("_")[0] for mutant in MUTANTS)
    assert parts >= Counter(etcd=20, tcpstore=7, memory=2, core=5)


@each_mutant
def test_a_mutant_applies_and_each_file_that_it_changes_compiles(mutant: Mutant, tree: Path) -> None:
    before = {file: (tree / file).read_text("utf-8") for file in mutant.changes}
    apply(mutant, tree)
    assert before
    for file, text in before.items():
        after = (tree / file).read_text("utf-8")
        assert after != text
        compile(after, file, "exec")


@each_mutant
def test_a_mutant_changes_nothing_but_the_product(mutant: Mutant) -> None:
    assert all(re.fullmatch(r"(core|plugins/\w+)/src/[\w/]+\.py", file) for file in mutant.changes)


@each_mutant
def test_a_mutant_is_run_against_a_few_whole_files_of_tests(mutant: Mutant) -> None:
    assert 1 <= len(mutant.tests) <= 3
    assert all((ROOT / test).is_file() for test in mutant.tests)  # a single test has "::" in its name, and is none


@each_mutant
def test_a_mutant_stands_in_the_table_with_its_source_and_with_the_test_that_catches_it(mutant: Mutant) -> None:
    (row,) = re.findall(rf"^\| `{mutant.name}` \|.*$", TABLE, re.MULTILINE)
    addresses = re.findall(r"https://\S+", mutant.source)
    assert addresses
    assert all(address in row for address in addresses)
    ((file, test),) = re.findall(r"\| `([\w/.]+)`: `(\w+)` \|$", row)
    assert file in mutant.tests
    assert any(f"def {test}(" in each.read_text("utf-8") for each in [ROOT / file, *INHERITED])


def test_the_table_holds_no_mutant_that_is_gone() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TABLE, re.MULTILINE)) == {mutant.name for mutant in MUTANTS}


def test_a_patch_whose_surroundings_have_changed_is_refused(tmp_path: Path) -> None:
    mutant = MUTANTS[0]
    for file in mutant.changes:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("nothing of what it was\n")
    with pytest.raises(MutantError, match="does not apply any more"):
        apply(mutant, tmp_path)


@pytest.mark.parametrize("field", ["Bug", "Source", "Tests"])
def test_a_patch_that_lacks_a_field_is_refused(field: str, tmp_path: Path) -> None:
    text = MUTANTS[0].path.read_text("utf-8")
    lacking = tmp_path / "lacking.patch"
    lacking.write_text(text.replace(f"{field}: ", "Note: "))
    with pytest.raises(MutantError, match="the header's fields are Bug, Source, Tests"):
        read_mutant(lacking)
