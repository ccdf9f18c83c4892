"""Plugins of other people's that are wrong in every way, installed beside one that is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "1.2.3"
dependencies = ["etha-kvstore>=0.1"]

[project.entry-points."etha.kvstore"]
{backend} = "{package}"

[tool.hatch.build.targets.wheel]
only-include = ["{package}.py"]
"""

RIGHT = """
from etha.kvstore.hookspecs import BackendSpec, hookimpl

@hookimpl
def kvstore_backend():
    return BackendSpec("{backend}", "etha_kvstore_memory.store:MemoryStore", "a stranger's", contract=1)
"""

SPEECHLESS = """
from etha.kvstore.hookspecs import hookimpl

@hookimpl
def kvstore_backend():
    return "memory"
"""

STRANGERS = {
    "stranger-right": ("right", RIGHT),
    "stranger-broken": ("broken", f"import a_library_that_is_not_there\n{RIGHT}"),
    "stranger-raising": ("raising", "raise OSError('the licence has expired')"),
    "stranger-misspelt": ("misspelt", RIGHT.replace("def kvstore_backend", "def kvstore_bakend")),
    "stranger-unmarked": ("unmarked", RIGHT.replace("@hookimpl", "")),
    "stranger-speechless": ("speechless", SPEECHLESS),
    "stranger-future": ("future", RIGHT.replace("contract=1", "contract=2")),
    "stranger-misnamed": ("misnamed", RIGHT.replace("{backend}", "another")),
    "stranger-storeless": ("storeless", RIGHT.replace("MemoryStore", "NoSuchStore")),
    "stranger-twin": ("twin", RIGHT),
    "another-twin": ("twin", RIGHT),
}
"""Distribution: the name of its entry point, and its plugin."""

ERRORS = {
    "broken": (
        "BackendLoadError", "ModuleNotFoundError",
        ["stranger-broken 1.2.3", "'stranger_broken'", "No module named 'a_library_that_is_not_there'"],
    ),
    "raising": ("BackendLoadError", "OSError", ["stranger-raising 1.2.3", "OSError: the licence has expired"]),
    "misspelt": ("BackendLoadError", "PluginValidationError", ["stranger-misspelt 1.2.3", "kvstore_bakend"]),
    "unmarked": ("BackendLoadError", "NoneType", ["stranger-unmarked 1.2.3", "hookspecs.hookimpl"]),
    "speechless": ("BackendLoadError", "NoneType", ["stranger-speechless 1.2.3", "returns a BackendSpec"]),
    "future": ("BackendIncompatibleError", "NoneType", ["stranger-future 1.2.3", "version 2", "version 1"]),
    "misnamed": ("BackendLoadError", "NoneType", ["stranger-misnamed 1.2.3", "'misnamed'", "'another'"]),
    "storeless": ("BackendLoadError", "AttributeError", ["'storeless'", "etha_kvstore_memory.store:NoSuchStore"]),
    "twin": ("BackendConflictError", "NoneType", ["stranger-twin 1.2.3", "another-twin 1.2.3"]),
}  # fmt: skip
"""Backend: the class of the error, that of its cause, and what its text must say."""


@pytest.fixture(scope="session")
def crowded(
    tmp_path_factory: pytest.TempPathFactory,
    build_wheels: Callable[[list[Path]], list[Path]],
    new_environment: Callable[[], Environment],
    wheel: Callable[[str], Path],
) -> Environment:
    """Give an environment with the core, the memory backend and every stranger."""
    sources = []
    for distribution, (backend, plugin) in STRANGERS.items():
        source = tmp_path_factory.mktemp(distribution)
        package = distribution.replace("-", "_")
        (source / "pyproject.toml").write_text(PROJECT.format(**locals()))
        (source / f"{package}.py").write_text(plugin.replace("{backend}", backend))
        sources.append(source)
    environment = new_environment()
    environment.install(wheel("etha-kvstore"), wheel("etha-kvstore-memory"), *build_wheels(sources))
    return environment


@pytest.mark.parametrize("backend", ERRORS)
def test_a_wrong_plugin_gets_the_error_that_names_what_is_wrong(crowded: Environment, backend: str) -> None:
    expected_error, expected_cause, facts = ERRORS[backend]
    error, text, cause = crowded.opens(backend)
    assert (error, cause) == (expected_error, expected_cause), text
    assert [fact for fact in facts if fact not in text] == [], text


@pytest.mark.parametrize("backend", ["memory", "right"])
def test_a_wrong_plugin_never_stops_another(crowded: Environment, backend: str) -> None:
    assert crowded.opens(backend) == ("opened", "", "")


def test_a_plugin_loads_in_the_process_in_which_another_failed(crowded: Environment) -> None:
    program = """
    import sys
    from etha.kvstore import open_store
    from etha.kvstore.errors import KVStoreError
    for backend in sys.argv[1:]:
        try:
            open_store(backend, namespace="n", component="c").close()
        except KVStoreError as error:
            print("refused", backend)
        with open_store("memory", namespace="n", component="c") as store:
            store.set("key", "value")
            assert store.get("key") == b"value"
    """
    assert crowded.python_says(program, *ERRORS).splitlines() == [f"refused {backend}" for backend in ERRORS]


def test_the_command_lists_what_works_and_says_why_the_rest_does_not(crowded: Environment) -> None:
    code, text = crowded.lists_backends()
    assert code == 1
    assert re.search(r"^memory  \(etha-kvstore-memory [0-9.]+\)\n  keys in this process's memory", text, re.MULTILINE)
    assert "right  (stranger-right 1.2.3)\n  a stranger's" in text
    assert "broken  (stranger-broken 1.2.3)\n  broken: backend 'broken' of stranger-broken 1.2.3 is installed" in text
    assert text.count("claimed by") == 2, "each twin is listed, with the other"
    listed = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert listed == sorted([backend for backend, _ in STRANGERS.values()] + ["memory"])


def test_a_distribution_that_is_found_twice_is_one(with_memory: Environment, wheel: Callable[[str], Path]) -> None:
    again = with_memory.python.parents[1] / "again"
    with_memory.install("--no-deps", "--target", again, wheel("etha-kvstore-memory"))
    found = """
    import importlib.metadata, sys
    sys.path.append(sys.argv[1])
    print(len([d for d in importlib.metadata.distributions() if d.name == "etha-kvstore-memory"]))
    from etha.kvstore.registry import find_backend
    print(find_backend("memory").summary)
    """
    count, summary = with_memory.python_says(found, str(again)).splitlines()
    assert count == "2"
    assert "this process's memory" in summary
