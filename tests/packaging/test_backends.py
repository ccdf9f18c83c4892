"""The wheels of the memory and etcd backends, each in a clean environment, at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer

if TYPE_CHECKING:
    from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

ROUND_TRIP = """
import sys
from importlib.metadata import version
from etha.kvstore import open_store

endpoint = sys.argv[1]
with (
    open_store("etcd", namespace="packaging", component=sys.argv[2], endpoints=[endpoint]) as one,
    open_store("etcd", namespace="packaging", component=sys.argv[2], endpoints=[endpoint]) as other,
):
    one.set("rank:0/ready", "1")
    one.set_bytes("shards", bytes(range(256)))
    assert other.wait_for_keys("rank:*/ready", 1, timeout=30) == ["rank:0/ready"]
    assert other.get_bytes("shards") == bytes(range(256))
    with other.watch("rank:*") as changes:
        one.set("rank:1/ready", "1")
        assert changes.next(30) == ("rank:1/ready", b"1")
    assert one.delete("rank:0/ready") and not other.exists("rank:0/ready")
print(version("protobuf"))
"""


def test_the_memory_backend_works_from_its_wheel(with_memory: Environment) -> None:
    program = """
    from etha.kvstore import open_store
    with open_store("memory", namespace="n", component="c") as one:
        one.set("ready", "1")
        with open_store("memory", namespace="n", component="c") as other:
            print(other.wait_for_value("ready", "1", timeout=30).decode(), *other.list_keys())
    """
    assert with_memory.python_says(program) == "1 ready"


def test_the_memory_backend_is_listed_and_no_other_is(with_memory: Environment) -> None:
    code, text = with_memory.lists_backends()
    assert code == 0
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == ["memory"]


@pytest.fixture(scope="module")
def with_etcd(new_environment: Callable[[], Environment], wheel: Callable[[str], Path]) -> Environment:
    """Give an environment with the core, the etcd backend, and what an index has newest beside them."""
    environment = new_environment()
    environment.install(wheel("etha-kvstore"), wheel("etha-kvstore-etcd"))
    return environment


def test_the_etcd_backend_is_listed_without_loading_grpc(with_etcd: Environment) -> None:
    code, text = with_etcd.lists_backends()
    assert code == 0
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == ["etcd"]
    program = """
    import sys
    from etha.kvstore.registry import find_backend
    find_backend("etcd")
    print([name for name in ("grpc", "google.protobuf") if name in sys.modules])
    """
    assert with_etcd.python_says(program) == "[]"


def test_the_etcd_backend_works_beside_the_newest_protobuf(with_etcd: Environment, etcd_server: EtcdServer) -> None:
    protobuf = with_etcd.python_says(ROUND_TRIP, etcd_server.endpoint, "newest")
    assert int(protobuf.split(".")[0]) >= 7


def test_the_etcd_backend_works_beside_protobuf_4_25(
    new_environment: Callable[[], Environment], wheel: Callable[[str], Path], etcd_server: EtcdServer
) -> None:
    environment = new_environment()
    environment.install(wheel("etha-kvstore"), wheel("etha-kvstore-etcd"), "protobuf==4.25.*")
    protobuf = environment.python_says(ROUND_TRIP, etcd_server.endpoint, "oldest")
    assert protobuf.startswith("4.25.")
