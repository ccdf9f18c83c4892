"""The guides to writing and testing a backend, followed step by step from built wheels, and the example after them."""

from __future__ import annotations

import ast
import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).parents[2]
GUIDES = CHECKOUT / "docs" / "how-to"
EXAMPLE = CHECKOUT / "examples" / "etha-kvstore-sqlite"

BLOCK = re.compile(r"(?:`([^`\n]+\.\w+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block of a page, its language, and before it the name of the file that it is."""

NUMBER = re.compile(r"\d+(?= passed| deselected| tests)|\d+\.\d+s\b( \(\d+:\d\d:\d\d\))?")
"""Of tests and seconds: another with each version of the kit, and with each run."""

MARK = "=== next command ==="


def steps_of(page: Path, staging: Path) -> Iterator[tuple[str, str]]:
    """Give what a reader does at a page, in order: each command, and the output that the page shows after it."""
    for number, (file, language, text) in enumerate(BLOCK.findall(page.read_text())):
        if language == "console":
            for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, output = step.partition("\n")
                yield command, output
        elif file:
            (staging / str(number)).write_text(text)
            yield f"mkdir -p $(dirname {file}) && cp {staging / str(number)} {file}", ""


def follow(page: Path, folder: Path, wheels: list[Path], path: str = "") -> None:
    """Follow a page in a folder, in one shell, and see that each command prints what the page shows."""
    staging = folder / "staging"
    staging.mkdir()
    steps = list(steps_of(page, staging))
    script = "set -e\n" + "".join(f"{command}\necho '{MARK}'\n" for command, _ in steps)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    environment |= {
        "PATH": f"{path or Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "PIP_FIND_LINKS": " ".join(str(wheel.parent) for wheel in wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout.split(f"{MARK}\n")
    assert done.returncode == 0, f"{steps[len(printed) - 1][0]}\n{printed[-1]}\n{done.stderr}"
    as_shown = doctest.OutputChecker()
    for (command, shown), found in zip(steps, printed[:-1], strict=True):
        alike = as_shown.check_output(NUMBER.sub("0", shown), NUMBER.sub("0", found), doctest.ELLIPSIS)
        assert alike, f"$ {command}\n{found}\nand not\n{shown}"


def imports_of_the_core(source: str) -> Iterator[str]:
    """Find what a module imports of the core, at its top or within a function, as ``module:name``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):  # of the whole module, so it has no name, and may use anything
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        yield from (f"{module}:{name}" for module, name in found if module.partition(".")[0] == "etha")


@pytest.fixture(scope="module")
def wheels(wheel: Callable[[str], Path]) -> list[Path]:
    """Give the wheels that a page's ``pip install`` finds as if they were on an index."""
    return [wheel(distribution) for distribution in ("etha-kvstore", "etha-kvstore-memory", "etha-kvstore-testkit")]


def test_the_guide_leads_from_an_empty_folder_to_a_tested_and_installed_backend(
    tmp_path: Path, wheels: list[Path], new_environment: Callable[[], Environment]
) -> None:
    follow(GUIDES / "write-a-backend.md", tmp_path, wheels)
    (made,) = tmp_path.glob("etha-kvstore-sqlite/dist/*.whl")
    elsewhere = new_environment()
    elsewhere.install(wheels[0], made)
    assert elsewhere.lists_backends()[1].startswith("sqlite  (etha-kvstore-sqlite 0.1.0)\n")


def test_the_guide_to_the_kit_shows_what_it_prints(
    tmp_path: Path, wheels: list[Path], new_environment: Callable[[], Environment]
) -> None:
    environment = new_environment()
    environment.python_says("import ensurepip; ensurepip.bootstrap(default_pip=True)")
    page = GUIDES / "test-a-backend.md"
    follow(page, tmp_path, wheels, str(environment.python.parent))
    whole = tmp_path / "test_all_python_of_the_page.py"
    whole.write_text("".join(text for _, language, text in BLOCK.findall(page.read_text()) if language == "python"))
    its_own = "test_an_empty_value_can_be_waited_for"
    code, text = environment.ends("-m", "pytest", "-q", f"--rootdir={tmp_path}", "-k", its_own, str(whole))
    assert (code, text.count("1 passed")) == (0, 1), text


@pytest.fixture(scope="module")
def with_sqlite(
    new_environment: Callable[[], Environment],
    build_wheels: Callable[[list[Path]], list[Path]],
    wheel: Callable[[str], Path],
) -> Environment:
    """Give an environment with the core, the kit and the wheel of the whole example."""
    environment = new_environment()
    environment.install(wheel("etha-kvstore"), wheel("etha-kvstore-testkit"), *build_wheels([EXAMPLE]))
    return environment


def test_the_whole_example_is_listed_from_its_wheel_without_loading_sqlite(with_sqlite: Environment) -> None:
    code, text = with_sqlite.lists_backends()
    assert code == 0
    assert text.splitlines() == [
        "sqlite  (etha-kvstore-sqlite 0.1.0)",
        "  keys in a SQLite file, for the processes of one machine",
        "  capabilities: cleanup, list_keys, waits_by_pattern",
        "  options: path, timeout, connect_timeout",
    ]
    program = """
    import sys
    from etha.kvstore.registry import find_backend
    find_backend("sqlite")
    print("sqlite3" in sys.modules)
    """
    assert with_sqlite.python_says(program) == "False"


def test_the_whole_example_imports_nothing_private(with_sqlite: Environment) -> None:
    package = with_sqlite.site_packages / "etha_kvstore_sqlite"
    imported = {found for file in package.rglob("*.py") for found in imports_of_the_core(file.read_text())}
    assert imported
    program = """
    import importlib, sys
    for each in sys.argv[1:]:
        module, _, name = each.partition(":")
        if name not in importlib.import_module(module).__all__:
            print(each)
    """
    assert with_sqlite.python_says(program, *sorted(imported)) == ""


def test_the_whole_example_passes_its_own_tests_from_its_wheel(with_sqlite: Environment, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")  # away from the workspace and its settings
    # Those that lock or remove the file take the longest, and are run from the checkout.
    chosen = ("-k", "not server and not freeze and not frozen")
    code, text = with_sqlite.ends("-m", "pytest", "-q", *chosen, f"--rootdir={tmp_path}", str(tmp_path / "tests"))
    assert code == 0, text
    (passed,) = re.findall(r"^(\d+) passed, \d+ deselected in ", text, re.MULTILINE)
    assert int(passed) > 250
