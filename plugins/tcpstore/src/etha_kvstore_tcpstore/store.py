"""`TCPKVStore`: the contract on a `torch.distributed.TCPStore`, or on another torch store that the caller has."""

from __future__ import annotations

import binascii
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pybase64

from etha.kvstore import keys
from etha.kvstore.errors import (
    ConfigError,
    OperationTimeoutError,
    OutcomeUnknownError,
    StoreClosedError,
    StoreUnavailableError,
    UnsupportedOperationError,
    ValueDecodeError,
)
from etha.kvstore.follow import LOOK_GRACE, Follower, Selector
from etha.kvstore.skeleton import SkeletalStore
from etha_kvstore_tcpstore import requests
from etha_kvstore_tcpstore.address import Address, choose_address
from etha_kvstore_tcpstore.carrier import Carrier, CarrierEndedError, TorchStore, UnansweredError
from etha_kvstore_tcpstore.following import CandidatesFollower
from etha_kvstore_tcpstore.leaving import enter, find_server, leave, leave_last
from etha_kvstore_tcpstore.link import Link
from etha_kvstore_tcpstore.plugin import SPEC
from etha_kvstore_tcpstore.worker import Worker

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not by torch's types

__all__ = ["TCPKVStore"]

log = logging.getLogger("etha.kvstore")

VALUE_LIMIT = 8 * 1024 * 1024
"""The largest value that torch's server takes, in bytes as stored. On more it cuts the connection."""

CHECK_BYTES = 64 * 1024
"""How long the keys of one ``check`` may be in all. Beyond that the server's time for it grows with the square."""

READS_A_TURN = 64
"""How many keys are read before another caller has a turn; on a link of our own, in one round trip."""

Answer = TypeVar("Answer")


