"""The tests on each Python that the distributions support: ``nox -s tests-3.12``, ``nox -s tests -- -k watch``.

``make test`` and CI run them on one. On Linux, an index may give a torch of several gigabytes (its CUDA build): tell
pip where a smaller one is, or run ``tests_without_torch``, which leaves out the paths that need it.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
WITHOUT_TORCH = [
    "core",
    "plugins/memory",
    "plugins/etcd[etcd3]",
    "addons/testkit",
    "examples/etha-kvstore-sqlite",
]
PYTEST = ("python", "-m", "pytest", "-n", "2", "--dist", "loadgroup")

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run every test of every distribution, and those of tests/."""
    _install(session, *WITHOUT_TORCH, "addons/cli", "plugins/tcpstore")
    session.run(*PYTEST, *session.posargs)


@nox.session(python=PYTHONS)
def tests_without_torch(session: nox.Session) -> None:
    """Run the tests of all but the TCPStore backend, and those of packaging."""
    _install(session, *WITHOUT_TORCH)
    paths = [distribution.partition("[")[0] for distribution in WITHOUT_TORCH]
    session.run(*PYTEST, *paths, "tests/packaging", "--ignore=tests/packaging/test_tcpstore.py", *session.posargs)


def _install(session: nox.Session, *distributions: str) -> None:
    editable = [argument for distribution in distributions for argument in ("-e", distribution)]
    session.install("-c", "constraints.txt", "-r", "requirements-dev.txt", *editable)
