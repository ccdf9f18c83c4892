"""Stores that are opened and closed, and waits that end, leave nothing behind; a store that does is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from etcd_server import EtcdServer
from leaks import Plan, measure
from tcpstore_host import TorchHost


@contextmanager
def memory() -> Iterator[Plan]:
    yield Plan("memory")


@contextmanager
def tcpstore() -> Iterator[Plan]:
    with TorchHost() as host:
        yield Plan("tcpstore", {"host": "127.0.0.1", "port": host.port})


@contextmanager
def etcd() -> Iterator[Plan]:
    with EtcdServer() as server:
        yield Plan("etcd", {"endpoints": [server.endpoint]})


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", [memory, tcpstore, etcd])
def test_a_process_holds_after_many_stores_and_waits_what_it_held_before(
    backend: Callable[[], AbstractContextManager[Plan]], record_property: Callable[[str, object], None]
) -> None:
    with backend() as plan:
        growths = measure(plan)
    held = "; ".join(map(str, growths))
    assert not any(growth.grown for growth in growths), f"on {plan.backend} {held}"
    record_property("leak cycles", plan.cycles)
    record_property("leak waits", plan.waits)
    record_property(f"what was held on {plan.backend}", held)


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (Plan("memory", leak="thread", waits=100, settling=1.0), "threads"),
        (Plan("memory", leak="file", waits=100, settling=1.0), "files"),
        (Plan("memory", leak="follower", cycles=100, waits=3_000, settling=1.0), "memory"),
    ],
    ids=["thread", "file", "follower"],
)
def test_a_store_that_leaves_something_behind_is_found_out(plan: Plan, found: str) -> None:
    assert all(found in growth.grown for growth in measure(plan))
