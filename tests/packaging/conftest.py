"""Every distribution built as a user gets it, and clean virtual environments to install the result in.

All of these tests belong to one xdist group, so that one worker builds each thing once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etcd_server import EtcdServer

CHECKOUT = Path(__file__).parents[2]
FOLDERS = {
    "etha-kvstore": CHECKOUT / "core",
    "etha-kvstore-memory": CHECKOUT / "plugins/memory",
    "etha-kvstore-tcpstore": CHECKOUT / "plugins/tcpstore",
    "etha-kvstore-etcd": CHECKOUT / "plugins/etcd",
    "etha-kvstore-testkit": CHECKOUT / "addons/testkit",
    "etha-kvstore-cli": CHECKOUT / "addons/cli",
}

OPEN = """
import json, sys
from etha.kvstore import open_store
try:
    open_store(sys.argv[1], namespace="n", component="c").close()
except Exception as error:
    print(json.dumps([type(error).__name__, str(error), type(error.__cause__).__name__]))
else:
    print(json.dumps(["opened", "", ""]))
"""


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command that sees nothing of the environment that the tests run in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def _succeed(*command: str | Path) -> str:
    """Run a command that must not fail, and give what it printed."""
    done = _run(*command)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


class Environment:
    """A virtual environment that holds what was installed in it with pip, and nothing else.

    pip itself stays outside; it is the one of the environment that the tests run in.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder)
        self.python = folder / "bin" / "python"
        self.site_packages = next(folder.glob("lib/python*/site-packages"))

    def install(self, *what: str | Path) -> None:
        """Install wheels and requirements, and check that what is there fits together."""
        self._pip("install", "--quiet", "--no-compile", *what)
        self._pip("check")

    def python_says(self, program: str, *arguments: str) -> str:
        """Run a program and give what it printed, without the last line's end."""
        return _succeed(self.python, "-I", "-c", textwrap.dedent(program), *arguments).rstrip("\n")

    def ends(self, *arguments: str) -> tuple[int, str]:
        """Run Python with arguments, and give its exit code and what it printed."""
        done = _run(self.python, "-I", *arguments)
        assert not done.stderr
        return done.returncode, done.stdout

    def lists_backends(self) -> tuple[int, str]:
        """Run ``python -m etha.kvstore backends``, and give its exit code and what it printed."""
        return self.ends("-m", "etha.kvstore", "backends")

    def opens(self, backend: str) -> tuple[str, str, str]:
        """Open a store by name; give the error's class, text and cause's class, or ``"opened"``."""
        name, text, cause = json.loads(self.python_says(OPEN, backend))
        return name, text, cause

    def _pip(self, *arguments: str | Path) -> None:
        _succeed(sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *arguments)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Give the sdist and the wheel of a distribution; the wheel is made from the sdist, as an index's is."""
    made: dict[str, tuple[Path, Path]] = {}

    def build(distribution: str) -> tuple[Path, Path]:
        if distribution not in made:
            folder = tmp_path_factory.mktemp(distribution)
            _succeed(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, FOLDERS[distribution])
            (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
            made[distribution] = sdist, wheel
        return made[distribution]

    return build


@pytest.fixture(scope="session")
def wheel(built: Callable[[str], tuple[Path, Path]]) -> Callable[[str], Path]:
    """Give the wheel of a distribution."""
    return lambda distribution: built(distribution)[1]


@pytest.fixture(scope="session")
def build_wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Path]], list[Path]]:
    """Build the wheels of other people's projects, with the tools of the environment that the tests run in."""

    def build(sources: list[Path]) -> list[Path]:
        folder = tmp_path_factory.mktemp("wheels")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        _succeed(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, *sources)
        return sorted(folder.glob("*.whl"))

    return build


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """Make a clean environment."""
    return lambda: Environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="session")
def core_alone(new_environment: Callable[[], Environment], wheel: Callable[[str], Path]) -> Environment:
    """Give an environment with the core and no backend."""
    environment = new_environment()
    environment.install(wheel("etha-kvstore"))
    return environment


@pytest.fixture(scope="session")
def with_memory(new_environment: Callable[[], Environment], wheel: Callable[[str], Path]) -> Environment:
    """Give an environment with the core and the memory backend."""
    environment = new_environment()
    environment.install(wheel("etha-kvstore"), wheel("etha-kvstore-memory"))
    return environment


@pytest.fixture(scope="module")
def etcd_server() -> Iterator[EtcdServer]:
    """Give a running etcd."""
    with EtcdServer() as server:
        yield server
