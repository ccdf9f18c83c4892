"""The error tree: what else each error is, and that it survives the way to another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from etha.kvstore import errors
from etha.kvstore.errors import KVStoreError, ValueTooLargeError, WaitTimeoutError

TREE: dict[str, type[Exception]] = {
    "ConfigError": ValueError,
    "BackendNotFoundError": LookupError,
    "BackendLoadError": ImportError,
    "BackendConflictError": KVStoreError,
    "BackendIncompatibleError": KVStoreError,
    "InvalidKeyError": ValueError,
    "ValueTooLargeError": ValueError,
    "ValueDecodeError": ValueError,
    "UnsupportedOperationError": NotImplementedError,
    "WaitTimeoutError": TimeoutError,
    "OperationTimeoutError": TimeoutError,
    "StoreUnavailableError": ConnectionError,
    "OutcomeUnknownError": KVStoreError,
    "AuthenticationError": PermissionError,
    "StoreFullError": KVStoreError,
    "StoreClosedError": KVStoreError,
    "ForkedStoreError": KVStoreError,
}
"""The contract's tree: each error, and the builtin that a caller would expect."""

WAIT_FACTS = {
    "waited": 2.5,
    "expected_count": 3,
    "matched": ["rank:0"],
    "mismatched": {"rank:1": b"\xff"},
    "missing": ["rank:2"],
    "unreachable_for": 1.25,
}

SAMPLES = [
    *(getattr(errors, name)("what happened") for name in TREE),
    ValueTooLargeError("what happened", size=9, limit=8),
    WaitTimeoutError("what happened", **WAIT_FACTS),  # type: ignore[arg-type]
]


def test_the_tree_is_the_contracts_and_all_of_it_is_public() -> None:
    defined = {name for name, thing in vars(errors).items() if isinstance(thing, type)}
    assert defined == set(errors.__all__) == {"KVStoreError", *TREE}


@pytest.mark.parametrize("name", TREE)
def test_each_error_is_a_kvstore_error_and_the_builtin_that_a_caller_expects(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, KVStoreError)
    assert issubclass(error, TREE[name])


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_the_text_of_an_error_is_what_it_was_given(error: KVStoreError) -> None:
    assert str(error) == "what happened"
    assert error.args == ("what happened",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_a_pickle_with_all_that_it_says(error: KVStoreError, protocol: int) -> None:
    there = pickle.loads(pickle.dumps(error, protocol))
    assert (type(there), there.args, vars(there)) == (type(error), error.args, vars(error))
    assert str(there) == str(error)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied(error: KVStoreError) -> None:
    for twin in (copy.copy(error), copy.deepcopy(error)):
        assert (type(twin), twin.args, vars(twin)) == (type(error), error.args, vars(error))


def test_a_wait_timeout_carries_the_facts_as_attributes() -> None:
    assert vars(WaitTimeoutError("late", **WAIT_FACTS)) == WAIT_FACTS  # type: ignore[arg-type]
    bare = WaitTimeoutError("late")
    assert (bare.matched, bare.mismatched, bare.missing, bare.unreachable_for) == ([], {}, [], None)


def test_a_refused_size_carries_size_and_limit() -> None:
    error = ValueTooLargeError("too large", size=9, limit=8)
    assert (error.size, error.limit) == (9, 8)
