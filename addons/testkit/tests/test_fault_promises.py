"""The tests that break the server: they pass a store that keeps its promises then, and fail each that does not.

The server is a dict of this process behind a switch. What runs on real ones is the business of the backends' own tests;
here the subject is the suite.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.errors import (
    KVStoreError,
    OperationTimeoutError,
    StoreClosedError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from etha.kvstore.follow import Follower, PollingFollower, Selector
from etha.kvstore.hookspecs import BackendSpec, Option
from etha.kvstore.skeleton import SkeletalStore
from etha.kvstore.waiting import Tally
from etha_kvstore_testkit import OpenStores, ServerFault
from etha_kvstore_testkit.promises import faults
from etha_kvstore_testkit.promises.faults import FaultPromises

pytest_plugins = ["pytester"]

OPTIONS = (
    Option("server", object, help="the server"),
    Option("timeout", float, default=10.0, help="operation timeout in seconds"),
    Option("connect_timeout", float, default=30.0, help="seconds to wait for the server"),
)

CAPABILITIES = frozenset({"list_keys", "waits_by_pattern"})


class Server:
    """A dict that can be frozen and stopped.

    Parameters
    ----------
    durable : bool
        Whether its values, and the connections to it, outlive a stop.
    """

    def __init__(self, *, durable: bool) -> None:
        self.values: dict[bytes, bytes] = {}
        self.life = 0
        self.running = True
        self._durable = durable
        self._serves = threading.Event()
        self._serves.set()

    def freeze(self) -> None:
        self._serves.clear()

    def thaw(self) -> None:
        self._serves.set()

    def stop(self) -> None:
        self.running = False
        self._serves.clear()
        if not self._durable:
            self.life += 1
            self.values.clear()

    def start(self) -> None:
        self.running = True
        self._serves.set()

    def answers(self, seconds: float) -> bool:
        """Tell whether it says anything within some seconds."""
        return self._serves.wait(seconds)


class FragileStore(SkeletalStore):
    """A store on a `Server`, intact."""

    spec = BackendSpec("fragile", "FragileStore", "a server", 1, OPTIONS, CAPABILITIES | {"outlives_server"})
    SLICE = 0.02

    def __init__(
        self,
        namespace: str,
        component: str,
        *,
        server: Server,
        timeout: float = 10.0,
        connect_timeout: float = 30.0,
    ) -> None:
        super().__init__(namespace, component, timeout=timeout)
        self._server = server
        if not server.answers(connect_timeout):
            raise StoreUnavailableError(f"the server did not come within {connect_timeout} s")
        self._of_life = server.life

    def _reach(self, deadline: float) -> dict[bytes, bytes]:
        """Wait for the server's answer, until the deadline or the end of the store."""
        while self._server.life == self._of_life:
            if isinstance(self._refusal, StoreClosedError):
                raise self._refused()
            if self._server.answers(self.SLICE):
                return self._server.values
            if monotonic() >= deadline:
                raise self._silent() if self._server.running else self._gone()
        raise self._gone()

    def _silent(self) -> Exception:
        return OperationTimeoutError("the server says nothing")

    def _gone(self) -> Exception:
        return StoreUnavailableError("the server is gone")

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        return self._reach(deadline).get(key)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        self._reach(deadline)[key] = value

    def _remove(self, key: bytes, deadline: float) -> bool:
        return self._reach(deadline).pop(key, None) is not None

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        return [(key, value) for key, value in self._reach(deadline).items() if key.startswith(prefix)]


class DyingStore(FragileStore):
    """An intact store whose data, and whose connection, die with its server."""

    spec = BackendSpec("dying", "DyingStore", "a server", 1, OPTIONS, CAPABILITIES)


def suite_of(store: type[FragileStore]) -> type[FaultPromises]:
    """Make the fault tests for a kind of fragile store."""

    class Suite(FaultPromises):
        spec = store.spec

        @pytest.fixture(autouse=True)
        def hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
            monkeypatch.setattr(faults, "TIMEOUT", 0.3)

        @pytest.fixture
        def server(self) -> Server:
            return Server(durable="outlives_server" in store.spec.capabilities)

        @pytest.fixture
        def open_stores(self, server: Server) -> OpenStores:
            def open_stores(
                count: int = 1, *, namespace: str = "conformance", component: str = "suite", **options: Any
            ) -> list[KVStore]:
                return [store(namespace, component, server=server, **options) for _ in range(count)]

            return open_stores

        @pytest.fixture
        def fault(self, server: Server) -> ServerFault:
            return server

    return Suite


TestFragileStore = suite_of(FragileStore)
TestDyingStore = suite_of(DyingStore)


class Broken:
    """What each broken store says of itself.

    Attributes
    ----------
    caught_by : tuple of str
        The tests that must fail.
    intact : type
        The store that it is like, but for its defect.
    """

    caught_by: ClassVar[tuple[str, ...]]
    intact: ClassVar[type[FragileStore]] = FragileStore


class HangsWhileItsServerIsFrozen(Broken, FragileStore):
    caught_by = ("test_every_call_on_a_frozen_server_times_out_in_time",)

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        return super()._read(key, deadline + 3.0)


