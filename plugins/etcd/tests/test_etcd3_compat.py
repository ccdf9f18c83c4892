"""The package ``etcd3``, imported beside today's protobuf: it works on a real etcd, and disturbs nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import google.protobuf
import pytest

from etcd_server import EtcdServer
from etha_kvstore_etcd import etcd3_compat
from etha_kvstore_etcd.etcd3_compat import import_etcd3

# Closing a channel ends the package's watch thread with a ValueError that the package does not catch.
WATCH_THREAD_ENDS = pytest.mark.filterwarnings(
    "ignore:Exception in thread etcd3_watch:pytest.PytestUnhandledThreadExceptionWarning"
)

CLASHING = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

def another_client_comes():
    for name, message in [("kv.mvccpb", "KeyValue"), ("auth.authpb", "User"), ("rpc.etcdserverpb", "Member")]:
        name, package = name.split(".")
        file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=package, syntax="proto3")
        field = descriptor_pb2.FieldDescriptorProto(name="theirs", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
        file.message_type.add(name=message, field=[field])
        descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

def its_message():
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("mvccpb.KeyValue"))
"""

USE = """
from etha_kvstore_etcd.etcd3_compat import import_etcd3

def use(etcd3):
    with etcd3.client(host=host, port=port, timeout=10) as client:
        client.put("clash", "mine")
        assert client.get("clash")[0] == b"mine"
"""


@pytest.fixture(scope="module")
def etcd3() -> ModuleType:
    return import_etcd3()


@pytest.fixture
def client(etcd: EtcdServer, etcd3: ModuleType) -> Iterator[Any]:
    client = etcd3.client(*etcd.endpoint.split(":"), timeout=10)
    yield client
    client.close()
    if (thread := client.watcher._callback_thread) is not None:
        thread.join(10)
        assert not thread.is_alive()