class TCPKVStore(SkeletalStore):
    """A store whose keys live in a torch store: as a rule a `torch.distributed.TCPStore`, which one process hosts.

    Every read is one round trip, and every write is acknowledged. Waits poll, at intervals that follow the time waited.
    The server is torch's and spoken to over a socket; torch itself is loaded by the store that hosts, and for `store`.
    The data live in the hosting process and die with it. There is no authentication and no encryption.

    Parameters
    ----------
    namespace, component : str
        As `KVStore`.
    host : str, optional
        The server's host name, IPv4 or IPv6 address. Where neither `host` nor `port` is given, the store that the agent
        of ``torchrun`` hosts is used.
    port : int, optional
        The server's port. With `is_master`, 0 finds a free one, which the attribute `port` tells.
    is_master : bool
        Host the server, on exactly this address; in one process. `close` then waits, at most the operation timeout,
        until the stores that connected have closed.
    timeout : float
        The operation timeout, in seconds.
    connect_timeout : float
        How long the opening waits for the server, in seconds.
    store : torch.distributed.Store, optional
        A torch store to use instead of `host`, `port` and `is_master`: a `TCPStore`, a `PrefixStore` over one, a
        `HashStore`, a `FileStore`. It stays the caller's, who may use it at the same time.

    Attributes
    ----------
    host : str or None
        The server's host; `None` where the torch store has no server.
    port : int or None
        The server's port.

    Raises
    ------
    ConfigError
        If the options contradict each other or don't say enough, or the torch store lacks what reading needs.
    StoreUnavailableError
        If no server answered within `connect_timeout`, or, with `is_master`, the address could not be listened on.

    Examples
    --------
    >>> with TCPKVStore("job-42", "trainer", host="127.0.0.1", port=0, is_master=True) as store:
    ...     store.set("ready", "1")
    ...     store.wait_for_value("ready", "1", timeout=60)
    b'1'
    """

    spec = SPEC

    def __init__(
        self,
        namespace: str,
        component: str,
        *,
        host: str | None = None,
        port: int | None = None,
        is_master: bool = False,
        timeout: float = 10.0,
        connect_timeout: float = 30.0,
        store: Store | None = None,
    ) -> None:
        super().__init__(namespace, component, timeout=timeout)
        if not connect_timeout > 0:
            raise ConfigError(f"connect_timeout is a positive number of seconds, not {connect_timeout!r}")
        deadline = monotonic() + connect_timeout
        self.host, self.port = host, port
        self._kind = type(store).__name__
        self._hosts = is_master
        self._server: Any = None
        """torch's server, where this store hosts it."""
        self._tells_deletions = True
        self._lost: Exception | None = None
        if store is None:
            self.host, self.port = choose_address(host, port, is_master=is_master)
            self._carrier: Carrier = self._connect(self.host, self.port, deadline)
        elif host is not None or port is not None or is_master:
            raise ConfigError("backend 'tcpstore' takes a store, or host, port and is_master, not both")
        else:
            self._carrier = _carry(store)
        try:
            self._enter(deadline + LOOK_GRACE, given=store is not None)
        except BaseException:
            self._server = None
            with suppress(UnansweredError, OSError):
                self._carrier.end(monotonic(), _same)
            raise

    def _connect(self, host: str, port: int, deadline: float) -> Link:
        """Connect to the server, having started it where this store hosts it."""
        try:
            if self._hosts:
                from etha_kvstore_tcpstore.hosting import serve  # loads torch, which a client has no need of

                self._server = serve(Address(host, port), deadline)
                self.port = port = self._server.port
            return Link(Address(host, port), deadline)
        except (UnicodeError, OverflowError) as error:
            raise ConfigError(f"{host!r} is no host: {error}") from error
        except (OSError, RuntimeError) as error:
            self._server = None  # whoever keeps the error must not keep the port
            failure = "a TCPStore can't be hosted" if self._hosts else "no TCPStore answered in time"
            raise StoreUnavailableError(f"{failure} at {self._where()}: {error}") from error

    def _enter(self, deadline: float, *, given: bool) -> None:
        """Find out what the torch store can do, and count this one in."""
        try:
            if given:
                if not self._ask(deadline, requests.reads_at_once):
                    raise ConfigError(
                        f"{self._where()} has no working compare_set(), without which reading would block"
                    )
                self._tells_deletions = self._ask(deadline, requests.tells_deletions)
                if (server := self._ask(deadline, find_server)) is not None:
                    self.host, self.port = server.host, server.port
            if not self._hosts:
                self._ask(deadline, enter)
        except OperationTimeoutError as error:
            raise StoreUnavailableError(str(error)) from error

    # --- what the skeleton asks for ---

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        return self._ask(deadline, partial(requests.read, key))

    def _read_many(self, wanted: Sequence[bytes], deadline: float) -> dict[bytes, bytes]:
        """Read keys, `READS_A_TURN` at a time; those that are absent are left out."""
        found: dict[bytes, bytes] = {}
        for begin in range(0, len(wanted), READS_A_TURN):
            turn = partial(requests.read_many, wanted[begin : begin + READS_A_TURN])
            found |= self._ask(self._turn_by(deadline), turn)
        return found

    def _exists(self, key: bytes, deadline: float) -> bool:
        return self._ask(deadline, partial(requests.all_exist, (key,)))

    def _all_exist(self, wanted: Sequence[bytes], deadline: float) -> bool:
        """Tell whether all of some keys exist, in one round trip for each `CHECK_BYTES` of them."""
        turns = (partial(requests.all_exist, run) for run in _by_size(wanted))
        return all(self._ask(self._turn_by(deadline), turn) for turn in turns)

    def _turn_by(self, deadline: float) -> float:
        """Give the time by which one of the requests of a long look must be answered, however late the look may end."""
        return min(deadline, monotonic() + self.timeout)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        if len(value) > VALUE_LIMIT:
            raise self._refuse_size(key, len(value), VALUE_LIMIT)
        self._ask(deadline, partial(requests.write, key, value), changes=key)

    def _remove(self, key: bytes, deadline: float) -> bool:
        if not self._tells_deletions:
            raise UnsupportedOperationError(f"{self._where()} does not tell whether a key that it deletes was there")
        return self._ask(deadline, partial(requests.remove, key), changes=key)

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        return self._read_many(self._list(prefix, deadline), deadline).items()

    def _list(self, prefix: bytes, deadline: float) -> list[bytes]:
        return [key for key in self._ask(deadline, requests.full_keys) if key.startswith(prefix)]

    def _follow(self, selector: Selector) -> Follower:
        return CandidatesFollower(self, selector)

    def _encode(self, data: bytes) -> bytes:
        return pybase64.b64encode(data)

    def _decode(self, key: str, stored: bytes) -> bytes:
        try:
            return pybase64.b64decode(stored, validate=True)
        except binascii.Error as error:
            raise ValueDecodeError(
                f"the value of {key!r} is not base64, so set_bytes() did not write it; get() gives it as it is"
            ) from error

    def _release(self, cleanup: bool, deadline: float) -> None:
        try:
            still_here = self._carrier.end(deadline + LOOK_GRACE, partial(self._take_leave, deadline))
        except (UnansweredError, RuntimeError, OSError) as error:
            log.warning("%s was away when this store closed: %s", self._where(), error)
            return
        finally:
            self._server = None  # torch's server ends with its last user
        if still_here > 0:
            log.warning("%s closed while %d stores were still connected", self._where(), still_here)

    def _take_leave(self, deadline: float, store: TorchStore) -> int:
        """Say that this store is leaving, and return how many it leaves without a server."""
        if self._lost is not None:
            return 0  # nobody is there to be told, and whoever made the call that found out was
        return leave_last(store, deadline) if self._hosts else leave(store)

    def _where(self) -> str:
        if self.host is None or self.port is None:
            return f"the caller's {self._kind}"
        return f"{Address(self.host, self.port)}{', hosted here' if self._hosts else ''}"

    # --- the carrier ---

    def _ask(self, deadline: float, request: Callable[[TorchStore], Answer], *, changes: bytes | None = None) -> Answer:
        """Have a request made. All that can go wrong there is told in the contract's words here.

        Parameters
        ----------
        deadline : float
            By when to have the answer, on the monotonic clock, in seconds.
        request : callable
            Is given the torch store.
        changes : bytes, optional
            The key that the request changes: without an answer nobody knows whether it has.
        """
        if self._lost is not None:
            raise self._unavailable(self._lost) from self._lost
        try:
            return self._carrier.call(deadline, request)
        except CarrierEndedError:
            raise StoreClosedError("the store was closed during the call") from None
        except NotImplementedError as error:
            raise UnsupportedOperationError(f"{self._where()} can't do this: {error}") from error
        except UnansweredError as silence:
            if changes is not None and silence.begun:
                raise self._unknown(changes, "no answer came in time") from silence
            raise OperationTimeoutError(f"{self._where()} did not answer in time: {silence}") from silence
        except Exception as error:
            if self._refusal is not None:  # a signal's handler closed this store in the middle of the call
                raise self._refused() from error
            if isinstance(error, (RuntimeError, OSError)):  # the data of a server that went away went with it
                self._lost = error
            if changes is not None:
                raise self._unknown(changes, f"no answer came ({type(error).__name__})") from error
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        advice = "; open another store once there is a server again" if error is self._lost else ""
        return StoreUnavailableError(f"{self._where()} failed with {type(error).__name__}{advice}")

    def _unknown(self, key: bytes, what: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{what} from {self._where()} to the change of {keys.split(key)[2]!r}, which may or may not take effect"
        )


def _carry(store: object) -> Carrier:
    """Make what carries the requests to a torch store of the caller's."""
    from torch.distributed import Store  # type: ignore[attr-defined]

    if not isinstance(store, Store):
        raise ConfigError(f"option 'store' is a torch.distributed.Store, not {type(store).__name__}")
    return Worker(cast("TorchStore", store))


def _same(store: Answer) -> Answer:
    return store


def _by_size(wanted: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut keys into runs of at most `CHECK_BYTES`."""
    run: list[bytes] = []
    size = 0
    for key in wanted:
        size += len(key) + 8  # each is sent with its length
        if run and size > CHECK_BYTES:
            yield run
            run, size = [], len(key) + 8
        run.append(key)
    if run:
        yield run
