"""The contract: `KVStore`, the abstract class that every backend implements and every user sees.

Two optional extensions stand beside it, `KVStore.list_keys` and `KVStore.watch` with its `Watch` and `Change`.
A new backend is best derived from `etha.kvstore.skeleton.SkeletalStore`, which keeps most of the promises
written here and leaves a few small methods to the backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from etha.kvstore.errors import UnsupportedOperationError
from etha.kvstore.keys import check_part

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Change", "KVStore", "Watch"]


class KVStore(ABC):
    """A small key-value store through which the processes of a distributed job find and await each other.

    Every key lives at ``{namespace}/{component}/{key}``. A store speaks for one namespace and, unless a call says
    otherwise, for one component. All methods may be called from many threads at once. A store is a context
    manager: leaving the block closes it.

    Parameters
    ----------
    namespace : str
        Keeps the keys of one job apart from all others. Non-empty, without ``/``.
    component : str
        The component that calls mean when they name none. Non-empty, without ``/``.

    Raises
    ------
    TypeError
        If one of them is not a `str`.
    InvalidKeyError
        If one of them breaks a rule.

    Notes
    -----
    A call can raise any error of `etha.kvstore.errors` that its situation calls for:
    `StoreUnavailableError` and `OperationTimeoutError` where the server is gone or silent,
    `AuthenticationError` where it refuses, `StoreClosedError` after `close`, `ForkedStoreError` in a forked child. The
    sections below name what is peculiar to a method.

    Examples
    --------
    >>> from etha.kvstore import open_store
    >>> with open_store("memory", namespace="job-42", component="trainer") as store:
    ...     store.set("rank:0/address", "10.0.0.1:29500")
    ...     store.wait_for_key("rank:0/address", timeout=60)
    b'10.0.0.1:29500'
    """

    namespace: str
    component: str

    def __init__(self, namespace: str, component: str) -> None:
        self.namespace = check_part(namespace, "namespace")
        self.component = check_part(component, "component")

    @abstractmethod
    def get(self, key: str, *, component: str | None = None) -> bytes | None:
        """Read the value of a key.

        Parameters
        ----------
        key : str
            The key.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        bytes or None
            The stored bytes, or `None` where the key does not exist.

        Raises
        ------
        InvalidKeyError
            If the key breaks a rule of the format.

        Examples
        --------
        >>> store.set("rank:0/address", "10.0.0.1:29500")
        >>> store.get("rank:0/address")
        b'10.0.0.1:29500'
        """

    @abstractmethod
    def set(self, key: str, value: str, *, component: str | None = None) -> None:
        """Write a text.

        When the call returns, the server has acknowledged the write: any process that reads afterwards sees it.

        Parameters
        ----------
        key : str
            The key.
        value : str
            The text; its UTF-8 bytes are stored.
        component : str, optional
            Another component than the store's own.

        Raises
        ------
        TypeError
            If the value is not a `str`; for bytes there is `set_bytes`.
        InvalidKeyError
            If the key breaks a rule of the format.
        ValueTooLargeError
            If the backend can't hold the value; the old one stays.
        OutcomeUnknownError
            If the reply was lost and nothing proves whether the write took effect.

        Examples
        --------
        >>> store.set("rank:0/ready", "1")
        """

    @abstractmethod
    def get_bytes(self, key: str, *, component: str | None = None) -> bytes | None:
        r"""Read what `set_bytes` wrote.

        Parameters
        ----------
        key : str
            The key.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        bytes or None
            Exactly the bytes that were given to `set_bytes`, or `None` where the key does not exist.

        Raises
        ------
        ValueDecodeError
            If the stored value is not of the form that `set_bytes` writes (TCPStore: base64).

        Notes
        -----
        On TCPStore binary data are stored as base64, so `get` of such a key shows the base64 there and the bytes
        elsewhere. Read with the method that pairs with the one that wrote.

        Examples
        --------
        >>> store.set_bytes("shards", b"\x00\xff")
        >>> store.get_bytes("shards")
        b'\x00\xff'
        """

    @abstractmethod
    def set_bytes(self, key: str, data: bytes, *, component: str | None = None) -> None:
        """Write binary data.

        Parameters
        ----------
        key : str
            The key.
        data : bytes
            Any bytes, none included.
        component : str, optional
            Another component than the store's own.

        Raises
        ------
        TypeError
            If the data are not bytes; for text there is `set`.
        ValueTooLargeError
            If the backend can't hold the data; the old value stays.
        OutcomeUnknownError
            If the reply was lost and nothing proves whether the write took effect.

        Examples
        --------
        >>> store.set_bytes("shards", bytes(range(4)))
        """

    @abstractmethod
    def exists(self, key: str, *, component: str | None = None) -> bool:
        """Tell whether a key exists.

        Parameters
        ----------
        key : str
            The key.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        bool
            Whether it does, whatever its value.

        Raises
        ------
        InvalidKeyError
            If the key breaks a rule of the format.

        Examples
        --------
        >>> store.exists("nobody-wrote-this")
        False
        """

    @abstractmethod
    def delete(self, key: str, *, component: str | None = None) -> bool:
        """Delete a key.

        Parameters
        ----------
        key : str
            The key.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        bool
            `True` if this call deleted it, `False` if it did not exist.

        Raises
        ------
        OutcomeUnknownError
            If the reply was lost: that the key is absent now does not show who deleted it.

        Examples
        --------
        >>> store.delete("nobody-wrote-this")
        False
        """

    @abstractmethod
    def wait_for_key(self, key: str, timeout: float = 3600.0, *, component: str | None = None) -> bytes:
        """Wait until a key exists, whatever its value.

        Parameters
        ----------
        key : str
            The key.
        timeout : float
            How long to wait at the most, in seconds; ``0`` looks once, ``float("inf")`` waits for ever.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        bytes
            The value that it has.

        Raises
        ------
        WaitTimeoutError
            If the time has passed. It is a `TimeoutError`.
        ValueError
            If the timeout is negative or NaN.

        Examples
        --------
        >>> store.set("address", "10.0.0.1:29500")
        >>> store.wait_for_key("address", timeout=60)
        b'10.0.0.1:29500'
        """

    @abstractmethod
    def wait_for_keys(
        self,
        key_pattern: str,
        expected_count: int,
        value: str = "1",
        timeout: float = 3600.0,
        candidate_keys: list[str] | None = None,
        *,
        component: str | None = None,
    ) -> list[str]:
        """Wait until at least so many keys match a pattern and hold a value at the same time.

        Parameters
        ----------
        key_pattern : str
            A key in which each ``*`` stands for any run of characters, ``/`` included.
        expected_count : int
            How many keys to wait for; ``0`` returns the present matches at once.
        value : str
            The value that they must hold.
        timeout : float
            How long to wait at the most, in seconds.
        candidate_keys : list of str, optional
            The keys that may match; `etha.kvstore.patterns.expand` writes them out. A backend that can't look
            by pattern (TCPStore) needs them and looks at nothing else. The others match without them, and use
            them to say who is missing.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        list of str
            All keys that match and hold the value, sorted.

        Raises
        ------
        WaitTimeoutError
            If the time has passed; it names who was missing.
        ValueError
            If the timeout or the count is negative, or a backend that needs candidates got fewer fitting ones
            than `expected_count`.

        Examples
        --------
        >>> from etha.kvstore.patterns import expand
        >>> for rank in range(2):
        ...     store.set(f"rank:{rank}/ready", "1")
        >>> store.wait_for_keys("rank:*/ready", 2, timeout=60, candidate_keys=expand("rank:*/ready", range(2)))
        ['rank:0/ready', 'rank:1/ready']
        """

    @abstractmethod
    def wait_for_value(
        self, key: str, expected: str, timeout: float = 3600.0, *, component: str | None = None
    ) -> bytes:
        """Wait until a key has a value.

        Parameters
        ----------
        key : str
            The key.
        expected : str
            The value to wait for; its UTF-8 bytes are compared.
        timeout : float
            How long to wait at the most, in seconds.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        bytes
            The value.

        Raises
        ------
        WaitTimeoutError
            If the time has passed; it says which value the key has instead.

        Examples
        --------
        >>> store.set("weights/version", "7")
        >>> store.wait_for_value("weights/version", "7", timeout=60)
        b'7'
        """

    @abstractmethod
    def close(self, cleanup: bool = True) -> None:
        """Release what the store holds. A second call does nothing.

        Parameters
        ----------
        cleanup : bool
            Delete the keys that this store wrote and nobody has overwritten since, on a backend whose data
            outlive the process (etcd). It never deletes another process's write.

        Notes
        -----
        Waits in other threads end with `StoreClosedError`, and so does every later call. A server that has gone is
        logged, not raised. The call takes no longer than the operation timeout. It takes locks, so it is not for a
        signal handler.

        Examples
        --------
        >>> other = open_store("memory", namespace="job-42", component="trainer")
        >>> other.close()
        """

    def list_keys(self, pattern: str = "*", *, component: str | None = None) -> list[str]:
        """List the keys that match a pattern. Optional: a backend may lack it.

        Parameters
        ----------
        pattern : str
            A key in which each ``*`` stands for any run of characters.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        list of str
            The matching keys, sorted; each can be passed to `get`.

        Raises
        ------
        UnsupportedOperationError
            If the backend lacks the capability ``list_keys``.

        Examples
        --------
        >>> store.set("rank:0/ready", "1")
        >>> store.list_keys("rank:*/ready")
        ['rank:0/ready']
        """
        raise UnsupportedOperationError(f"{type(self).__name__} lacks the capability 'list_keys'")

    def watch(self, pattern: str = "*", *, component: str | None = None) -> Watch:
        """Follow every change to the keys that match a pattern. Optional: a backend may lack it.

        Parameters
        ----------
        pattern : str
            A key in which each ``*`` stands for any run of characters.
        component : str, optional
            Another component than the store's own.

        Returns
        -------
        Watch
            A context manager; the watch starts where its block does.

        Raises
        ------
        UnsupportedOperationError
            If the backend lacks the capability ``watch``.

        Examples
        --------
        >>> with store.watch("engine:*") as engines:
        ...     store.set("engine:a", "up")
        ...     engines.next(timeout=60)
        Change(key='engine:a', value=b'up')
        """
        raise UnsupportedOperationError(f"{type(self).__name__} lacks the capability 'watch'")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is a connection and can't be pickled; "
            "send its configuration and call open_store_from_config() in the other process"
        )


class Change(NamedTuple):
    """One change that a `Watch` saw.

    Attributes
    ----------
    key : str
        The key, relative to the watched component.
    value : bytes or None
        Its new value as it is stored, or `None` where it was deleted.

    Examples
    --------
    >>> Change("engine:a", None).value is None
    True
    """

    key: str
    value: bytes | None


class Watch(ABC):
    """What `KVStore.watch` returns: the state at its start, then every change in order and once.

    Where a server no longer has the history that a watch missed (etcd: a compaction during an outage, or
    another cluster), it looks again and yields the net difference, deletions included. Only then may steps in between
    be missing, and a consumer that applies what it is given always ends in the store's state.

    One thread at a time consumes a watch.

    Attributes
    ----------
    state : dict of str to bytes
        The matching keys and their values at the start of the block.

    Examples
    --------
    >>> store.set("engine:a", "up")
    >>> with store.watch("engine:*") as engines:
    ...     up = dict(engines.state)
    ...     store.delete("engine:a")
    ...     change = engines.next(timeout=60)
    True
    >>> up, change
    ({'engine:a': b'up'}, Change(key='engine:a', value=None))
    """

    state: dict[str, bytes]

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *exc_info: object) -> None: ...

    @abstractmethod
    def next(self, timeout: float = float("inf")) -> Change:
        """Wait for the next change.

        Parameters
        ----------
        timeout : float
            How long to wait at the most, in seconds.

        Returns
        -------
        Change
            The change.

        Raises
        ------
        WaitTimeoutError
            If the time has passed without one.
        StoreClosedError
            If the store was closed or the block was left.

        Examples
        --------
        >>> with store.watch("nothing-happens-here") as quiet:
        ...     quiet.next(timeout=0)
        Traceback (most recent call last):
        etha.kvstore.errors.WaitTimeoutError: ...
        """

    @abstractmethod
    def __iter__(self) -> Iterator[Change]:
        """Yield changes until the block is left or the store is closed."""