def run(code: str, *folders: Path, flags: tuple[str, ...] = (), **environment: str) -> str:
    """Run code in a process of its own, in which a warning is an error, with folders before everything on its path."""
    path = os.pathsep.join([*map(str, folders), *([] if flags else [os.environ.get("PYTHONPATH", "")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", code],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def address(etcd: EtcdServer) -> str:
    host, port = etcd.endpoint.split(":")
    return f"host, port = {host!r}, {port}\n"


def refusal_of(folder: Path, *, flags: tuple[str, ...] = ()) -> str:
    """Return the text of the ImportError; nothing of the package may stay behind."""
    code = """
import sys
from etha_kvstore_etcd.etcd3_compat import import_etcd3
try:
    import_etcd3()
except ImportError as error:
    assert error.name == "etcd3"
    print(error)
assert not [name for name in sys.modules if name.startswith("etcd3")]
"""
    return run(code, folder, flags=flags)


def make_package(folder: Path, **files: str) -> Path:
    """Make a package ``etcd3`` of a different kind."""
    (folder / "etcd3" / "etcdrpc").mkdir(parents=True)
    for name in ("__init__", "etcdrpc/__init__"):
        (folder / "etcd3" / f"{name}.py").touch()
    for name, text in files.items():
        (folder / "etcd3" / "etcdrpc" / f"{name}.py").write_text(text)
    return folder


# --- it works ---


def test_what_is_put_can_be_read_and_deleted(client: Any) -> None:
    client.put("plain/a", "1")
    client.put("plain/b", b"\x00\xff")
    value, metadata = client.get("plain/b")
    assert (value, metadata.key, metadata.version) == (b"\x00\xff", b"plain/b", 1)
    assert [(value, meta.key) for value, meta in client.get_prefix("plain/", sort_order="descend")] == [
        (b"\x00\xff", b"plain/b"),
        (b"1", b"plain/a"),
    ]
    assert client.delete("plain/a")
    assert not client.delete("plain/a")
    assert client.get("plain/a") == (None, None)


def test_a_transaction_takes_the_branch_of_its_comparison(client: Any) -> None:
    step = client.transactions
    assert client.put_if_not_exists("txn", "old")
    assert not client.put_if_not_exists("txn", "other")
    for expected, found in ((True, b"old"), (False, b"new")):
        succeeded, (replies, *_) = client.transaction(
            compare=[step.value("txn") == "old", step.version("txn") > 0],
            success=[step.get("txn"), step.put("txn", "new")],
            failure=[step.get("txn")],
        )
        assert (succeeded, replies[0][0]) == (expected, found)


@WATCH_THREAD_ENDS
def test_a_watch_sees_a_put_and_a_deletion(client: Any, etcd3: ModuleType) -> None:
    events, cancel = client.watch_prefix("watched/", prev_kv=True)
    client.put("watched/a", "1")
    client.delete("watched/a")
    put, deletion = next(events), next(events)
    cancel()
    assert isinstance(put, etcd3.events.PutEvent)
    assert (put.key, put.value) == (b"watched/a", b"1")
    assert isinstance(deletion, etcd3.events.DeleteEvent)
    assert (deletion.key, deletion.prev_value) == (b"watched/a", b"1")


def test_a_key_goes_with_its_lease(client: Any) -> None:
    lease = client.lease(60)
    client.put("leased", "1", lease=lease)
    assert list(lease.keys) == [b"leased"]
    assert [reply.TTL for reply in lease.refresh()] == [60]
    lease.revoke()
    assert client.get("leased") == (None, None)


def test_a_lock_is_held_until_it_is_released(client: Any) -> None:
    with client.lock("held", ttl=60) as lock:
        assert lock.is_acquired()
    assert not lock.is_acquired()


def test_the_cluster_and_its_alarms_can_be_asked(client: Any, etcd3: ModuleType) -> None:
    assert client.status().leader.id == next(client.members).id
    assert list(client.list_alarms()) == []
    assert etcd3.etcdrpc.NOSPACE == etcd3.etcdrpc.AlarmType.Value("NOSPACE") == 1


def test_a_user_gets_a_token_that_the_channel_can_be_used_with(own_etcd: EtcdServer, etcd3: ModuleType) -> None:
    rpc = etcd3.etcdrpc
    endpoint = own_etcd.endpoint.split(":")
    with etcd3.client(*endpoint, timeout=10) as anybody:
        auth = rpc.AuthStub(anybody.channel)
        auth.UserAdd(rpc.AuthUserAddRequest(name="root", password="secret"))
        auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        auth.AuthEnable(rpc.AuthEnableRequest())
    with etcd3.client(*endpoint, timeout=10, user="root", password="secret") as root:
        users = rpc.AuthStub(root.channel).UserList(rpc.AuthUserListRequest(), 10, metadata=root.metadata)
    assert list(users.users) == ["root"]


# --- it is one package, with its modules where they belong ---


def test_every_call_and_every_plain_import_gives_the_same_package() -> None:
    code = """
from etha_kvstore_etcd.etcd3_compat import import_etcd3
package = import_etcd3()
import etcd3, etcd3.etcdrpc.kv_pb2
from etcd3.etcdrpc import auth_pb2, rpc_pb2

assert package is import_etcd3() is etcd3
assert rpc_pb2.RangeRequest is etcd3.etcdrpc.RangeRequest
assert rpc_pb2.RangeRequest.SortOrder.items() == [("NONE", 0), ("ASCEND", 1), ("DESCEND", 2)]
assert etcd3.etcdrpc.kv_pb2.Event.DELETE == 1
assert etcd3.etcdrpc.auth_pb2 is auth_pb2
"""
    run(code)


def test_a_package_that_is_imported_already_is_returned_as_it_is(tmp_path: Path) -> None:
    code = """
import etcd3
from etha_kvstore_etcd.etcd3_compat import import_etcd3
assert import_etcd3() is etcd3
assert not hasattr(etcd3, "client")
"""
    run(code, make_package(tmp_path))


def test_threads_that_import_at_once_get_the_same_package() -> None:
    code = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from etha_kvstore_etcd.etcd3_compat import import_etcd3

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def find(_):
    together.wait()
    etcd3 = import_etcd3()
    return etcd3, etcd3.etcdrpc.rpc_pb2, etcd3.etcdrpc.RangeRequest, etcd3.etcdrpc.rpc_pb2.RangeRequest

with ThreadPoolExecutor(8) as pool:
    packages, modules, messages, their_own = map(set, zip(*pool.map(find, range(8)), strict=True))
assert len(packages) == len(modules) == len(messages | their_own) == 1
"""
    run(code)


# --- it disturbs nobody, and nobody it ---


@pytest.mark.parametrize("implementation", ["upb", "python"])
@pytest.mark.parametrize("first", ["another_client_comes()", "import_etcd3()"])
def test_a_client_with_clashing_messages_can_come_before_or_after(
    etcd: EtcdServer, first: str, implementation: str
) -> None:
    code = f"""
{first}
etcd3 = import_etcd3()
use(etcd3)
if {first!r} == "import_etcd3()":
    another_client_comes()
assert its_message()(theirs="a").theirs == "a"
assert etcd3.etcdrpc.kv_pb2.KeyValue(key=b"a").key == b"a"
use(etcd3)
"""
    run(address(etcd) + CLASHING + USE + code, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=implementation)


def test_it_works_after_a_plain_import_has_failed(etcd: EtcdServer) -> None:
    code = """
try:
    import etcd3
except TypeError as error:
    assert "Descriptors cannot be created directly" in str(error)
else:
    raise AssertionError("protobuf takes the generated code again")
use(import_etcd3())
"""
    run(address(etcd) + USE + code, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="upb")


# --- it can't be had ---


def test_a_package_that_is_not_installed_is_said_to_be_so(tmp_path: Path) -> None:
    installed = {
        "etha_kvstore_etcd": Path(etcd3_compat.__file__).parent,
        "google": Path(google.protobuf.__file__).parents[1],
    }
    for name, folder in installed.items():
        (tmp_path / name).symlink_to(folder, target_is_directory=True)
    (tmp_path / "etcd3").mkdir()  # as somebody's data might be called; it is no package
    said = refusal_of(tmp_path, flags=("-S",))
    assert said == "the package etcd3 is not installed; install it with: pip install etha-kvstore-etcd[etcd3]\n"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param({}, "FileNotFoundError", id="another package of that name"),
        pytest.param(
            {"kv_pb2": "DESCRIPTOR = pool.AddSerializedFile(b'')"}, "no serialized_pb", id="newer generated code"
        ),
        pytest.param({"kv_pb2": "D = FileDescriptor(serialized_pb=_b('?'))"}, "Error: ", id="not a descriptor"),
        pytest.param(
            {"kv_pb2": "D = FileDescriptor(serialized_pb=_b('\u20ac'))"}, "UnicodeEncodeError", id="not bytes"
        ),
        pytest.param({"kv_pb2": "D = ("}, "SyntaxError", id="not Python"),
    ],
)
def test_a_package_that_looks_different_is_said_to_be_so(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    said = refusal_of(make_package(tmp_path, **files))
    assert f"does not look like version {etcd3_compat.KNOWN_VERSION}" in said
    assert str(tmp_path / "etcd3" / "etcdrpc" / "kv_pb2.py") in said
    assert reason in said
    assert "pip install etha-kvstore-etcd[etcd3]" in said


def test_a_failed_attempt_leaves_nothing_behind_and_a_later_one_works(etcd: EtcdServer) -> None:
    code = """
import sys
sys.modules["six"] = None
try:
    import_etcd3()
except ImportError as error:
    assert "six" in str(error) and isinstance(error.__cause__, ModuleNotFoundError)
else:
    raise AssertionError("it did not need six")
assert not [name for name in sys.modules if name.startswith("etcd3")]
del sys.modules["six"]
use(import_etcd3())
"""
    run(address(etcd) + USE + code)
