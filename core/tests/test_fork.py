"""A store in a forked child: refused there, and unharmed in its parent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FORK = """
import os, signal, sys, threading
from etha.kvstore.errors import ForkedStoreError
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.follow import Batch, PushFollower
from etha.kvstore.skeleton import SkeletalStore

class Store(SkeletalStore):
    spec = BackendSpec("fork", "x:Store", "x", contract=1, capabilities=frozenset({"watch", "list_keys"}))
    def __init__(self):
        super().__init__("n", "c")
        self.kept = {}
    def _read(self, key, deadline): return self.kept.get(key)
    def _write(self, key, value, deadline): self.kept[key] = value
    def _remove(self, key, deadline): return self.kept.pop(key, None) is not None
    def _enumerate(self, prefix, deadline): return list(self.kept.items())
    def _release(self, cleanup, deadline): print("released in", who, flush=True)
    def __del__(self): print("destroyed in", who, flush=True)
    def _follow(self, selector):
        follower = PushFollower()
        follower.push(Batch([], restart=True))
        return follower

who = "parent"
store = Store()
store.set("k", "1")

def in_child(work):
    global who
    child = os.fork()
    if child == 0:
        who = "child"
        signal.alarm(30)  # a child that hangs shall not outlive the test
        try:
            work()
        except BaseException as error:
            print("failed:", repr(error), flush=True)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(
    ("work", "printed"),
    [
        (
            """
def work():
    calls = {
        "get": lambda: store.get("k"), "set": lambda: store.set("k", "2"), "exists": lambda: store.exists("k"),
        "get_bytes": lambda: store.get_bytes("k"), "set_bytes": lambda: store.set_bytes("k", b"2"),
        "delete": lambda: store.delete("k"), "list_keys": store.list_keys, "watch": store.watch,
        "wait_for_key": lambda: store.wait_for_key("k"), "wait_for_value": lambda: store.wait_for_value("k", "1"),
        "wait_for_keys": lambda: store.wait_for_keys("k*", 1, candidate_keys=["k"]),
    }
    for name, call in calls.items():
        try:
            call()
        except ForkedStoreError as error:
            assert "opened in another process" in str(error) and "open one here" in str(error)
        else:
            print(name, "was not refused")
in_child(work)
""",
            [],
        ),
        ("in_child(store.close)", []),
        ("in_child(lambda: globals().pop('store'))", []),
        (
            """
with store.watch() as watch:
    def work():
        try:
            watch.next(timeout=0)
        except ForkedStoreError:
            print("refused", flush=True)
        watch.__exit__(None, None, None)
    in_child(work)
    assert watch.state == {}
""",
            ["refused"],
        ),
        (
            """
watch = store.watch().__enter__()
held, let_go = threading.Event(), threading.Event()
def hold():
    with store._life:
        held.set()
        let_go.wait(30)
thread = threading.Thread(target=hold)
thread.start()
held.wait(30)
in_child(lambda: (watch.__exit__(None, None, None), store.close()))
let_go.set()
thread.join()
""",
            [],
        ),
        (
            """
def work():
    global store
    store = Store()
    store.set("k", "child")
    print(store.get("k").decode(), flush=True)
    store.close()
in_child(work)
""",
            ["child", "released in child"],
        ),
    ],
    ids=["calls", "close", "forget", "watch", "a lock held by another thread", "open another"],
)
def test_a_forked_childs_copy_refuses_its_calls_and_is_never_torn_down(
    work: str, printed: list[str], full_python: Callable[[str], str]
) -> None:
    script = f"import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n{FORK}{work}\n"
    last = "assert store.get('k') == b'1'; store.close()"
    assert full_python(script + last).splitlines() == [*printed, "released in parent", "destroyed in parent"]
