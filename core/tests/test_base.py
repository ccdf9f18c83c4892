"""The contract's class: exactly the specification's ten methods, and what every store has beside them."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Protocol

import pytest

from etha.kvstore.base import Change, KVStore, Watch
from etha.kvstore.errors import InvalidKeyError, UnsupportedOperationError


class Specification(Protocol):
    """The specification's methods, as it writes them."""

    def close(self, cleanup: bool = True) -> None: ...

    def delete(self, key: str, *, component: str | None = None) -> bool: ...

    def exists(self, key: str, *, component: str | None = None) -> bool: ...

    def get(self, key: str, *, component: str | None = None) -> bytes | None: ...

    def get_bytes(self, key: str, *, component: str | None = None) -> bytes | None: ...

    def set(self, key: str, value: str, *, component: str | None = None) -> None: ...

    def set_bytes(self, key: str, data: bytes, *, component: str | None = None) -> None: ...

    def wait_for_key(self, key: str, timeout: float = 3600.0, *, component: str | None = None) -> bytes: ...

    def wait_for_keys(
        self,
        key_pattern: str,
        expected_count: int,
        value: str = "1",
        timeout: float = 3600.0,
        candidate_keys: list[str] | None = None,
        *,
        component: str | None = None,
    ) -> list[str]: ...

    def wait_for_value(
        self, key: str, expected: str, timeout: float = 3600.0, *, component: str | None = None
    ) -> bytes: ...


TEN = sorted(name for name in vars(Specification) if not name.startswith("_"))
DOCUMENTED = [getattr(KVStore, name) for name in [*TEN, "list_keys", "watch"]] + [KVStore, Watch, Watch.next]


class EmptyStore(KVStore):
    """A store of nothing, which counts how often it was closed."""

    def __init__(self, namespace: str, component: str) -> None:
        super().__init__(namespace, component)
        self.closed = 0

    def close(self, cleanup: bool = True) -> None:
        self.closed += 1

    get = get_bytes = set = set_bytes = exists = delete = None  # type: ignore[assignment]
    wait_for_key = wait_for_keys = wait_for_value = None  # type: ignore[assignment]


def test_the_abstract_methods_are_exactly_the_specifications_ten() -> None:
    assert len(TEN) == 10
    assert sorted(KVStore.__abstractmethods__) == TEN


@pytest.mark.parametrize("name", TEN)
def test_each_signature_is_the_specifications(name: str) -> None:
    assert inspect.signature(getattr(KVStore, name)) == inspect.signature(getattr(Specification, name))


def test_the_constructor_and_the_attributes_are_the_specifications() -> None:
    assert [*inspect.signature(KVStore).parameters] == ["namespace", "component"]
    assert inspect.get_annotations(KVStore) == {"namespace": "str", "component": "str"}
    store = EmptyStore("job-42", "trainer")
    assert (store.namespace, store.component) == ("job-42", "trainer")


@pytest.mark.parametrize("name", TEN)
def test_a_class_that_lacks_one_of_the_ten_cannot_be_made(name: str) -> None:
    incomplete = type("Incomplete", (KVStore,), {other: None for other in TEN if other != name})
    with pytest.raises(TypeError, match=name):
        incomplete("job-42", "trainer")


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda thing: thing.__qualname__)
def test_the_docstring_has_the_numpydoc_sections_that_its_signature_calls_for(documented: type) -> None:
    text = inspect.getdoc(documented) or ""
    sections = dict(re.findall(r"^(\w+)\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL))
    assert ">>> " in sections["Examples"]
    if inspect.isfunction(documented):
        signature = inspect.signature(documented)
        described = re.findall(r"^(\w+) : ", sections.get("Parameters", ""), re.MULTILINE)
        assert described == [name for name in signature.parameters if name != "self"]
        assert ("Returns" in sections) == (signature.return_annotation != "None")


@pytest.mark.parametrize(("namespace", "component"), [("", "c"), ("n", ""), ("a/b", "c"), ("n", "b/c"), ("n\0", "c")])
def test_a_store_checks_its_namespace_and_component(namespace: str, component: str) -> None:
    with pytest.raises(InvalidKeyError):
        EmptyStore(namespace, component)


def test_a_block_closes_its_store_also_when_it_fails() -> None:
    with EmptyStore("job-42", "trainer") as store:
        assert store.closed == 0
    assert store.closed == 1
    failing = EmptyStore("job-42", "trainer")
    with pytest.raises(ZeroDivisionError), failing:
        raise ZeroDivisionError
    assert failing.closed == 1


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda send: send.__name__)
def test_a_store_is_not_pickled_and_says_what_to_do_instead(send: object) -> None:
    with pytest.raises(TypeError, match=r"EmptyStore .* can't be pickled; send its configuration"):
        send(EmptyStore("job-42", "trainer"))  # type: ignore[operator]


def test_what_is_beyond_the_specification_is_refused_by_name_where_it_is_lacking() -> None:
    store = EmptyStore("job-42", "trainer")
    with pytest.raises(UnsupportedOperationError, match=r"EmptyStore.*'list_keys'"):
        store.list_keys()
    with pytest.raises(UnsupportedOperationError, match=r"EmptyStore.*'watch'"):
        store.watch()


def test_a_change_is_a_key_and_a_value_and_reads_as_one() -> None:
    key, value = Change("engine:a", None)
    assert (key, value) == ("engine:a", None)
    assert repr(Change("engine:a", b"up")) == "Change(key='engine:a', value=b'up')"
