"""The wheel of the TCPStore backend in a clean environment, at work.

torch is not downloaded a second time: the environment gets the one that the tests run beside, as links to its files and
to those of what it requires, metadata included, so that pip can check it against the range that the plugin asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from etcd_server import free_port

if TYPE_CHECKING:
    from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

ROUND_TRIP = """
import sys
from etha.kvstore import open_store

where = {"host": "127.0.0.1", "port": int(sys.argv[1])}
with (
    open_store("tcpstore", namespace="packaging", component="c", is_master=True, **where) as one,
    open_store("tcpstore", namespace="packaging", component="c", **where) as other,
):
    one.set("rank:0/ready", "1")
    one.set_bytes("shards", bytes(range(256)))
    assert other.wait_for_keys("rank:*/ready", 1, timeout=30, candidate_keys=["rank:0/ready"]) == ["rank:0/ready"]
    assert other.get_bytes("shards") == bytes(range(256))
    assert one.delete("rank:0/ready") and not other.exists("rank:0/ready")
print("met")
"""


def required_by(requirement: Requirement, seen: set[str]) -> Iterator[Distribution]:
    """Find the installed distribution that a requirement names, and all that it requires in its turn."""
    if requirement.name in seen:
        return
    seen.add(requirement.name)
    yield (found := distribution(requirement.name))
    for needed in map(Requirement, found.requires or []):
        extras = {"", *requirement.extras}
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield from required_by(needed, seen)


@pytest.fixture(scope="module")
def with_tcpstore(new_environment: Callable[[], Environment], wheel: Callable[[str], Path]) -> Environment:
    """Give an environment with the core, the TCPStore backend, torch and pybase64."""
    environment = new_environment()
    environment.install(wheel("etha-kvstore"))
    seen: set[str] = set()
    for found in [*required_by(Requirement("torch"), seen), *required_by(Requirement("pybase64"), seen)]:
        for name in {file.parts[0] for file in found.files or []} - {".."}:
            link = environment.site_packages / name
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(name))))
    # Without dependencies: pip would mend what does not fit, and here through the links; so it only checks.
    environment.install("--no-deps", wheel("etha-kvstore-tcpstore"))
    return environment


def test_the_tcpstore_backend_works_from_its_wheel(with_tcpstore: Environment) -> None:
    assert with_tcpstore.python_says(ROUND_TRIP, str(free_port())) == "met"


def test_the_tcpstore_backend_is_listed_without_loading_torch(with_tcpstore: Environment) -> None:
    code, text = with_tcpstore.lists_backends()
    assert code == 0
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == ["tcpstore"]
    program = """
    import sys
    from etha.kvstore.registry import find_backend
    find_backend("tcpstore")
    print("torch" in sys.modules)
    """
    assert with_tcpstore.python_says(program) == "False"
