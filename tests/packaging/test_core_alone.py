"""The core in an environment without any backend, and what importing it loads where everything is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

HEAVY = ("torch", "grpc", "google.protobuf", "numpy")


def test_the_core_brings_no_client_library(core_alone: Environment) -> None:
    program = "import importlib.metadata as m; print(*(d.name.lower().replace('_', '-') for d in m.distributions()))"
    installed = set(core_alone.python_says(program).split())
    assert {"etha-kvstore", "pluggy", "importlib-metadata"} <= installed
    assert installed.isdisjoint({"torch", "grpcio", "protobuf", "numpy", "etcd3"})


def test_the_core_alone_keeps_the_specification(core_alone: Environment) -> None:
    program = "from etha.kvstore.base import KVStore; print(*sorted(KVStore.__abstractmethods__))"
    assert core_alone.python_says(program).split() == [
        "close", "delete", "exists", "get", "get_bytes", "set", "set_bytes",
        "wait_for_key", "wait_for_keys", "wait_for_value",
    ]  # fmt: skip


def test_every_module_of_the_core_imports_without_a_backend(core_alone: Environment) -> None:
    program = """
    import importlib, pkgutil, sys
    import etha.kvstore
    for module in pkgutil.iter_modules(etha.kvstore.__path__):
        importlib.import_module(f"etha.kvstore.{module.name}")
        print(module.name)
    """
    assert {"base", "config", "registry", "skeleton"} <= set(core_alone.python_says(program).split())


def test_the_core_alone_lists_no_backends_and_says_how_to_get_one(core_alone: Environment) -> None:
    code, text = core_alone.lists_backends()
    assert code == 0
    assert text.splitlines() == [
        "No backends are installed. Install one with pip:",
        "  pip install etha-kvstore-memory",
        "  pip install etha-kvstore-tcpstore",
        "  pip install etha-kvstore-etcd",
    ]


@pytest.mark.parametrize("backend", ["memory", "tcpstore", "etcd"])
def test_a_backend_that_is_not_installed_is_named_with_its_distribution(core_alone: Environment, backend: str) -> None:
    error, text, _ = core_alone.opens(backend)
    assert error == "BackendNotFoundError"
    assert text == f"Backend {backend!r} is not installed. Install it with: pip install etha-kvstore-{backend}"


def test_a_wrong_name_gets_the_nearest_one_and_what_to_install(core_alone: Environment) -> None:
    error, text, _ = core_alone.opens("ectd")
    assert error == "BackendNotFoundError"
    assert "no installed distribution offers a backend 'ectd'" in text.lower()
    assert "Did you mean 'etcd'?" in text
    assert "pip install etha-kvstore-etcd" in text


def test_a_type_checker_sees_the_types_of_an_installed_core(core_alone: Environment, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from etha.kvstore import open_store\n"
        "store = open_store('memory', namespace='n', component='c')\n"
        "reveal_type(store.wait_for_key('k'))\n"
        "store.set('k', b'not a str')\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", "--config-file=",
         f"--python-executable={core_alone.python}", program.name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Revealed type is "bytes"' in checked.stdout, checked.stdout + checked.stderr
    assert 'Argument 2 to "set" of "KVStore" has incompatible type "bytes"' in checked.stdout
    assert "Found 1 error" in checked.stdout


@pytest.mark.parametrize("what", ["import etha.kvstore", "from etha.kvstore import open_store, open_store_from_config"])
def test_importing_the_core_loads_nothing_heavy_that_is_installed(what: str) -> None:
    loads_nothing_heavy(what)


def test_listing_all_backends_loads_nothing_heavy() -> None:
    loads_nothing_heavy(
        "from etha.kvstore.registry import installed_backends\n"
        "assert {'memory', 'etcd'} <= {backend.name for backend in installed_backends() if backend.spec}"
    )


def test_opening_one_backend_loads_no_other() -> None:
    loads_nothing_heavy(
        "from etha.kvstore import open_store\n"
        "open_store('memory', namespace='n', component='c').close()\n"
        "assert 'etha_kvstore_etcd' not in sys.modules"
    )


def loads_nothing_heavy(what: str) -> None:
    """Run a program where client libraries are installed, and assert that it loaded none of them."""
    program = f"""
import sys
from importlib.util import find_spec
assert find_spec("grpc") and find_spec("numpy"), "they are not installed here, so nothing would be tested"
{what}
print([name for name in {HEAVY} if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stdout == "[]\n", ran.stdout + ran.stderr
