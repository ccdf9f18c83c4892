"""Which exit code a failure has, and what to use instead of what a backend lacks.

``0`` found or done, ``1`` not found or timed out, ``2`` a mistake in the command or its configuration, ``3`` the
store can't be reached or does not do what it was asked to. Beyond those, as shells have it, ``130`` after Ctrl-C, and
``141`` where the reader of the output has gone; ``74`` where the output can't be written; ``70`` is a bug, of this
command or of a backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from etha.kvstore.errors import (
    BackendConflictError,
    BackendIncompatibleError,
    BackendLoadError,
    BackendNotFoundError,
    KVStoreError,
    UnsupportedOperationError,
    WaitTimeoutError,
)
from etha_kvstore_cli.target import UsageError

__all__ = [
    "BUG",
    "EXIT_CODES",
    "NOT_FOUND",
    "NotFoundError",
    "UnwritableError",
    "exit_code",
    "instead",
]

NOT_FOUND = 1
USAGE = 2
UNAVAILABLE = 3
BUG = 70
UNWRITABLE = 74

EXIT_CODES = (
    "Exit codes: 0 found or done; 1 not found, or timed out; 2 a mistake in the command or its configuration; "
    "3 the store can't be reached or refuses; 130 after Ctrl-C."
)

MISTAKES = (
    UsageError,
    BackendConflictError,
    BackendIncompatibleError,
    BackendLoadError,
    BackendNotFoundError,
    UnsupportedOperationError,
    ValueError,  # what the store was given or told to do: ConfigError, InvalidKeyError, ValueTooLargeError and others
)


class NotFoundError(Exception):
    """What a command looked for is not in the store."""


class UnwritableError(Exception):
    """The result can't be written where it is to go."""


def exit_code(error: Exception) -> int:
    """Tell which exit code an error has.

    Parameters
    ----------
    error : Exception
        What ended the command.

    Returns
    -------
    int
        The code. A wait that timed out on a store that did not answer is a store that can't be reached: nobody knows
        whether what it waited for is there.
    """
    if isinstance(error, WaitTimeoutError):
        return NOT_FOUND if error.unreachable_for is None else UNAVAILABLE
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    if isinstance(error, UnwritableError):
        return UNWRITABLE
    if isinstance(error, MISTAKES):
        return USAGE
    return UNAVAILABLE if isinstance(error, KVStoreError) else BUG


@contextmanager
def instead(advice: str) -> Iterator[None]:
    """Say what to use instead, where the backend lacks what the block needs.

    Parameters
    ----------
    advice : str
        What does nearly the same without it.
    """
    try:
        yield
    except UnsupportedOperationError as error:
        raise UnsupportedOperationError(f"{error}; {advice}") from error
