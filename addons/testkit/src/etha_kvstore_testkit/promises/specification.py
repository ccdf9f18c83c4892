"""What a backend says of itself, and the shape of its store class."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from etha.kvstore.base import KVStore
from etha.kvstore.hookspecs import CONTRACT_VERSION
from etha_kvstore_testkit.harness import COMPONENT, Harness

__all__ = ["SpecificationPromises"]


class SpecificationPromises(Harness):
    """A store looks as the specification says, and its spec describes it."""

    def test_a_store_is_a_kvstore_of_its_namespace_and_component(self, store: KVStore, namespace: str) -> None:
        assert isinstance(store, KVStore)
        assert (store.namespace, store.component) == (namespace, COMPONENT)

    @pytest.mark.parametrize("method", sorted({*KVStore.__abstractmethods__, "list_keys", "watch"}))
    def test_a_method_takes_what_the_specification_says(self, store: KVStore, method: str) -> None:
        def shape(owner: type) -> list[tuple[str, object, object]]:
            parameters = inspect.signature(getattr(owner, method)).parameters.values()
            return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]

        assert shape(type(store)) == shape(KVStore)

    def test_the_spec_is_of_this_version_of_the_contract(self) -> None:
        assert self.spec.contract == CONTRACT_VERSION

    def test_the_spec_names_every_option_of_the_store_class_and_its_default(self, store: KVStore) -> None:
        parameters = inspect.signature(type(store)).parameters
        options = {name: one.default for name, one in parameters.items() if name not in ("namespace", "component")}
        expected = {each.name: inspect.Parameter.empty if each.required else each.default for each in self.spec.options}
        assert expected == options

    def test_repr_shows_backend_namespace_and_component_even_after_close(self, store: KVStore, namespace: str) -> None:
        def shown() -> list[bool]:
            return [part in repr(store) for part in (self.spec.name, namespace, COMPONENT)]

        assert shown() == [True, True, True]
        store.close(cleanup=False)
        assert shown() == [True, True, True]

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickling_a_store_is_a_type_error_that_says_to_open_one_there(self, store: KVStore, protocol: int) -> None:
        with pytest.raises(TypeError, match="open"):
            pickle.dumps(store, protocol)

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
    def test_copying_a_store_is_a_type_error_too(self, store: KVStore, duplicate: object) -> None:
        assert callable(duplicate)
        with pytest.raises(TypeError, match="open"):
            duplicate(store)
