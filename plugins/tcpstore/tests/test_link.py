"""The connection of our own: what it sends, what it makes of replies however they come, and who is no server."""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types

from etha.kvstore.errors import (
    OperationTimeoutError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from etha_kvstore_tcpstore import TCPKVStore
from etha_kvstore_tcpstore.address import Address
from etha_kvstore_tcpstore.link import Link
from etha_kvstore_testkit.observe import ctrl_c_after
from tcpstore_host import TorchHost

if TYPE_CHECKING:
    from plugins.tcpstore.tests.conftest import OpenStore

PATIENCE = 60.0
GREETING = b"\0" + struct.pack("<I", 0x3C85F7CE) + b"\x0detha"


class Script:
    """A server that takes what it is told to expect, and says what it is told to say, byte for byte."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self._connection = socket.socket()
        self.address = Address(*self._listener.getsockname()[:2])

    def take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            taken += self._connection.recv(count - len(taken))
        return taken

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._connection.sendall(piece)

    def await_taken_by(self, link: Link) -> None:
        """Wait until all that was said has been read from the link's socket."""
        deadline = later()
        while waiting_in(self._connection, termios.TIOCOUTQ) or waiting_in(link._sockets[0], termios.FIONREAD):
            assert monotonic() < deadline
            threading.Event().wait(0.001)

    def accept(self) -> None:
        self._connection.close()
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(PATIENCE)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert self.take(len(GREETING)) == GREETING
        self.say(GREETING[-4:])

    def close(self) -> None:
        self._connection.close()
        self._listener.close()


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.close()


@pytest.fixture
def link(script: Script, background: ThreadPoolExecutor) -> Iterator[Link]:
    accepting = background.submit(script.accept)
    link = Link(script.address, later())
    accepting.result(PATIENCE)
    yield link
    with suppress(Exception):
        link.end(monotonic(), lambda link: None)


def waiting_in(connection: socket.socket, queue: int) -> int:
    """Ask the kernel how many bytes stand in a socket's queue: not acknowledged yet, or not read yet."""
    return int.from_bytes(fcntl.ioctl(connection, queue, bytes(4)), sys.byteorder)


def later() -> float:
    return monotonic() + PATIENCE


def sized(content: bytes) -> bytes:
    return struct.pack("<q", len(content)) + content


def test_several_reads_are_sent_before_any_is_answered(
    script: Script, link: Link, background: ThreadPoolExecutor
) -> None:
    keys = [f"key:{number}" for number in range(64)]
    reading = background.submit(link.call, later(), lambda link: link.compare_set_all(keys, b"?", b"?"))
    for key in keys:
        request = b"\x02" + sized(b"/" + key.encode()) + sized(b"?") * 2
        assert script.take(len(request)) == request
    script.say(b"".join(sized(key.encode()) for key in keys))
    assert reading.result(PATIENCE) == [key.encode() for key in keys]


def test_a_write_and_the_question_whether_it_arrived_leave_together(
    script: Script, link: Link, background: ThreadPoolExecutor
) -> None:
    def write(link: Link) -> bool:
        link.set("key", b"value")
        return link.check(["key"])

    writing = background.submit(link.call, later(), write)
    request = b"\x01" + sized(b"/key") + sized(b"value") + b"\x05" + struct.pack("<q", 1) + sized(b"/key")
    assert script.take(len(request)) == request
    script.say(b"\0")
    assert writing.result(PATIENCE) is True


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 12])
def test_a_reply_that_comes_in_pieces_is_put_together(
    script: Script, link: Link, background: ThreadPoolExecutor, cut: int
) -> None:
    reading = background.submit(link.call, later(), lambda link: link.compare_set("key", b"?", b"?"))
    script.take(1 + len(sized(b"/key") + sized(b"?") * 2))
    reply = sized(b"value")
    script.say(reply[:cut])
    script.await_taken_by(link)
    script.say(reply[cut:])
    assert reading.result(PATIENCE) == b"value"


