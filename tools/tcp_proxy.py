"""A loopback TCP proxy whose traffic a test can hold back and cut, each direction apart."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Literal

__all__ = ["Direction", "TcpProxy"]

Direction = Literal["requests", "replies"]


class TcpProxy:
    """A proxy in front of a server.

    Parameters
    ----------
    target : str
        Where the server listens, ``host:port``.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._state = threading.Condition()
        self._holding: set[Direction] = set()
        self._held: dict[Direction, int] = {"requests": 0, "replies": 0}
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False

    @property
    def address(self) -> str:
        """Where clients connect, ``host:port``."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def hold(self, *directions: Direction) -> None:
        """Pass no more bytes in these directions; they are kept for `release`."""
        with self._state:
            self._holding.update(directions)
            for direction in directions:
                self._held[direction] = 0

    def await_held(self, direction: Direction, timeout: float = 10.0) -> None:
        """Wait until bytes are held in a direction, which proves that something was in flight."""
        with self._state:
            if not self._state.wait_for(lambda: self._held[direction] > 0, timeout):
                raise TimeoutError(f"no {direction} came to be held within {timeout} s")

    def release(self) -> None:
        """Pass what was held, and all that follows."""
        with self._state:
            self._holding.clear()
            self._state.notify_all()

    def reset(self) -> None:
        """Cut every connection with a RST; what is held is lost. New connections pass."""
        with self._state:
            sockets, self._sockets = self._sockets, set()
            self._holding.clear()
            self._state.notify_all()
        for each in sockets:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> TcpProxy:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()
        for thread in self._threads:
            thread.join(5.0)

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5.0)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._state:
                self._sockets.update((client, server))
            self._start(self._pump, client, server, "requests")
            self._start(self._pump, server, client, "replies")

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                with self._state:
                    if direction in self._holding:
                        self._held[direction] += len(data)
                        self._state.notify_all()
                        self._state.wait_for(lambda: direction not in self._holding)
                    if source not in self._sockets:
                        return  # cut meanwhile
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