class TakesAFreezeForADeath(Broken, DyingStore):
    caught_by = (
        "test_every_call_on_a_frozen_server_times_out_in_time",
        "test_a_wait_goes_on_through_a_freeze",
    )
    intact = DyingStore

    def _reach(self, deadline: float) -> dict[bytes, bytes]:
        return super()._reach(min(deadline, monotonic() + self.timeout))

    def _silent(self) -> Exception:
        return self._gone()


class LetsTheClientsErrorsThrough(Broken, FragileStore):
    caught_by = ("test_every_call_on_a_server_that_is_gone_says_so_in_time",)

    def _gone(self) -> Exception:
        return ConnectionResetError("Connection reset by peer")


class NeverRecovers(Broken, FragileStore):
    """Stays broken once its server was silent."""

    caught_by = ("test_a_store_works_again_after_a_freeze",)
    _broke: KVStoreError | None = None

    def _reach(self, deadline: float) -> dict[bytes, bytes]:
        if self._broke is not None:
            raise self._broke
        try:
            return super()._reach(deadline)
        except OperationTimeoutError as error:
            self._broke = error
            raise


class GivesUpWaiting(Broken, FragileStore):
    """Declares ``outlives_server``, and ends its waits with the server."""

    caught_by = (
        "test_a_wait_that_begins_on_a_server_that_is_gone_rides_it_out_to_its_deadline_or_says_so_at_once",
        "test_a_wait_under_way_goes_on_when_the_server_is_back_or_says_at_once_that_it_is_gone",
    )

    def _reach(self, deadline: float) -> dict[bytes, bytes]:
        return super()._reach(min(deadline, monotonic() + 0.1))

    def _follow(self, selector: Selector) -> Follower:
        follower = PollingFollower(self, selector)
        follower._ridden_out = (OperationTimeoutError,)
        return follower


class WaitsForTheDead(Broken, DyingStore):
    """Waits for a server whose data are gone to the end of the hour."""

    caught_by = (
        "test_a_wait_that_begins_on_a_server_that_is_gone_rides_it_out_to_its_deadline_or_says_so_at_once",
        "test_a_wait_under_way_goes_on_when_the_server_is_back_or_says_at_once_that_it_is_gone",
    )
    intact = DyingStore

    def _gone(self) -> Exception:
        return self._silent()


class SaysNothingOfTheOutage(Broken, FragileStore):
    caught_by = (
        "test_a_wait_that_begins_on_a_frozen_server_reaches_its_deadline_and_says_since_when",
        "test_a_wait_under_way_that_ends_in_an_outage_says_since_when_and_has_logged_it",
    )

    def _wait(self, selector: Selector, timeout: float, component: str | None, wanted: str) -> Tally:
        try:
            return super()._wait(selector, timeout, component, wanted)
        except WaitTimeoutError as error:
            raise WaitTimeoutError(str(error), waited=error.waited) from None


class PollsAPatternAtItsLeisure(Broken, FragileStore):
    caught_by = (
        "test_a_wait_that_begins_on_a_frozen_server_says_so_in_the_log_after_the_operation_timeout[wait_for_keys]",
    )

    def _enumerate(self, prefix: bytes, deadline: float) -> Iterable[tuple[bytes, bytes]]:
        return super()._enumerate(prefix, deadline + 5.0)


class WaitsDeaf(Broken, FragileStore):
    """Hears neither `close` nor Ctrl-C while its server is silent."""

    caught_by = (
        "test_close_ends_a_wait_on_a_frozen_server",
        "test_ctrl_c_ends_a_wait_on_a_frozen_server[wait_for_key]",
    )

    def _read(self, key: bytes, deadline: float) -> bytes | None:
        deaf_until = monotonic() + 2.5
        while not self._server.answers(0) and monotonic() < deaf_until:
            with suppress(KeyboardInterrupt):
                self._server.answers(deaf_until - monotonic())
        return super()._read(key, deadline)


class RaisesOnClose(Broken, FragileStore):
    caught_by = (
        "test_close_on_a_frozen_server_ends_in_time_and_does_not_raise",
        "test_close_after_the_server_has_gone_ends_in_time_and_does_not_raise",
    )

    def _release(self, cleanup: bool, deadline: float) -> None:
        if not self._server.running or not self._server.answers(0):
            raise StoreUnavailableError("the server is gone")


class OpensOnlyAtOnce(Broken, FragileStore):
    caught_by = ("test_a_server_that_is_not_up_yet_is_waited_for",)

    def __init__(
        self,
        namespace: str,
        component: str,
        *,
        server: Server,
        timeout: float = 10.0,
        connect_timeout: float = 30.0,
    ) -> None:
        super().__init__(namespace, component, server=server, timeout=timeout, connect_timeout=0.0)


class LosesWhatItAcknowledged(Broken, FragileStore):
    caught_by = ("test_what_was_acknowledged_outlives_the_server_where_its_data_do",)

    def _write(self, key: bytes, value: bytes, deadline: float) -> None:
        if not key.endswith(b"/data"):
            super()._write(key, value, deadline)


BROKEN = [
    store
    for store in list(globals().values())
    if isinstance(store, type) and issubclass(store, Broken) and "caught_by" in vars(store)
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_store_that_fails_under_a_fault_fails_where_the_intact_one_passes(
    broken: type[Broken], check_that_broken_fails_and_intact_passes: Callable[[type, type, Sequence[str]], None]
) -> None:
    check_that_broken_fails_and_intact_passes(broken, broken.intact, broken.caught_by)
