"""The life of a hub: the process-wide one ends with its last open store, and no fork inherits it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import etha_kvstore_memory
from etha.kvstore import open_store, open_store_from_config
from etha.kvstore.errors import ConfigError, InvalidKeyError
from etha_kvstore_memory import MemoryHub, MemoryStore
from etha_kvstore_memory import hub as hub_module


@pytest.fixture(autouse=True)
def process_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process-wide hub for this test alone, in which nobody is when the test begins or when it ends."""
    monkeypatch.setattr(hub_module, "_default", hub_module._Default())
    yield
    assert hub_module._default.stores == 0


def opened(**options: Any) -> MemoryStore:
    return MemoryStore("job-42", "trainer", **options)


# --- the process-wide hub ---


def test_stores_without_a_hub_share_the_processs() -> None:
    with opened() as one, opened() as other:
        one.set("k", "1")
        assert other.get("k") == b"1"


def test_it_lasts_while_any_store_is_open_and_ends_with_the_last() -> None:
    first = opened()
    first.set("k", "1")
    second = opened()
    first.close()
    assert second.get("k") == b"1"
    third = opened()
    second.close()
    assert third.get("k") == b"1"
    third.close()
    with opened() as late:
        assert late.get("k") is None


def test_a_store_that_is_closed_twice_leaves_once() -> None:
    with opened() as stays:
        leaves = opened()
        leaves.close()
        leaves.close()
        stays.set("k", "1")
        with opened() as joins:
            assert joins.get("k") == b"1"


@pytest.mark.parametrize("cleanup", [True, False])
def test_closing_a_store_takes_none_of_its_keys_along(cleanup: bool) -> None:
    with opened() as stays:
        leaves = opened()
        leaves.set("k", "1")
        leaves.close(cleanup)
        assert stays.get("k") == b"1"


def test_stores_that_open_and_close_in_many_threads_leave_nobody_behind() -> None:
    def come_and_go() -> None:
        for _ in range(200):
            with opened() as store:
                store.set("k", "1")
                assert store.get("k") == b"1"

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with opened() as store:
        assert store.get("k") is None


@pytest.mark.parametrize("hub", ["hub", 3, MemoryHub])
def test_what_is_no_hub_is_refused_and_nobody_has_joined(hub: object) -> None:
    with pytest.raises(ConfigError, match=f"option 'hub' of backend 'memory' is a MemoryHub, not {type(hub).__name__}"):
        opened(hub=hub)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_an_operation_timeout_that_is_none_is_refused_and_nobody_has_joined(timeout: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        opened(timeout=timeout)


def test_a_name_that_breaks_a_rule_is_refused_and_nobody_has_joined() -> None:
    with pytest.raises(InvalidKeyError):
        MemoryStore("job/42", "trainer")


# --- a hub of one's own ---


def test_a_private_hub_is_apart_from_the_processs_and_from_others() -> None:
    with opened() as common, opened(hub=MemoryHub()) as one, opened(hub=MemoryHub()) as other:
        common.set("k", "common")
        one.set("k", "one")
        assert (common.get("k"), one.get("k"), other.get("k")) == (b"common", b"one", None)


def test_the_keys_of_a_private_hub_last_as_long_as_it_does() -> None:
    hub = MemoryHub()
    with opened(hub=hub) as store:
        store.set("k", "1")
    with opened(hub=hub) as again:
        assert again.get("k") == b"1"


def test_leaving_a_private_hub_leaves_the_processs_alone() -> None:
    with opened() as common:
        common.set("k", "1")
        opened(hub=MemoryHub()).close()
        with opened() as other:
            assert other.get("k") == b"1"


def test_a_repr_says_which_hub_it_is() -> None:
    with opened() as common, opened(hub=MemoryHub()) as private:
        shown = "<MemoryStore backend='memory' namespace='job-42' component='trainer' at"
        assert repr(common) == f"{shown} the process-wide hub>"
        assert repr(private) == f"{shown} a private hub>"


# --- how it is opened ---


def test_it_is_opened_by_name_with_a_hub_and_by_a_url_without() -> None:
    hub = MemoryHub()
    with (
        open_store("memory", namespace="job-42", component="trainer", hub=hub) as by_name,
        open_store_from_config("memory:///job-42/trainer", hub=hub) as by_url,
        open_store_from_config("memory:///job-42/trainer?timeout=5") as common,
    ):
        by_name.set("k", "1")
        assert (by_url.get("k"), common.get("k")) == (b"1", None)


@pytest.mark.parametrize("options", [{"hub": None}, {"timeout": None}])
def test_none_for_an_option_is_its_default(options: dict[str, object]) -> None:
    with open_store("memory", namespace="job-42", component="trainer", **options) as store, opened() as common:
        common.set("k", "1")
        assert store.get("k") == b"1"


def test_a_url_with_a_host_is_refused() -> None:
    with pytest.raises(ConfigError, match="connects to no host; write memory:///namespace/component"):
        open_store_from_config("memory://h1/job-42/trainer")


def test_the_package_fetches_its_names_when_they_are_used() -> None:
    assert etha_kvstore_memory.MemoryHub is hub_module.MemoryHub
    with pytest.raises(AttributeError, match="module 'etha_kvstore_memory' has no attribute 'MemoryStor'"):
        etha_kvstore_memory.MemoryStor  # noqa: B018


# --- fork ---

FORK = """
import os, signal, sys, threading, warnings
from etha.kvstore.errors import ForkedStoreError
from etha_kvstore_memory import MemoryStore
from etha_kvstore_memory import hub
warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what is tested
store = MemoryStore("n", "c")
store.set("k", "parent")

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def meet_in_child():
    try:
        store.get("k")
    except ForkedStoreError:
        pass
    else:
        raise AssertionError("the parent's store must refuse")
    store.close()
    with MemoryStore("n", "c") as one, MemoryStore("n", "c") as other:
        assert one.get("k") is None
        one.set("k", "child")
        assert other.wait_for_value("k", "child", timeout=10) == b"child"
    with MemoryStore("n", "c") as late:
        assert late.get("k") is None
"""
HELD_LOCK = """
held, let_go = threading.Event(), threading.Event()
def hold():
    with {lock}:
        held.set()
        let_go.wait(60)
thread = threading.Thread(target=hold)
thread.start()
held.wait(30)
in_child(meet_in_child)
let_go.set()
thread.join()
"""


@pytest.mark.parametrize(
    "scene",
    [
        "in_child(meet_in_child)",
        HELD_LOCK.format(lock="hub._default.lock"),
        HELD_LOCK.format(lock="hub._default.hub._lock"),
    ],
    ids=["plain", "the door's lock held by another thread", "the hub's lock held by another thread"],
)
def test_a_forked_child_has_a_hub_of_its_own_and_the_parents_goes_on(scene: str) -> None:
    script = f"{FORK}\n{scene}\nassert store.get('k') == b'parent'\nstore.close()\nassert hub._default.stores == 0\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
