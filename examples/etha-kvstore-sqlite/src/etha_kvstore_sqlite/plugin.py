"""What the SQLite backend tells the core, without importing more than the core."""

from __future__ import annotations

from etha.kvstore.hookspecs import BackendSpec, Option, hookimpl

__all__ = ["SPEC", "kvstore_backend"]

SPEC = BackendSpec(
    name="sqlite",
    store="etha_kvstore_sqlite.store:SqliteStore",
    summary="keys in a SQLite file, for the processes of one machine",
    contract=1,
    options=(
        Option("path", str, required=True, help="the file, on a local disk; made where there is none"),
        Option("timeout", float, default=10.0, help="operation timeout in seconds"),
        Option("connect_timeout", float, default=30.0, help="how long the opening waits for the folder of the file"),
    ),
    capabilities=frozenset({"list_keys", "waits_by_pattern", "cleanup"}),
)


@hookimpl
def kvstore_backend() -> BackendSpec:
    """Offer the SQLite backend."""
    return SPEC
