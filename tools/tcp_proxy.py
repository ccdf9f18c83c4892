"""A loopback TCP proxy whose traffic a test can hold, delay, lose and cut, each direction apart.

`TcpProxy` runs in this process; `proxy_process` runs one in another, for a client that stops its whole process while
it waits for a reply (torch's ``TCPStore.list_keys`` keeps the interpreter's lock), and for one that is timed.
"""

from __future__ import annotations

import pickle
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Literal, cast

from etcd_server import free_port

__all__ = ["Direction", "TcpProxy", "proxy_process"]

Direction = Literal["requests", "replies"]

DIRECTIONS: tuple[Direction, Direction] = ("requests", "replies")

RETRANSMISSION = 0.2
"""Seconds: what a lost segment costs on a TCP connection, at the least, in Linux's words ``TCP_RTO_MIN``."""


class Link:
    """The two sockets of one connection, and the directions in which it has gone dark."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.dark: set[Direction] = set()
        self.held: dict[Direction, bytes] = dict.fromkeys(DIRECTIONS, b"")
        self.ended = 0

    def cut(self) -> None:
        """End both halves with a RST."""
        for each in (self.client, self.server):
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            each.close()


Fault = Callable[[Link, bytes], bytes]
"""What becomes of bytes that arrive: those that pass on."""


class TcpProxy:
    """A proxy in front of a server. Each verb replaces what an earlier one did in the same direction.

    Parameters
    ----------
    target : str
        Where the server listens, ``host:port``.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._state = threading.Condition()
        self._faults: dict[Direction, Fault] = {}
        self._struck: dict[Direction, dict[Link, list[tuple[float, int]]]] = {each: {} for each in DIRECTIONS}
        self._moved_at = 0.0
        self._passed: dict[Direction, int] = dict.fromkeys(DIRECTIONS, 0)
        self._links: set[Link] = set()
        self._refusing = False
        self._threads: list[threading.Thread] = []
        self._closed = False

    @property
    def address(self) -> str:
        """Where clients connect, ``host:port``."""
        return f"127.0.0.1:{self._port}"

    def hold(self, *directions: Direction) -> None:
        """Pass no more bytes in these directions; they are kept for `release`."""
        for direction in directions:
            self._arm(partial(self._keep, direction), [direction])

    def blackhole(self, *directions: Direction) -> None:
        """Swallow all bytes in these directions, on the connections of now and those to come until `release`.

        A connection that has lost bytes stays dark after the release too, as behind a firewall that forgot it.
        """

        def swallow(link: Link, data: bytes) -> bytes:
            link.dark.update(directions)
            return b""

        self._arm(swallow, directions)

    def drop_replies(self, passing: int = 0) -> None:
        """Let requests pass; swallow the reply, and cut the connection that it came on, until `release`.

        What is no longer than `passing` bytes does pass: what a protocol says unasked, such as the pings of HTTP/2.
        """

        def drop(link: Link, data: bytes) -> bytes:
            if len(data) <= passing:
                return data
            self._cut(link)
            return b""

        self._arm(drop, ["replies"])

    def cut_after(self, size: int, direction: Direction) -> None:
        """Pass so many more bytes in a direction, then cut the connection, in the middle of a message."""
        left = size

        def cut(link: Link, data: bytes) -> bytes:
            nonlocal left
            passing, left = data[:left], max(0, left - len(data))
            if len(passing) < len(data):
                with suppress(OSError):
                    (link.server if direction == "requests" else link.client).sendall(passing)
                self._cut(link)
                return b""
            return passing

        self._arm(cut, [direction])

    def delay(self, seconds: float, *directions: Direction, jitter: float = 0.0) -> None:
        """Pass all bytes late: by so many seconds, and up to `jitter` more."""
        self._arm(lambda link, data: self._late(seconds + random.uniform(0.0, jitter), data), directions)

    def lose(self, share: float, *directions: Direction) -> None:
        """Lose this share of what arrives, the first of it included, each time at the cost of TCP's retransmission."""
        due = 1.0

        def lose(link: Link, data: bytes) -> bytes:
            nonlocal due
            lost, due = due >= 1.0, due % 1.0 + share
            return self._late(RETRANSMISSION * lost, data)

        self._arm(lose, directions)

    def half_open(self) -> None:
        """End the server's half of every connection and tell the clients nothing: what they send goes nowhere."""
        with self._state:
            self._forget_struck(DIRECTIONS)
            for link in self._links:
                link.dark.update(DIRECTIONS)
                with suppress(OSError):
                    link.server.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Cut every connection, and refuse new ones, as where nobody listens, until `release`."""
        with self._state:
            self._refusing = True
        self._end_listener()
        self.reset()

    def reset(self) -> None:
        """Cut every connection with a RST; what is held is lost. New connections pass."""
        with self._state:
            self._faults.clear()
            links, self._links = self._links, set()
            self._state.notify_all()
        for link in links:
            link.cut()

    def release(self) -> None:
        """Pass what was held, and all that follows."""
        with self._state:
            self._faults.clear()
            self._pass_held(DIRECTIONS)
            refusing, self._refusing = self._refusing, False
            self._state.notify_all()
        if refusing:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._start(self._accept)

    def await_struck(self, *directions: Direction, timeout: float = 10.0, size: int = 1, links: int = 1) -> float:
        """Wait until bytes have met the fault in one of these directions, which proves that something was in flight.

        Parameters
        ----------
        *directions : str
            Which bytes.
        timeout : float
            How long to wait, in seconds.
        size : int
            How many bytes a connection must have lost; a protocol may say small things of its own accord.
        links : int
            On how many connections.

        Returns
        -------
        float
            When that was so, on the monotonic clock, which all processes share.
        """

        def met_at() -> list[float]:
            every = (next((at for at, lost in met if lost >= size), None) for met in self._met(directions))
            return sorted(at for at in every if at is not None)

        with self._state:
            if not self._state.wait_for(lambda: len(met_at()) >= links, timeout):
                lost = [met[-1][1] for met in self._met(directions)]
                raise TimeoutError(f"no {directions} met the fault on {links} connections in {timeout} s: {lost}")
            return met_at()[links - 1]

    def passed(self, direction: Direction) -> int:
        """How many bytes have gone through in a direction."""
        with self._state:
            return self._passed[direction]

    def await_passed(self, direction: Direction, beyond: int, timeout: float = 10.0) -> None:
        """Wait until more bytes than that have gone through in a direction."""
        with self._state:
            if not self._state.wait_for(lambda: self._passed[direction] > beyond, timeout):
                raise TimeoutError(f"no more {direction} than {beyond} bytes passed within {timeout} s")

    def await_quiet(self, seconds: float = 0.03, timeout: float = 10.0) -> None:
        """Wait until nothing has arrived for so long, so that what comes next is the next call's."""
        deadline = time.monotonic() + timeout
        with self._state:
            while (rest := self._moved_at + seconds - time.monotonic()) > 0:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the traffic did not rest for {seconds} s within {timeout} s")
                self._state.wait(rest)

    def __enter__(self) -> TcpProxy:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._end_listener()
        self.reset()
        for thread in self._threads:
            thread.join(5.0)

    def _arm(self, fault: Fault, directions: Sequence[Direction]) -> None:
        with self._state:
            for direction in directions:
                self._faults[direction] = fault
            self._pass_held(directions)
            self._forget_struck(directions)
            self._state.notify_all()

    def _keep(self, direction: Direction, link: Link, data: bytes) -> bytes:
        link.held[direction] += data
        return b""

    def _pass_held(self, directions: Sequence[Direction]) -> None:
        """Send what was held, under the lock, before anything that comes later."""
        for link in self._links:
            for direction in directions:
                data, link.held[direction] = link.held[direction], b""
                self._passed[direction] += len(data)
                with suppress(OSError):
                    (link.server if direction == "requests" else link.client).sendall(data)

    def _met(self, directions: Sequence[Direction]) -> list[list[tuple[float, int]]]:
        """Give what met the fault, connection by connection: when, and how many bytes had by then."""
        return [met for direction in directions for met in self._struck[direction].values()]

    def _forget_struck(self, directions: Sequence[Direction]) -> None:
        for direction in directions:
            self._struck[direction].clear()

    def _late(self, seconds: float, data: bytes) -> bytes:
        self._state.release()
        try:
            time.sleep(seconds)
        finally:
            self._state.acquire()
        return data

    def _cut(self, link: Link) -> None:
        self._links.discard(link)
        link.cut()

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _end_listener(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        listener = self._listener
        while not (self._closed or self._refusing):
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5.0)
            except OSError:
                Link(client, client).cut()
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            with self._state:
                self._links.add(link)
            self._start(self._pump, link, client, server, "requests")
            self._start(self._pump, link, server, client, "replies")

    def _pump(self, link: Link, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                with self._state:
                    self._moved_at = time.monotonic()
                    fault = self._faults.get(direction)
                    if fault or direction in link.dark:
                        met = self._struck[direction].setdefault(link, [(0.0, 0)])
                        met.append((self._moved_at, met[-1][1] + len(data)))
                        self._state.notify_all()
                    if direction in link.dark:
                        data = b""
                    elif fault:
                        data = fault(link, data)
                    if link not in self._links:
                        return  # cut meanwhile
                    self._passed[direction] += len(data)
                    self._state.notify_all()
                if data:
                    sink.sendall(data)
        with self._state:  # an end comes after what was sent before it
            self._state.wait_for(lambda: not link.held[direction] or link not in self._links)
        if direction not in link.dark:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)
        with self._state:
            link.ended += 1
            if link.ended == len(DIRECTIONS):
                self._links.discard(link)
                source.close()
                sink.close()


