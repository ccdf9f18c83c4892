"""`Link`: one connection to a TCPStore server, in torch's own protocol, on which every call ends by its deadline.

A request is a byte that names it, then its parts: a number in eight bytes, a key or a value as its length and its
bytes. Replies come in the order of the requests, and some requests have none. torch keeps a ``/`` before each key.
The facts are those of torch 2.13's ``TCPStoreBackend.hpp``, ``TCPStore.cpp`` and ``TCPStoreLibUvBackend.cpp``.
"""

from __future__ import annotations

import socket
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from io import BytesIO
from time import monotonic
from typing import TypeVar

from etha_kvstore_tcpstore.address import Address
from etha_kvstore_tcpstore.carrier import CarrierEndedError, UnansweredError
from etha_kvstore_tcpstore.turn import Place, Turn

__all__ = ["Link", "remaining"]

Answer = TypeVar("Answer")

SizeOf = Callable[[bytes], int]
"""Tells how many bytes a reply takes, as far as what has come of it shows."""

RETRY = 0.05
"""Seconds between two attempts to connect."""

PATIENCE = 0.05
"""Seconds for which the socket is waited on before anybody looks at the deadline, or whether the store was closed."""

LONGEST = 86_400.0
"""Seconds that one attempt to connect may take, however far the deadline is."""

GLANCES = 30
"""How often a reply is looked for before this thread sleeps; some 30 microseconds in all."""

NEAR = 0.0001
"""Seconds within which a server answers that it may be worth while not to sleep for."""

CHUNK = 4096
"""Bytes that are asked of the socket at once, where no more are known to come."""

PIECE = 131_072
"""Bytes that are asked of the socket at once, where more are known to come."""

HUNG_UP = "the server has closed the connection"

VALIDATE, SET, COMPARE_SET, ADD, CHECK, DELETE_KEY, PING, LIST_KEYS = (bytes([n]) for n in (0, 1, 2, 4, 5, 8, 13, 17))

MAGIC = struct.pack("<I", 0x3C85F7CE)
NONCE = b"etha"
READY = b"\0"

_number = struct.Struct("<q")


