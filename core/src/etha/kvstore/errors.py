"""The one tree of errors: every failure of a store is a `KVStoreError`.

Each error is also the builtin that a caller would expect, so ``except TimeoutError`` and
``except ConnectionError`` work without importing anything from here. A client library's own exception never
crosses a store's boundary bare; it is kept as ``__cause__``.

An error's text says what happened, to which key or backend, and what to do next. None of them ever holds a
password, a token or key material.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "BackendConflictError",
    "BackendIncompatibleError",
    "BackendLoadError",
    "BackendNotFoundError",
    "ConfigError",
    "ForkedStoreError",
    "InvalidKeyError",
    "KVStoreError",
    "OperationTimeoutError",
    "OutcomeUnknownError",
    "StoreClosedError",
    "StoreFullError",
    "StoreUnavailableError",
    "UnsupportedOperationError",
    "ValueDecodeError",
    "ValueTooLargeError",
    "WaitTimeoutError",
]


class KVStoreError(Exception):
    """Anything that a store, or the choosing of one, can fail with."""


# --- choosing a store ---


class ConfigError(KVStoreError, ValueError):
    """A configuration is incomplete, contradicts itself or names an option that the backend does not know.

    What to do: mend what the text names; ``python -m etha.kvstore backends`` lists the options of each backend.
    """


class BackendNotFoundError(KVStoreError, LookupError):
    """No installed distribution offers a backend of this name.

    What to do: install the distribution that the text names, in the environment that runs the program, or mend the
    name.
    """


class BackendLoadError(KVStoreError, ImportError):
    """A backend is installed but broken: its plugin can't be imported or does not keep to the hook.

    What to do: look at the cause, which is most often a library that is missing or too old; install the distribution
    again.
    """


class BackendConflictError(KVStoreError):
    """Two distributions offer a backend of the same name; the text names both.

    What to do: uninstall one of them.
    """


class BackendIncompatibleError(KVStoreError):
    """A backend was written for another version of the contract; the text names both versions.

    What to do: install versions of the backend's distribution and of ``etha-kvstore`` that agree.
    """


# --- what a call was given ---


class InvalidKeyError(KVStoreError, ValueError):
    """A namespace, component, key or pattern breaks a rule of the key format. Nothing was sent.

    What to do: mend the name; the text says which rule it breaks.
    """


class ValueTooLargeError(KVStoreError, ValueError):
    """A value is larger than the backend can hold. The old value stays.

    What to do: keep large data elsewhere and publish where; on etcd, raise ``--max-request-bytes`` on the servers and
    the option `max_request_bytes` with it.

    Parameters
    ----------
    message : str
        What happened.
    size : int, optional
        The size that was refused, in bytes.
    limit : int, optional
        The largest size that is accepted, in bytes.
    """

    def __init__(self, message: str, *, size: int | None = None, limit: int | None = None) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class ValueDecodeError(KVStoreError, ValueError):
    """`get_bytes` found a value that `set_bytes` did not write.

    What to do: read it with `get`, or have it written with `set_bytes`.
    """


class UnsupportedOperationError(KVStoreError, NotImplementedError):
    """The backend lacks a capability that the call needs; the text names both.

    What to do: do without the call, as by giving `wait_for_keys` its candidates, or choose a backend that has the
    capability.
    """


# --- what the store or its server did ---


class WaitTimeoutError(KVStoreError, TimeoutError):
    """A wait reached its deadline before its condition came true.

    What to do: look at those whom the text names as absent, at their logs first; where it says that the store could not
    be reached, look at the server.

    Parameters
    ----------
    message : str
        The facts below, as a person reads them at night.
    waited : float
        How long the wait lasted, in seconds.
    expected_count : int
        How many keys were waited for.
    matched : list of str
        The keys that did hold the expected value, sorted.
    mismatched : dict of str to bytes
        The matching keys that hold another value, and the value that they hold.
    missing : list of str
        The candidates, or the key, that do not exist.
    unreachable_for : float, optional
        For how many seconds the store had not answered when the deadline came; `None` where it had.

    Examples
    --------
    >>> try:
    ...     store.wait_for_key("address", timeout=0)
    ... except WaitTimeoutError as error:
    ...     print("nobody published", error.missing)
    nobody published ['address']
    """

    def __init__(
        self,
        message: str,
        *,
        waited: float = 0.0,
        expected_count: int = 1,
        matched: list[str] | None = None,
        mismatched: dict[str, bytes] | None = None,
        missing: list[str] | None = None,
        unreachable_for: float | None = None,
    ) -> None:
        super().__init__(message)
        self.waited = waited
        self.expected_count = expected_count
        self.matched = matched or []
        self.mismatched = mismatched or {}
        self.missing = missing or []
        self.unreachable_for = unreachable_for


class OperationTimeoutError(KVStoreError, TimeoutError):
    """The server said nothing until the operation timeout.

    What to do: see whether the server is frozen, overloaded or cut off; raise the option `timeout` where it is only far
    away.
    """


class StoreUnavailableError(KVStoreError, ConnectionError):
    """The server can't be reached, has lost its quorum or its leader, or closed the connection.

    What to do: check that the server runs, and that its address and port can be reached from this machine. A TCPStore
    ends with the process that hosts it: look there for the reason.
    """


class OutcomeUnknownError(KVStoreError):
    """A write was sent, its reply was lost, and nothing proves whether it took effect.

    The write was not sent a second time.

    What to do: read the key, and write again if it does not hold the value; the first write may still arrive.
    """


class AuthenticationError(KVStoreError, PermissionError):
    """The server refused the user, the password, the certificate, or the right to this key.

    What to do: check the options that the text is about, and grant the user's role the right to read and write the
    prefix ``{namespace}/``.
    """


class StoreFullError(KVStoreError):
    """The server is out of space and takes no more writes (etcd's space alarm).

    What to do: compact and defragment etcd or raise its quota, then disarm the alarm (``etcdctl alarm disarm``).
    """


# --- the life of a store ---


class StoreClosedError(KVStoreError):
    """The store was closed, before the call or during it.

    A write that was under way when another thread closed the store may have taken effect.

    What to do: open another store; if it was not meant to be closed, look for a ``with`` block that was left.
    """


class ForkedStoreError(KVStoreError):
    """The store was opened in another process, of which this one is a fork.

    What to do: open a store in the child, after the fork.
    """
