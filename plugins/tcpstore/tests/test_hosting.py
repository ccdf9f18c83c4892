"""The store that hosts a server: where that listens, and when it leaves."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

import psutil
import pytest

from etha.kvstore.errors import StoreClosedError, StoreUnavailableError
from etha_kvstore_tcpstore import TCPKVStore
from tcpstore_host import TorchHost

if TYPE_CHECKING:
    from plugins.tcpstore.tests.conftest import OpenStore

PATIENCE = 60.0
"""Seconds within which what must happen happens, on the slowest machine."""

CRASHING_CLIENT = """
import os, sys
from etha_kvstore_tcpstore import TCPKVStore

store = TCPKVStore("job", "client", host="127.0.0.1", port=int(sys.argv[1]))
store.set("here", "1")
os._exit(3)
"""


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def listening() -> set[tuple[str, int]]:
    """Where this process listens now."""
    found = psutil.Process().net_connections(kind="tcp")
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN}


def connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


def read_until_closed(store: TCPKVStore) -> NoReturn:
    while True:
        store.get("key")


@pytest.mark.security
@pytest.mark.parametrize(
    ("host", "meant"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::1", "::1"), ("localhost", None)]
)
def test_the_server_listens_on_the_given_address_and_nowhere_else(
    open_store: OpenStore, host: str, meant: str | None
) -> None:
    before = listening()
    store = open_store(host=host, port=0, is_master=True)
    assert store.port is not None
    ((where, port),) = listening() - before
    assert port == store.port
    assert where == meant if meant else where in ("127.0.0.1", "::1")
    client = open_store(host=host, port=store.port)
    client.set("key", "1")
    assert store.get("key") == b"1"


@pytest.mark.security
def test_the_server_is_not_reached_at_another_address_of_the_machine(open_store: OpenStore) -> None:
    store = open_store(host="127.0.0.1", port=0, is_master=True)
    assert store.port is not None
    assert connects("127.0.0.1", store.port)
    assert not connects("127.0.0.2", store.port)
    assert not connects("::1", store.port)


def test_a_port_that_was_found_is_told(open_store: OpenStore) -> None:
    store = open_store(host="127.0.0.1", port=0, is_master=True)
    assert store.host == "127.0.0.1"
    assert f"at 127.0.0.1:{store.port}, hosted here" in repr(store)
    assert f"at 127.0.0.1:{store.port}>" in repr(open_store(host="127.0.0.1", port=store.port))


def test_a_port_that_is_taken_is_named_at_once(open_store: OpenStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StoreUnavailableError, match=rf"hosted at 127\.0\.0\.1:{port}") as refusal:
            open_store(host="127.0.0.1", port=port, is_master=True)
    assert isinstance(refusal.value.__cause__, OSError)


@pytest.mark.security
def test_an_address_of_another_machine_can_not_be_hosted_at(open_store: OpenStore) -> None:
    with pytest.raises(StoreUnavailableError, match="hosted at 192"):
        open_store(host="192.0.2.1", port=0, is_master=True)


@pytest.mark.security
def test_the_server_ends_with_the_close_and_its_port_is_free(open_store: OpenStore) -> None:
    before = listening()
    for _ in range(3):
        store = open_store(host="127.0.0.1", port=0, is_master=True)
        store.set("key", "1")
        port = store.port
        store.close()
        assert listening() == before
        again = open_store(host="127.0.0.1", port=port, is_master=True)
        assert again.get("key") is None
        again.close()


def test_the_host_leaves_when_the_last_client_has_left(open_store: OpenStore, background: ThreadPoolExecutor) -> None:
    host = open_store(host="127.0.0.1", port=0, is_master=True, timeout=PATIENCE)
    clients = [open_store(host="127.0.0.1", port=host.port) for _ in range(3)]
    closing = background.submit(host.close)
    reading = background.submit(read_until_closed, host)
    assert isinstance(reading.exception(PATIENCE), StoreClosedError)
    while clients:
        for number in range(100):
            clients[0].set("key", str(number))
            assert clients[-1].get("key") == str(number).encode()
        assert not closing.done()
        clients.pop().close()
    closing.result(PATIENCE / 2)


def test_a_client_of_another_process_is_waited_for(own_host: TorchHost, open_store: OpenStore) -> None:
    client = open_store(host="127.0.0.1", port=own_host.port)
    leaving: list[int] = []
    thread = threading.Thread(target=lambda: leaving.append(own_host.leave()))
    thread.start()
    for number in range(1000):
        client.set("key", str(number))
        assert client.get("key") == str(number).encode()
    client.close()
    thread.join(PATIENCE)
    assert leaving == [0]


def test_a_client_that_crashed_is_waited_for_no_longer_than_the_operation_timeout(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(host="127.0.0.1", port=0, is_master=True, timeout=0.5)
    crashed = subprocess.run([sys.executable, "-c", CRASHING_CLIENT, str(store.port)], check=False)
    assert crashed.returncode == 3
    started = monotonic()
    store.close()
    assert 0.5 <= monotonic() - started < 1.5
    assert "while 1 stores were still connected" in caplog.text


def test_a_store_that_is_not_the_host_waits_for_nobody(open_store: OpenStore) -> None:
    host = open_store(host="127.0.0.1", port=0, is_master=True)
    first, second = (open_store(host="127.0.0.1", port=host.port, timeout=PATIENCE) for _ in range(2))
    started = monotonic()
    second.close()
    first.close()
    assert monotonic() - started < PATIENCE / 2


def test_many_stores_of_one_process_share_a_server(open_store: OpenStore) -> None:
    host = open_store(host="127.0.0.1", port=0, is_master=True)
    stores = [open_store(host="127.0.0.1", port=host.port) for _ in range(50)]
    for number, store in enumerate(stores):
        store.set(f"rank:{number}", "1")
    everyone = [f"rank:{number}" for number in range(len(stores))]
    for store in stores:
        assert len(store.wait_for_keys("rank:*", len(stores), timeout=PATIENCE, candidate_keys=everyone)) == 50


def test_a_process_that_ends_without_closing_ends_cleanly(host: TorchHost) -> None:
    program = f"""
from etha_kvstore_tcpstore import TCPKVStore

host = TCPKVStore("job", "host", host="127.0.0.1", port=0, is_master=True)
client = TCPKVStore("job", "client", host="127.0.0.1", port=host.port)
other = TCPKVStore("job", "client", host="127.0.0.1", port={host.port})
client.set("key", "1")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
