"""What is asked of a torch store: each request is a function of it, called by what carries the store's requests.

Every `torch.distributed.Store` takes `str` or `bytes` for a key and for a value. Keys are given as `str`, for the sake
of stores that are written in Python; values as the exact bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etha_kvstore_tcpstore.carrier import TorchStore
from etha_kvstore_tcpstore.link import Link

__all__ = [
    "ABSENT",
    "all_exist",
    "full_keys",
    "read",
    "read_many",
    "reads_at_once",
    "remove",
    "tells_deletions",
    "write",
]

ABSENT = b"\xff absent"
"""What stands for an absent key. It is not UTF-8, so no `set` stores it, and not base64, so no `set_bytes` does."""

PROBE_KEY = b"etha-kvstore:probe"
"""A key that never exists. It has no ``/``, so it is nobody's full key."""


def read(key: bytes, store: TorchStore) -> bytes | None:
    """Read a value in one round trip.

    torch's own ``get`` blocks on an absent key. ``compare_set`` does not: it returns the value that is there, or, where
    there is none, what was expected, and a value that nobody can have stored is never replaced.
    """
    value = store.compare_set(key.decode(), ABSENT, ABSENT)
    return None if value == ABSENT else value


def read_many(keys: Sequence[bytes], store: TorchStore) -> dict[bytes, bytes]:
    """Read several values, on a `Link` in one round trip; keys that are absent are left out."""
    if isinstance(store, Link):
        values = store.compare_set_all([key.decode() for key in keys], ABSENT, ABSENT)
        return {key: value for key, value in zip(keys, values, strict=True) if value != ABSENT}
    found = ((key, read(key, store)) for key in keys)
    return {key: value for key, value in found if value is not None}


def all_exist(keys: Sequence[bytes], store: TorchStore) -> bool:
    """Tell in one round trip whether all of some keys exist."""
    return store.check([key.decode() for key in keys])


def write(key: bytes, value: bytes, store: TorchStore) -> None:
    """Store a value, and return when the server has it.

    torch's ``set`` reads no reply. A server takes one client's requests in order, so its answer to ``check`` says that
    the value has arrived.
    """
    name = key.decode()
    store.set(name, value)
    store.check([name])


def remove(key: bytes, store: TorchStore) -> bool:
    """Delete a key, and tell whether it was there."""
    return store.delete_key(key.decode())


def full_keys(store: TorchStore) -> list[bytes]:
    """List all keys of a store, whoever wrote them."""
    if isinstance(store, Link):
        return store.list_keys()
    # While torch lists it holds the interpreter's lock, and on a frozen server the whole process would stand still.
    # So another request goes first, and the listing begins only when the server has just spoken.
    all_exist([PROBE_KEY], store)
    listing: Callable[[], list[str]] | None = getattr(store, "list_keys", None)
    if listing is None:
        raise NotImplementedError("list_keys() is not in this version of torch")
    try:
        return [key.encode() for key in listing()]
    except UnicodeDecodeError as error:
        raise NotImplementedError("torch can't list a store in which another program's key is not UTF-8") from error


def reads_at_once(store: TorchStore) -> bool:
    """Tell whether `read` works: a store that is written in Python may lack ``compare_set``."""
    all_exist([PROBE_KEY], store)  # a server that is away fails here, and not as a lack
    try:
        return read(PROBE_KEY, store) is None and not all_exist([PROBE_KEY], store)
    except (RuntimeError, AttributeError):
        return False


def tells_deletions(store: TorchStore) -> bool:
    """Tell whether `remove` works: ``FileStore`` says that it deleted a key that never was."""
    try:
        return not remove(PROBE_KEY, store)
    except (RuntimeError, AttributeError):
        return False
