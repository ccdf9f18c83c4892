"""What the memory backend tells the core, without importing more than the core."""

from __future__ import annotations

from etha.kvstore.hookspecs import BackendSpec, Option, hookimpl

__all__ = ["SPEC", "kvstore_backend"]

SPEC = BackendSpec(
    name="memory",
    store="etha_kvstore_memory.store:MemoryStore",
    summary="keys in this process's memory, for threads, tests and single-process jobs",
    contract=1,
    options=(
        Option("hub", object, help="a MemoryHub that stores share; by default the process has one"),
        Option("timeout", float, default=10.0, help="operation timeout in seconds; nothing here ever takes so long"),
    ),
    capabilities=frozenset({"list_keys", "watch", "waits_by_pattern"}),
    diagnose="etha_kvstore_memory.diagnose:diagnose",
)


@hookimpl
def kvstore_backend() -> BackendSpec:
    """Offer the memory backend."""
    return SPEC