class _Remote:
    """A `TcpProxy` in another process, by its verbs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._one_at_a_time = threading.Lock()
        self.address: str = self._ask("address", (), {})

    def __getattr__(self, verb: str) -> Any:
        def tell(*arguments: object, **options: object) -> Any:
            return self._ask(verb, arguments, options)

        return tell

    def _ask(self, verb: str, arguments: tuple[object, ...], options: dict[str, object]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one_at_a_time:
            pickle.dump((verb, arguments, options), self._process.stdin)
            self._process.stdin.flush()
            answer = pickle.load(self._process.stdout)
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def proxy_process(target: str) -> Iterator[TcpProxy]:
    """Run a proxy in a process of its own.

    Parameters
    ----------
    target : str
        Where the server listens, ``host:port``.

    Yields
    ------
    TcpProxy
        One whose verbs take effect there, one at a time.
    """
    command = [sys.executable, __file__, target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield cast("TcpProxy", _Remote(process))


def serve(target: str) -> None:
    """Obey the verbs that come on standard input until it ends."""
    with TcpProxy(target) as proxy, suppress(EOFError):
        while True:
            verb, arguments, options = pickle.load(sys.stdin.buffer)
            try:
                found = getattr(proxy, verb)
                answer = found(*arguments, **options) if callable(found) else found
            except Exception as error:  # noqa: BLE001 (raised again in the other process)
                answer = error
            pickle.dump(answer, sys.stdout.buffer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