class Link:
    """A connection that many threads share.

    A reply that comes after its deadline is read and thrown away before the next request is sent, so nobody is given
    another's. Where a call is broken off in the middle of a message, the connection is given up and another one opened;
    a server knows nothing of its clients that would be lost with it.

    It is a `Carrier`, and the torch store of its calls is itself: its requests are methods like those of one.

    Parameters
    ----------
    address : Address
        Where the server is.
    deadline : float
        By when the server must have answered, on the monotonic clock, in seconds.

    Raises
    ------
    OSError
        If nobody listens there, or somebody who does not serve a TCPStore.
    UnansweredError
        If somebody listens and does not answer.
    """

    def __init__(self, address: Address, deadline: float) -> None:
        self.host, self.port = address
        self._turn = Turn()
        self._goodbye: Callable[[Link], object] | None = None
        """The last call, once the link is ending."""
        self._present: Callable[[Link], object] | None = None
        """The call whose turn it is, or was."""
        self._deadline = deadline
        self._begun = False
        """Whether anything of the present call may have reached the server."""
        self._unsent: list[bytes] = []
        """Requests without a reply; they go out with the next one that has one."""
        self._owed: deque[SizeOf] = deque()
        """The replies that are still to come."""
        self._received = b""
        self._piece: memoryview | None = None
        """Where long replies arrive; it is made for the first."""
        self._is_near = False
        self._sockets: list[socket.socket] = []
        # A link that nobody ended goes with its last user; not at exit, where a forked child would end its parent's.
        weakref.finalize(self, _close_all, self._sockets).atexit = False
        try:
            self._connect(patient=True)
        except UnansweredError:
            self._give_up()
            raise ConnectionAbortedError("it takes connections and says nothing in time") from None
        except BaseException:
            self._give_up()
            raise

    def call(self, deadline: float, function: Callable[[Link], Answer]) -> Answer:
        place = Place()
        try:
            if self._is_ending(function):
                raise CarrierEndedError
            if not self._turn.take(place, deadline):
                raise CarrierEndedError if self._is_ending(function) else UnansweredError(begun=False)
            return self._use(deadline, function)
        finally:
            self._turn.give_back(place)

    def end(self, deadline: float, goodbye: Callable[[Link], Answer]) -> Answer:
        self._goodbye = goodbye
        self._turn.dismiss()
        try:
            return self.call(deadline, goodbye)
        finally:
            self._give_up()

    # --- the requests ---

    def set(self, key: str, value: bytes, /) -> None:
        """Store a value; it has arrived when the next request is answered, with which it is sent."""
        self._unsent += SET, _key(key), _number.pack(len(value)), value

    def compare_set(self, key: str, expected: bytes, desired: bytes, /) -> bytes:
        """Replace a value that is as expected, and give the one that is there then."""
        return self._ask(COMPARE_SET + _key(key) + _values(expected, desired), _size_of_sized)

    def compare_set_all(self, keys: Sequence[str], expected: bytes, desired: bytes, /) -> list[bytes]:
        """Make several of these requests in one round trip."""
        values = _values(expected, desired)
        self._owed.extend([_size_of_sized] * len(keys))
        self._send(b"".join([COMPARE_SET + _key(key) + values for key in keys]))
        return [self._reply() for _ in keys]

    def check(self, keys: Sequence[str], /) -> bool:
        """Tell whether all keys exist."""
        return self._ask(CHECK + _number.pack(len(keys)) + b"".join(map(_key, keys)), _size_of_byte) == READY

    def add(self, key: str, amount: int, /) -> int:
        """Add to a number, and give it."""
        return _as_int(self._ask(ADD + _key(key) + _number.pack(amount), _size_of_number))

    def delete_key(self, key: str, /) -> bool:
        """Delete a key, and tell whether it was there."""
        return _as_int(self._ask(DELETE_KEY + _key(key), _size_of_number)) == 1

    def list_keys(self) -> list[bytes]:
        """List all keys of the server, whoever wrote them. One older than torch 2.10 ends the connection instead."""
        try:
            count = _as_int(self._ask(LIST_KEYS, _size_of_number))
            self._owed.extend([_size_of_sized] * count)
            keys = [self._reply() for _ in range(count)]
        except (UnansweredError, CarrierEndedError):
            self._give_up()  # how much is owed shows only as it comes
            raise
        return [key[1:] for key in keys if key.startswith(b"/")]

    # --- the connection ---

    def _is_ending(self, function: object) -> bool:
        """Tell whether this link makes no other call than its last one any more."""
        return self._goodbye is not None and function is not self._goodbye

    def _use(self, deadline: float, function: Callable[[Link], Answer]) -> Answer:
        """Call the function, on a connection that is open and owes nothing."""
        self._present, self._deadline, self._begun = function, deadline, False
        try:
            if self._unsent:
                self._unsent.clear()
            if not self._sockets:
                self._connect()
            while self._owed:
                self._reply()
            return function(self)
        except (UnansweredError, CarrierEndedError):
            raise
        except BaseException:  # Ctrl-C may have come between the arrival of a byte and its being kept
            self._give_up()
            raise

    def _connect(self, *, patient: bool = False) -> None:
        """Connect, and see whether that is the server of a TCPStore; if patient, as soon as somebody listens."""
        while True:
            try:
                connection = socket.create_connection((self.host, self.port), timeout=remaining(self._deadline))
                break
            except OSError:  # a name that does not resolve yet included
                if not patient or monotonic() + RETRY >= self._deadline:
                    raise
                time.sleep(RETRY)
        self._sockets.append(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._owed.append(_size_of_nonce)
        self._send(VALIDATE + MAGIC + PING + NONCE)
        self._begun = False
        if self._reply() != NONCE:
            raise ConnectionAbortedError("what answers there is no TCPStore")

    def _give_up(self) -> None:
        """Close the connection, and forget what it owes."""
        _close_all(self._sockets)
        self._owed.clear()
        self._received = b""

    def _ask(self, request: bytes, size_of: SizeOf) -> bytes:
        """Send a request, after those that were kept for it, and give its reply."""
        if self._unsent:
            request = b"".join([*self._unsent, request])
            self._unsent.clear()
        self._owed.append(size_of)
        self._send(request)
        return self._reply()

    def _send(self, request: bytes) -> None:
        """Send one request, or several. What is owed for it is noted before."""
        self._begun = True
        connection = self._sockets[0]
        try:
            try:
                sent = connection.send(request)
            except BlockingIOError:
                sent = 0
            while sent < len(request):
                sent += self._patiently(connection, partial(connection.send, memoryview(request)[sent:]))
        except (UnansweredError, CarrierEndedError):
            self._give_up()  # half of a request has been sent, and the rest never will be
            raise

    def _reply(self) -> bytes:
        """Take the next reply off the connection, without its length. One that does not come in time stays owed."""
        size_of = self._owed[0]
        head = _number.size if size_of is _size_of_sized else 0
        reply = self._received or self._receive()
        try:
            while (missing := (size := size_of(reply)) - len(reply)) > 0:
                if missing > CHUNK:
                    self._owed.popleft()
                    self._received = b""
                    return self._long_reply(reply[head:], missing)
                reply += self._receive()
        except (UnansweredError, CarrierEndedError):
            self._received = reply
            raise
        self._received = reply[size:]
        self._owed.popleft()
        return reply[head:size]

    def _long_reply(self, begin: bytes, missing: int) -> bytes:
        """Take the rest of a reply, in pieces.

        They go through memory that is kept. Fresh memory for all of them would be given back to the system and asked
        for again at each reply, which takes longer than the reply does.
        """
        connection = self._sockets[0]
        if self._piece is None:
            self._piece = memoryview(bytearray(PIECE))
        reply = BytesIO()
        reply.write(begin)
        try:
            while missing:
                size = self._patiently(connection, partial(connection.recv_into, self._piece, min(missing, PIECE)))
                if not size:
                    raise ConnectionResetError(HUNG_UP)
                missing -= reply.write(self._piece[:size])
        except (UnansweredError, CarrierEndedError):
            self._give_up()  # the rest would come, and nobody would know it for what it is
            raise
        return reply.getvalue()

    def _receive(self) -> bytes:
        """Take what has come, or comes next.

        A server that is near answers before this thread has fallen asleep and been woken, which takes half as long
        again as the exchange. So where replies come so fast, they are looked for a few times before anybody sleeps.
        """
        connection = self._sockets[0]
        chunk = None
        if self._is_near:
            for _ in range(GLANCES):
                try:
                    chunk = connection.recv(CHUNK)
                    break
                except BlockingIOError:
                    pass
        if chunk is None:
            began = monotonic()
            chunk = self._patiently(connection, partial(connection.recv, CHUNK))
            self._is_near = not self._is_near and monotonic() - began < NEAR
        if not chunk:
            raise ConnectionResetError(HUNG_UP)
        return chunk

    def _patiently(self, connection: socket.socket, attempt: Callable[[], Answer]) -> Answer:
        """Make an attempt at the socket that may have to wait, and break it off when there is no sense in that."""
        connection.settimeout(PATIENCE)
        try:
            while True:
                try:
                    return attempt()
                except TimeoutError:
                    self._look_up()
        finally:
            connection.setblocking(False)

    def _look_up(self) -> None:
        """See, while nothing comes, whether to go on waiting."""
        if self._is_ending(self._present):
            raise CarrierEndedError
        if monotonic() >= self._deadline:
            raise UnansweredError(begun=self._begun)


def remaining(deadline: float) -> float:
    """Give the seconds until a deadline, within what sockets and torch take for a time to connect."""
    return min(max(RETRY, deadline - monotonic()), LONGEST)


def _key(key: str) -> bytes:
    stored = key.encode()
    return b"%b/%b" % (_number.pack(len(stored) + 1), stored)


def _sized(content: bytes) -> bytes:
    return _number.pack(len(content)) + content


@lru_cache(maxsize=1)
def _values(expected: bytes, desired: bytes) -> bytes:
    """Give the end of a ``compare_set``; a store reads every key with the same two."""
    return _sized(expected) + _sized(desired)


def _as_int(reply: bytes) -> int:
    return int.from_bytes(reply, "little", signed=True)


def _size_of_byte(_: bytes) -> int:
    return 1


def _size_of_nonce(_: bytes) -> int:
    return len(NONCE)


def _size_of_number(_: bytes) -> int:
    return _number.size


def _size_of_sized(received: bytes) -> int:
    return _number.size + (_number.unpack_from(received)[0] if len(received) >= _number.size else 0)


def _close_all(sockets: list[socket.socket]) -> None:
    """Say goodbye at once, though a forked child may hold a copy of the connection, and close it."""
    while sockets:
        connection = sockets.pop()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
