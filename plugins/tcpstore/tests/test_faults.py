"""A server that freezes, dies, or never speaks: what is special to a TCPStore and so not in the conformance suite."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from etha.kvstore.errors import (
    OperationTimeoutError,
    OutcomeUnknownError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from tcp_proxy import TcpProxy
from tcpstore_host import TorchHost

if TYPE_CHECKING:
    from plugins.tcpstore.tests.conftest import OpenStore

TIMEOUT = 0.5
GRACE = 1.0
PATIENCE = 60.0


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


@pytest.fixture
def proxy(host: TorchHost) -> Iterator[TcpProxy]:
    with TcpProxy(f"127.0.0.1:{host.port}") as proxy:
        yield proxy


@contextmanager
def frozen(host: TorchHost) -> Iterator[None]:
    host.freeze()
    try:
        yield
    finally:
        host.thaw()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = monotonic()
    yield
    assert monotonic() - started < seconds + GRACE


def test_a_write_that_a_frozen_server_may_have_is_of_unknown_outcome_and_may_take_effect(
    own_host: TorchHost, open_store: OpenStore
) -> None:
    store = open_store(host="127.0.0.1", port=own_host.port, timeout=TIMEOUT)
    with frozen(own_host), within(TIMEOUT), pytest.raises(OutcomeUnknownError, match=r"'key'.*may or may not"):
        store.set("key", "1")
    assert store.wait_for_key("key", PATIENCE) == b"1"
    with frozen(own_host), within(TIMEOUT), pytest.raises(OutcomeUnknownError):
        store.delete("key")
    assert not store.exists("key")


def test_a_write_behind_a_request_that_is_not_answered_was_never_sent(
    own_host: TorchHost, open_store: OpenStore
) -> None:
    store = open_store(host="127.0.0.1", port=own_host.port, timeout=TIMEOUT)
    with frozen(own_host):
        with pytest.raises(OperationTimeoutError):
            store.get("key")
        for write in (lambda: store.set("key", "1"), lambda: store.delete("key")):
            with within(TIMEOUT), pytest.raises(OperationTimeoutError, match="not sent"):
                write()
    assert store.get("key") is None


def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_call(
    own_host: TorchHost, open_store: OpenStore
) -> None:
    store = open_store(host="127.0.0.1", port=own_host.port, timeout=TIMEOUT)
    store.set("one", "1")
    store.set("two", "2")
    with frozen(own_host), pytest.raises(OperationTimeoutError):
        store.get("one")
    assert (store.get("two"), store.get("absent"), store.get("one")) == (b"2", None, b"1")


def test_a_wait_that_met_the_silence_goes_on_after_it(
    own_host: TorchHost, open_store: OpenStore, background: ThreadPoolExecutor
) -> None:
    store, other = (open_store(host="127.0.0.1", port=own_host.port, timeout=TIMEOUT) for _ in range(2))
    with frozen(own_host):
        waiting = background.submit(store.wait_for_key, "key", PATIENCE)
        with pytest.raises(OperationTimeoutError):
            store.get("another")
    other.set("key", "1")
    assert waiting.result(PATIENCE) == b"1"


@pytest.mark.parametrize("count", [1, 2])
def test_a_wait_without_a_limit_tells_that_the_server_is_silent_and_then_goes_on(
    own_host: TorchHost, open_store: OpenStore, background: ThreadPoolExecutor, count: int
) -> None:
    class Listener(logging.Handler):
        silence = threading.Event()

        def emit(self, record: logging.LogRecord) -> None:
            if "does not answer" in record.getMessage():
                self.silence.set()

    store, other = (open_store(host="127.0.0.1", port=own_host.port, timeout=TIMEOUT) for _ in range(2))
    everyone = [f"rank:{rank}" for rank in range(count)]
    listener = Listener()
    logging.getLogger("etha.kvstore").addHandler(listener)
    try:
        with frozen(own_host):
            waiting = background.submit(store.wait_for_keys, "rank:*", count, "1", float("inf"), everyone)
            assert listener.silence.wait(PATIENCE)
    finally:
        logging.getLogger("etha.kvstore").removeHandler(listener)
    for key in everyone:
        other.set(key, "1")
    assert waiting.result(PATIENCE) == everyone


def test_a_wait_that_ends_in_silence_says_since_when(own_host: TorchHost, open_store: OpenStore) -> None:
    store = open_store(host="127.0.0.1", port=own_host.port, timeout=TIMEOUT)
    with frozen(own_host), within(1.0), pytest.raises(WaitTimeoutError) as timeout:
        store.wait_for_keys("rank:*", 2, timeout=1.0, candidate_keys=["rank:0", "rank:1"])
    assert timeout.value.unreachable_for == pytest.approx(1.0, abs=GRACE)
    assert isinstance(timeout.value.__cause__, OperationTimeoutError)


def test_list_keys_on_a_frozen_server_leaves_the_process_alive(own_host: TorchHost, open_store: OpenStore) -> None:
    store = open_store(host="127.0.0.1", port=own_host.port, timeout=TIMEOUT)
    with frozen(own_host), within(TIMEOUT), pytest.raises(OperationTimeoutError):
        store.list_keys()
    assert store.list_keys() == []


def test_a_reply_that_is_held_back_makes_a_write_of_unknown_outcome(
    proxy: TcpProxy, host: TorchHost, open_store: OpenStore
) -> None:
    port = int(proxy.address.rpartition(":")[2])
    store, witness = (
        open_store(host="127.0.0.1", port=port, timeout=TIMEOUT),
        open_store(host="127.0.0.1", port=host.port),
    )
    proxy.hold("replies")
    with within(TIMEOUT), pytest.raises(OutcomeUnknownError):
        store.set("key", "1")
    proxy.await_struck("replies")
    assert witness.get("key") == b"1"
    proxy.release()
    assert store.delete("key")


def test_a_connection_that_is_cut_ends_the_store_and_says_so_each_time(
    proxy: TcpProxy, open_store: OpenStore, capfd: pytest.CaptureFixture[str]
) -> None:
    port = int(proxy.address.rpartition(":")[2])
    store = open_store(host="127.0.0.1", port=port)
    store.set("key", "1")
    proxy.reset()
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}") as first:
        store.get("key")
    assert isinstance(first.value.__cause__, ConnectionError)
    capfd.readouterr()
    calls: list[Callable[[], object]] = [
        lambda: store.get("key"),
        lambda: store.set("key", "2"),
        lambda: store.wait_for_key("key", PATIENCE),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError) as again:
            call()
        assert again.value.__cause__ is first.value.__cause__
    store.close()
    assert capfd.readouterr().err == ""


def test_a_write_to_a_server_that_has_just_died_is_of_unknown_outcome(
    own_host: TorchHost, open_store: OpenStore
) -> None:
    setter, deleter = (open_store(host="127.0.0.1", port=own_host.port) for _ in range(2))
    own_host.kill()
    with pytest.raises(OutcomeUnknownError) as unknown:
        setter.set("key", "1")
    assert isinstance(unknown.value.__cause__, ConnectionError)
    with pytest.raises(OutcomeUnknownError):
        deleter.delete("key")
    with pytest.raises(StoreUnavailableError):
        setter.set("key", "1")


def test_a_wait_whose_server_dies_ends_at_once(
    own_host: TorchHost, open_store: OpenStore, background: ThreadPoolExecutor
) -> None:
    waits = []
    for _ in range(3):
        store = open_store(host="127.0.0.1", port=own_host.port)
        waits.append(background.submit(store.wait_for_key, "key", PATIENCE))
        store.get("another")
    own_host.kill()
    for waiting in waits:
        with pytest.raises(StoreUnavailableError):
            waiting.result(PATIENCE / 2)


def test_a_close_after_the_server_has_died_is_logged_and_does_not_raise(
    own_host: TorchHost, open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(host="127.0.0.1", port=own_host.port, timeout=PATIENCE)
    own_host.kill()
    with within(PATIENCE / 2):
        store.close()
    assert f"127.0.0.1:{own_host.port} was away" in caplog.text


@pytest.mark.parametrize("connect_timeout", [0.01, 0.5])
def test_a_port_that_nobody_listens_on_is_waited_for_and_named_and_nothing_is_printed(
    open_store: OpenStore, capfd: pytest.CaptureFixture[str], connect_timeout: float
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        started = monotonic()
        with within(connect_timeout), pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}") as error:
            open_store(host="127.0.0.1", port=port, connect_timeout=connect_timeout)
        assert monotonic() - started >= connect_timeout - 0.1
    assert isinstance(error.value.__cause__, ConnectionRefusedError)
    assert capfd.readouterr() == ("", "")


def test_a_port_that_accepts_and_says_nothing_is_left_in_time_and_the_thread_ends_with_the_connection(
    open_store: OpenStore,
) -> None:
    before = set(threading.enumerate())
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        within(0.5),
        pytest.raises(StoreUnavailableError, match="in time"),
    ):
        open_store(host="127.0.0.1", port=silent.getsockname()[1], connect_timeout=0.5)
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_name_that_does_not_resolve_is_named(open_store: OpenStore) -> None:
    with pytest.raises(StoreUnavailableError, match=r"no-such-host\.invalid:29400"):
        open_store(host="no-such-host.invalid", port=29400, connect_timeout=0.5)


def test_a_server_that_comes_later_is_waited_for(
    host: TorchHost, open_store: OpenStore, background: ThreadPoolExecutor
) -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        opening = background.submit(open_store, host="127.0.0.1", port=port, connect_timeout=PATIENCE)
        with pytest.raises(futures.TimeoutError):
            opening.result(0.3)
    store = open_store(host="127.0.0.1", port=port, is_master=True)
    store.set("key", "1")
    assert opening.result(PATIENCE).get("key") == b"1"
