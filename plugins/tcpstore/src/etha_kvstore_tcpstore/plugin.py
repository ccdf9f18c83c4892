"""What the TCPStore backend tells the core, without importing more than the core."""

from __future__ import annotations

import re

import importlib_metadata

from etha.kvstore.hookspecs import BackendSpec, Option, hookimpl

__all__ = ["SPEC", "capabilities_with", "kvstore_backend"]


def capabilities_with(torch_version: str | None) -> frozenset[str]:
    """Tell what the backend can do with a version of torch, without importing that.

    Parameters
    ----------
    torch_version : str, optional
        The version that is installed; `None` where none is.

    Returns
    -------
    frozenset of str
        ``list_keys`` where torch's stores have it, which is since 2.10; a pre-release of that may lack it.

    Examples
    --------
    >>> capabilities_with("2.13.0+cpu"), capabilities_with("2.9.1")
    (frozenset({'list_keys'}), frozenset())
    """
    numbers = re.match(r"(\d+)\.(\d+)", torch_version or "")
    if numbers is None:
        return frozenset()
    release = (int(numbers[1]), int(numbers[2]))
    is_final = re.fullmatch(r"[\d.]+(\+.*)?", torch_version or "") is not None
    return frozenset({"list_keys"}) if release > (2, 10) or (release == (2, 10) and is_final) else frozenset()


def _installed_torch() -> str | None:
    try:
        return importlib_metadata.version("torch")
    except importlib_metadata.PackageNotFoundError:
        return None


SPEC = BackendSpec(
    name="tcpstore",
    store="etha_kvstore_tcpstore.store:TCPKVStore",
    summary="keys in a torch TCPStore: the store that a torch job has already, or one that a rank hosts",
    contract=1,
    options=(
        Option("host", str, help="host name or address of the server; without it, the store of torchrun's agent"),
        Option("port", int, help="the port that goes with host; 0 lets the hosting store find a free one"),
        Option("is_master", bool, default=False, help="host the server; in exactly one process"),
        Option("timeout", float, default=10.0, help="operation timeout in seconds"),
        Option("connect_timeout", float, default=30.0, help="how long the opening waits for the server, in seconds"),
        Option("store", object, help="a torch.distributed.Store to use; instead of host, port and is_master"),
    ),
    capabilities=capabilities_with(_installed_torch()),
    diagnose="etha_kvstore_tcpstore.diagnose:diagnose",
)


@hookimpl
def kvstore_backend() -> BackendSpec:
    """Offer the TCPStore backend."""
    return SPEC
