"""What several of the core's tests need: interpreters in which exactly so much is installed, and noting backends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
from packaging.requirements import Requirement

import etha.kvstore
from etha.kvstore.hookspecs import BackendSpec, Option
from etha.kvstore.registry import register_backend, unregister_backend
from etha.kvstore.skeleton import SkeletalStore
from small_stores import DictStore, ListingStore

DEPENDENCIES = ("pluggy", "importlib_metadata", *(() if sys.version_info >= (3, 11) else ("tomli",)))

COMMON = (
    Option("user", str),
    Option("password", str, secret=True),
    Option("timeout", float),
    Option("retries", int),
    Option("tls", bool),
)


class NotedStore(SkeletalStore):
    """A store that notes the options it was opened with, and holds nothing."""

    spec = BackendSpec("noted", "conftest:NotedStore", "nothing", contract=1)

    def __init__(self, namespace: str, component: str, **options: object) -> None:
        super().__init__(namespace, component)
        self.options = options

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        return None

    def _write(self, key: bytes, value: bytes, deadline: float) -> None: ...

    def _remove(self, key: bytes, deadline: float) -> bool:
        return False


@pytest.fixture
def store() -> Iterator[DictStore]:
    """A store that can do no more than it must."""
    with DictStore() as opened:
        yield opened


@pytest.fixture
def listing() -> Iterator[ListingStore]:
    """A store that can look by pattern."""
    with ListingStore() as opened:
        yield opened


@pytest.fixture
def noted_backends() -> Iterator[None]:
    """Backends that connect to several hosts, to one, and to none."""
    specs = [
        BackendSpec("many", NotedStore, "several hosts", contract=1, options=(Option("endpoints", list), *COMMON)),
        BackendSpec("one", NotedStore, "one", contract=1, options=(Option("host", str), Option("port", int), *COMMON)),
        BackendSpec("alone", NotedStore, "no host", contract=1, options=COMMON),
    ]
    for spec in specs:
        register_backend(spec)
    yield
    for spec in specs:
        unregister_backend(spec.name)


@pytest.fixture(scope="session")
def bare_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the core and all that it depends on, and with nobody's entry points."""
    library = tmp_path_factory.mktemp("library")
    (library / "etha").mkdir()
    (library / "etha" / "kvstore").symlink_to(Path(etha.kvstore.__file__).parent)
    needed, met = list(DEPENDENCIES), set[str]()
    while needed:
        distribution = importlib_metadata.distribution(needed.pop())
        if distribution.name in met:
            continue
        met.add(distribution.name)
        requirements = [Requirement(text) for text in distribution.requires or ()]
        needed += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in distribution.files or () if str(file).endswith(".py")}:
            (library / top).symlink_to(Path(str(distribution.locate_file(top))))
    return library


@pytest.fixture
def bare_python(bare_library: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run an interpreter to which nothing is installed but the core, and what the given folders hold."""

    def run(*arguments: str, folders: Iterable[Path] = ()) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(str(folder) for folder in (bare_library, *folders))
        return subprocess.run(
            [sys.executable, "-S", *arguments],
            env={"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def in_background() -> Callable[..., Future[Any]]:
    """Run a call in another thread, one that can't hold up the end of the tests where it never returns."""

    def run(call: Callable[..., Any], *arguments: object) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(call(*arguments))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test will see it
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    return run


@pytest.fixture(scope="session")
def full_python() -> Callable[[str], str]:
    """Run a script where all is installed that is installed here, and return what it prints."""

    def run(script: str) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run
