"""What a backend's author gives the suite, and what each of its tests is given."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, Protocol

import pytest

from etha.kvstore import skeleton
from etha.kvstore.base import KVStore
from etha.kvstore.errors import UnsupportedOperationError
from etha.kvstore.hookspecs import BackendSpec

__all__ = ["COMPONENT", "Harness", "OpenStores", "ServerFault"]

COMPONENT = "suite"
"""The component of a test's stores, unless it says otherwise."""


class OpenStores(Protocol):
    """Opens stores of the backend, all on one server.

    The author's fixture ``open_stores`` returns one. Two calls within a test open stores on the same server, and so do
    those of another test, or not, as the author likes: each test has a namespace of its own.

    Examples
    --------
    >>> def open_stores(count=1, *, namespace="conformance", component="suite", **options):
    ...     return [MemoryStore(namespace, component, hub=hub, **options) for _ in range(count)]
    """

    def __call__(
        self, count: int = 1, *, namespace: str = ..., component: str = ..., **options: Any
    ) -> Sequence[KVStore]:
        """Open stores.

        Parameters
        ----------
        count : int
            How many.
        namespace, component : str
            As `KVStore`; passed on unchanged, bad ones included.
        **options
            Options of the backend, for all of them: ``timeout``, and ``connect_timeout`` where a fault is tested.

        Returns
        -------
        list of KVStore
            The open stores; the suite closes them, the last one first.
        """


class ServerFault(Protocol):
    """Breaks the server that the stores of a test are connected to, with a verb for each thing that can happen to it.

    The author's fixture ``fault`` returns one. A verb returns when it has had its effect: after `start` the server
    serves. Before a test ends the suite undoes what it did: a freeze by `thaw`, a `stop` by `start`.

    Examples
    --------
    >>> class ProcessFault:
    ...     def __init__(self, server):
    ...         self._server = server
    ...
    ...     def freeze(self):
    ...         self._server.send_signal(signal.SIGSTOP)
    """

    def freeze(self) -> None:
        """Stop the server where it is (SIGSTOP): its connections stay, and it says nothing."""

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""

    def stop(self) -> None:
        """End the server at once (SIGKILL)."""

    def start(self) -> None:
        """Start it again at the same address, with its data where the backend's data outlive it."""


class Harness:
    """What the promises have in common; `etha_kvstore_testkit.suite.StoreConformance` inherits it from each of them.

    Attributes
    ----------
    spec : BackendSpec
        The backend's spec: what it declares is tested to work, what it does not, to be refused.
    value_limit : int or None
        The longest text, in bytes of UTF-8, that `set` takes for the key ``"limit"``, whose full key in the suite's
        namespace and component has 36 bytes. `None` where the backend has no limit.
    """

    spec: ClassVar[BackendSpec]
    value_limit: ClassVar[int | None] = None

    @pytest.fixture
    def namespace(self) -> str:
        """Give a namespace that no other test uses; 24 bytes."""
        return f"conformance-{secrets.token_hex(6)}"

    @pytest.fixture
    def opened(self, open_stores: OpenStores, namespace: str) -> Iterator[OpenStores]:
        """Open stores in the test's namespace, and close them after it, the first one last: it may host the server."""
        with ExitStack() as closing:

            def opened(
                count: int = 1, *, namespace: str = namespace, component: str = COMPONENT, **options: Any
            ) -> Sequence[KVStore]:
                stores = open_stores(count, namespace=namespace, component=component, **options)
                for store in stores:
                    closing.callback(store.close, cleanup=False)
                return stores

            yield opened

    @pytest.fixture
    def store(self, opened: OpenStores) -> KVStore:
        """Open a store."""
        return opened()[0]

    @pytest.fixture
    def other(self, opened: OpenStores, store: KVStore) -> KVStore:
        """Open another store beside the first, for what a second process would do."""
        return opened()[0]

    @pytest.fixture
    def first_report(self, monkeypatch: pytest.MonkeyPatch) -> float:
        """Let a wait that goes on say so after a fraction of a second.

        A backend that is not built on `SkeletalStore` overrides this, and returns the seconds.
        """
        seconds = 0.1
        monkeypatch.setattr(skeleton, "FIRST_REPORT", seconds)
        return seconds

    def has(self, capability: str) -> bool:
        """Tell whether the backend declares a capability."""
        return capability in self.spec.capabilities

    def lacks(self, capability: str, call: Callable[[], object]) -> bool:
        """Tell whether the backend does not declare a capability, having seen that it refuses the call by name."""
        if self.has(capability):
            return False
        with pytest.raises(UnsupportedOperationError) as refusal:
            call()
        assert self.spec.name in str(refusal.value), "the refusal names the backend"
        assert capability in str(refusal.value), "the refusal names the capability"
        return True
