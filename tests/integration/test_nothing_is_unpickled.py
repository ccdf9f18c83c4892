"""What is stored is bytes: a pickle that a stranger put into any backend is handed out as it is and never loaded."""

from __future__ import annotations

import ast
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types

from etcd_server import EtcdServer
from etha.kvstore import KVStore, open_store
from etha.kvstore.errors import UnsupportedOperationError, ValueDecodeError, WaitTimeoutError
from tcpstore_host import TorchHost

pytestmark = pytest.mark.security

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]

LOADERS = {"cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve"}
"""Modules that make objects, and with them run code, out of bytes."""

CALLS = {"all_gather_object", "broadcast_object_list", "eval", "exec", "load_module", "recv_object_list"}
"""Functions that do the same, those of torch that unpickle what other ranks send included."""

Stranger = Callable[[str, bytes], object]


class Hostile:
    """What makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._path,)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that must not be loaded, of the kind that is text, so that every tool can store it."""
    sprung = tmp_path / "sprung"
    hostile = pickle.dumps(Hostile(sprung), protocol=0)
    yield hostile
    assert not sprung.exists()
    pickle.loads(hostile)
    assert sprung.exists()


@pytest.fixture(params=["memory", "tcpstore", "etcd"])
def beside(request: pytest.FixtureRequest) -> Iterator[tuple[KVStore, Stranger]]:
    """A store, and what writes into its component without this project's code, where there is such a thing."""
    names = {"namespace": "job-42", "component": "trainer"}
    if request.param == "memory":
        with open_store("memory", **names) as store, open_store("memory", **names) as other:
            yield store, other.set_bytes
    elif request.param == "tcpstore":
        with TorchHost() as host, open_store("tcpstore", host="127.0.0.1", port=host.port, **names) as store:
            torch_store = TCPStore("127.0.0.1", host.port, wait_for_workers=False)
            yield store, lambda key, data: torch_store.set(f"job-42/trainer/{key}", data)  # type: ignore[arg-type]
    else:
        with EtcdServer() as server, open_store("etcd", endpoints=[server.endpoint], **names) as store:
            yield store, lambda key, data: server.ctl("put", f"job-42/trainer/{key}", reading=data.decode())


def test_a_pickle_that_a_stranger_stored_is_given_back_as_bytes(beside: tuple[KVStore, Stranger], trap: bytes) -> None:
    store, put = beside
    put("key", trap)
    assert store.get("key") == store.wait_for_key("key", 10) == trap
    with suppress(ValueDecodeError):  # TCPStore's is base64
        assert store.get_bytes("key") == trap
    with pytest.raises(WaitTimeoutError) as late:
        store.wait_for_keys("k*", 1, timeout=0, candidate_keys=["key"])
    assert late.value.mismatched == {"key": trap}
    with suppress(UnsupportedOperationError), store.watch() as changes:
        assert changes.state["key"] == trap
        put("later", trap)
        assert changes.next(10) == ("later", trap)


def loaders(source: str) -> set[str]:
    """What a source imports or calls to make objects out of bytes."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & LOADERS
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & LOADERS
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found |= {called} & CALLS
    return found


def test_neither_the_core_nor_a_plugin_could_unpickle() -> None:
    known = "import pickle\nfrom dill.session import x\neval(x)\ntorch.distributed.broadcast_object_list(x)"
    assert loaders(known) == {"pickle", "dill", "eval", "broadcast_object_list"}
    assert len(SOURCES) > 30
    assert {str(path): found for path in SOURCES if (found := loaders(path.read_text()))} == {}