def test_a_late_reply_in_pieces_is_thrown_away_whole(
    script: Script, link: Link, background: ThreadPoolExecutor
) -> None:
    request = 1 + len(sized(b"/key") + sized(b"?") * 2)
    with pytest.raises(Exception, match="no answer in time"):
        link.call(monotonic() + 0.1, lambda link: link.compare_set("key", b"?", b"?"))
    script.take(request)
    script.say(sized(b"late")[:9])
    reading = background.submit(link.call, later(), lambda link: link.compare_set("key", b"?", b"?"))
    script.say(sized(b"late")[9:])
    script.take(request)
    script.say(sized(b"mine"))
    assert reading.result(PATIENCE) == b"mine"


def test_a_request_is_not_sent_while_an_earlier_one_is_unanswered(script: Script, link: Link) -> None:
    for text in ("no answer in time", "not sent"):
        with pytest.raises(Exception, match=text):
            link.call(monotonic() + 0.1, lambda link: link.check(["key"]))
    script.take(1 + 8 + len(sized(b"/key")))
    script._connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        script.take(1)


def test_ctrl_c_in_the_middle_of_a_call_leaves_the_store_usable(own_host: TorchHost, open_store: OpenStore) -> None:
    store = open_store(host="127.0.0.1", port=own_host.port, timeout=PATIENCE)
    store.set("one", "1")
    store.set("two", "2")
    own_host.freeze()
    try:
        with ctrl_c_after(0.2):
            store.get("one")
    finally:
        own_host.thaw()
    assert (store.get("two"), store.get("one"), store.get("absent")) == (b"2", b"1", None)


def test_a_value_that_went_out_by_half_is_of_unknown_outcome_and_the_store_goes_on(
    own_host: TorchHost, open_store: OpenStore
) -> None:
    store = open_store(host="127.0.0.1", port=own_host.port, timeout=0.5)
    store.set("key", "old")
    own_host.freeze()
    try:
        with pytest.raises(OutcomeUnknownError):
            store.set("key", "v" * 8_000_000)  # more than the kernel takes for a process that stands still
        with pytest.raises(OperationTimeoutError):
            store.get("key")
    finally:
        own_host.thaw()
    other = open_store(host="127.0.0.1", port=own_host.port, timeout=PATIENCE)
    assert other.get("key") == b"old"
    store.set("key", "new")
    assert store.get("key") == other.get("key") == b"new"


def test_each_of_many_threads_is_given_its_own_reply(host: TorchHost, open_store: OpenStore) -> None:
    store = open_store(host="127.0.0.1", port=host.port, timeout=PATIENCE)

    def use(number: int) -> bool:
        key, value = f"rank:{number}", str(number) * (1 + number * 500)
        store.set(key, value)
        return all(store.get(key) == value.encode() and store.exists(key) for _ in range(50))

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(use, range(16)))


def test_a_server_without_libuv_is_spoken_to_as_well() -> None:
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, use_libuv=False)
    with TCPKVStore("job-42", "trainer", host="127.0.0.1", port=server.port) as store:
        store.set("key", "1")
        assert (store.get("key"), store.get("absent"), store.exists("key")) == (b"1", None, True)
        assert store.delete("key")
        assert not store.delete("key")


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 8, b""], ids=["HTTP", "zeros", "nothing"]
)
def test_what_is_no_tcpstore_is_not_taken_for_one(background: ThreadPoolExecutor, said: bytes) -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = background.submit(serve, listener)
        port = listener.getsockname()[1]
        with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}"):
            TCPKVStore("job-42", "trainer", host="127.0.0.1", port=port, connect_timeout=5.0)
        serving.result(PATIENCE)


def test_a_client_does_without_torch(host: TorchHost) -> None:
    program = f"""
import sys
from etha.kvstore import open_store
with open_store("tcpstore", namespace="job-43", component="c", host="127.0.0.1", port={host.port}) as store:
    store.set("key", "1")
    print(store.get("key"), store.list_keys(), "torch" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "b'1' ['key'] False\n"
