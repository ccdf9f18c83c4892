"""`StoreConformance`: the promises of the contract, all in one class for a backend's author to subclass."""

from __future__ import annotations

from etha_kvstore_testkit.promises.bad_inputs import BadInputPromises
from etha_kvstore_testkit.promises.cleanup import CleanupPromises
from etha_kvstore_testkit.promises.faults import FaultPromises
from etha_kvstore_testkit.promises.forks import ForkPromises
from etha_kvstore_testkit.promises.keys import KeyPromises
from etha_kvstore_testkit.promises.life import LifePromises
from etha_kvstore_testkit.promises.listing import ListingPromises
from etha_kvstore_testkit.promises.model import ModelPromises
from etha_kvstore_testkit.promises.pattern_waits import PatternWaitPromises
from etha_kvstore_testkit.promises.quiet import QuietPromises
from etha_kvstore_testkit.promises.specification import SpecificationPromises
from etha_kvstore_testkit.promises.threads import ThreadPromises
from etha_kvstore_testkit.promises.values import ValuePromises
from etha_kvstore_testkit.promises.waits import WaitPromises
from etha_kvstore_testkit.promises.watches import WatchPromises

__all__ = ["StoreConformance"]


class StoreConformance(
    SpecificationPromises,
    KeyPromises,
    ValuePromises,
    WaitPromises,
    PatternWaitPromises,
    ListingPromises,
    WatchPromises,
    BadInputPromises,
    LifePromises,
    CleanupPromises,
    ThreadPromises,
    ForkPromises,
    QuietPromises,
    ModelPromises,
    FaultPromises,
):
    """All tests that a backend must pass.

    A subclass gives two things: `spec`, and a fixture ``open_stores``. It may give `value_limit`, and a fixture
    ``fault``; without that the tests that break the server are not collected.

    Examples
    --------
    >>> class TestMemory(StoreConformance):
    ...     spec = SPEC
    ...
    ...     @pytest.fixture
    ...     def open_stores(self):
    ...         hub = MemoryHub()
    ...
    ...         def open_stores(count=1, *, namespace="conformance", component="suite", **options):
    ...             return [MemoryStore(namespace, component, hub=hub, **options) for _ in range(count)]
    ...
    ...         return open_stores
    """
