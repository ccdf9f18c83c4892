"""`MemoryStore`: the contract on a dict that the process shares, driven by events."""

from __future__ import annotations

from collections.abc import Iterable

from etha.kvstore.errors import ConfigError
from etha.kvstore.follow import Follower, Selector
from etha.kvstore.skeleton import SkeletalStore
from etha_kvstore_memory.hub import MemoryHub, join_default_hub, leave_default_hub
from etha_kvstore_memory.plugin import SPEC

__all__ = ["MemoryStore"]


class MemoryStore(SkeletalStore):
    """A store whose keys live in this process.

    Stores that share a hub see each other's keys. The default hub is process-wide and ends, with all its keys, when
    the last open store that uses it is closed. A store that is dropped without being closed holds it.

    Parameters
    ----------
    namespace, component : str
        As `KVStore`.
    hub : MemoryHub, optional
        A hub of one's own.
    timeout : float
        The operation timeout, in seconds; nothing here takes so long.

    Raises
    ------
    ConfigError
        If `hub` is something else.

    Examples
    --------
    >>> with MemoryStore("job-42", "trainer") as store:
    ...     store.set("ready", "1")
    ...     store.wait_for_value("ready", "1", timeout=60)
    b'1'
    """

    spec = SPEC

    def __init__(self, namespace: str, component: str, *, hub: MemoryHub | None = None, timeout: float = 10.0) -> None:
        super().__init__(namespace, component, timeout=timeout)
        if hub is not None and not isinstance(hub, MemoryHub):
            raise ConfigError(f"option 'hub' of backend 'memory' is a MemoryHub, not {type(hub).__name__}")
        self._private = hub is not None
        self._hub = join_default_hub() if hub is None else hub

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        return self._hub.read(key)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        self._hub.write(key, value)

    def _remove(self, key: bytes, deadline: float) -> bool:
        return self._hub.remove(key)

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        return self._hub.snapshot(prefix)

    def _follow(self, selector: Selector) -> Follower:
        return self._hub.follow(selector)

    def _release(self, cleanup: bool, deadline: float) -> None:
        if not self._private:
            leave_default_hub()

    def _where(self) -> str:
        return "a private hub" if self._private else "the process-wide hub"
