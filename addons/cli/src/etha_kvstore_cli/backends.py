"""``etha-kv backends``: what is installed, from where, what it can do; what is broken, and why."""

from __future__ import annotations

from importlib.machinery import PathFinder

import importlib_metadata
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from etha.kvstore.errors import KVStoreError
from etha.kvstore.hookspecs import CAPABILITIES, BackendSpec, Option
from etha.kvstore.registry import InstalledBackend, find_backend, installed_backends
from etha_kvstore_cli.console import Output, shown
from etha_kvstore_cli.failures import NOT_FOUND, NotFoundError
from etha_kvstore_cli.target import Target

__all__ = ["list_backends"]


def list_backends(output: Output, target: Target | None) -> int:
    """Write what is installed.

    Parameters
    ----------
    output : Output
        Where.
    target : Target, optional
        The store that the command was given, whose backend is marked.

    Returns
    -------
    int
        The exit code: 1 where there is none, or one is broken.

    Raises
    ------
    KVStoreError
        If the store's configuration can't be read, or its backend is not there or is broken; all is written before.
    """
    backends = installed_backends()
    chosen, trouble = None, None
    if target is not None:
        try:
            chosen = find_backend(target.settings().backend).name
        except KVStoreError as error:
            trouble = error
    if output.json:
        output.document([_document(backend, chosen) for backend in backends])
    else:
        for backend in backends:
            _draw(output, backend, chosen)
    if trouble is not None:
        raise trouble
    if not backends:
        raise NotFoundError("no backends are installed; etha-kvstore-etcd and etha-kvstore-tcpstore have one each")
    return NOT_FOUND if any(backend.error for backend in backends) else 0


def _document(backend: InstalledBackend, chosen: str | None) -> dict[str, object]:
    facts: dict[str, object] = {
        "name": backend.name,
        "chosen": backend.name == chosen,
        "distribution": backend.distribution,
        "version": backend.version,
        "path": _path(backend),
        "error": None if backend.error is None else str(backend.error),
    }
    if backend.spec is not None:
        facts |= {
            "summary": backend.spec.summary,
            "contract": backend.spec.contract,
            "capabilities": sorted(backend.spec.capabilities),
            "options": [
                {
                    "name": option.name,
                    "type": option.type.__name__,
                    "default": option.default,
                    "required": option.required,
                    "help": option.help,
                    "secret": option.secret,
                }
                for option in backend.spec.options
            ],
        }
    return facts


def _draw(output: Output, backend: InstalledBackend, chosen: str | None) -> None:
    heading = Text(shown(backend.name), style="bold")
    heading.append(f"  {shown(backend.distribution)} {shown(backend.version)}", style="not bold")
    if backend.name == chosen:
        heading.append("  chosen", style="not bold")
    output.screen.print(heading, soft_wrap=True)
    told = Table.grid(padding=(0, 2))
    told.add_column()
    told.add_column(overflow="fold")
    if backend.error is not None:
        told.add_row("broken", Text(shown(str(backend.error)), style="red"))
    if backend.spec is not None:
        told.add_row("what", Text(shown(backend.spec.summary)))
    told.add_row("where", Text(shown(_path(backend) or "not to be found")))
    if backend.spec is not None:
        told.add_row("can", ", ".join(sorted(backend.spec.capabilities)) or "the ten calls of the specification")
        lacks = sorted(CAPABILITIES.keys() - backend.spec.capabilities)
        told.add_row("can't", ", ".join(lacks) or "(nothing that others can)")
    output.screen.print(Padding(told, (0, 0, 0, 2)))
    if backend.spec is not None and backend.spec.options:
        output.screen.print(Padding(_options(backend.spec), (0, 0, 0, 2)))
    output.screen.print()


def _options(spec: BackendSpec) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("option", "type", "default", "meaning"):
        table.add_column(title, overflow="fold")
    for option in spec.options:
        table.add_row(Text(option.name), option.type.__name__, Text(_default(option)), Text(shown(option.help)))
    return table


def _default(option: Option) -> str:
    if option.required:
        return "required"
    return "" if option.default is None else str(option.default).lower()


def _path(backend: InstalledBackend) -> str | None:
    """Find the folder of a backend's package, without importing it; else that of its distribution's metadata."""
    if backend.spec is not None:
        store = backend.spec.store if isinstance(backend.spec.store, str) else backend.spec.store.__module__
        found = PathFinder.find_spec(store.partition(":")[0].partition(".")[0])
        if found is not None and found.submodule_search_locations:
            return str(next(iter(found.submodule_search_locations)))
    try:
        return str(importlib_metadata.distribution(backend.distribution).locate_file(""))
    except importlib_metadata.PackageNotFoundError:
        return None
