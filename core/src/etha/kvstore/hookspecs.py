"""What a plugin tells the core: the pluggy hook `kvstore_backend` and the `BackendSpec` that it returns.

A plugin's entry point (group ``etha.kvstore``) names a module that is light to import: it imports this module, not the
client library of its backend. Its whole content is usually one spec and one hook.

>>> from etha.kvstore.hookspecs import BackendSpec, Option, hookimpl
>>> SPEC = BackendSpec(
...     name="shelf",
...     store="etha_kvstore_shelf.store:ShelfStore",
...     summary="keys in a file, for the processes of one machine",
...     contract=1,
...     options=(Option("path", str, help="the file"),),
... )
>>> @hookimpl
... def kvstore_backend() -> BackendSpec:
...     return SPEC
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pluggy

__all__ = ["CAPABILITIES", "CONTRACT_VERSION", "GROUP", "BackendSpec", "Option", "hookimpl", "kvstore_backend"]

GROUP = "etha.kvstore"
"""The entry point group of backends, and the pluggy project name."""

CONTRACT_VERSION = 1
"""The version of the contract that this core keeps. A plugin written for another one is refused."""

CAPABILITIES: Mapping[str, str] = {
    "list_keys": "list_keys() works",
    "watch": "watch() works, and a wait also catches a condition that holds for a moment only",
    "waits_by_pattern": "wait_for_keys() needs no candidate_keys",
    "cleanup": "close(cleanup=True) deletes the keys that this store wrote",
    "outlives_server": "waits ride out a server that goes away, since its data outlive it",
}
"""Every capability that a spec can declare, and what it promises."""

_marker = pluggy.HookspecMarker(GROUP)
_Function = TypeVar("_Function")


def hookimpl(function: _Function) -> _Function:
    """Mark a plugin's function as an implementation of a hook of this project.

    Parameters
    ----------
    function : callable
        The implementation; its name is the hook's.

    Returns
    -------
    callable
        The same function, marked.

    Examples
    --------
    >>> @hookimpl
    ... def kvstore_backend():
    ...     return SPEC
    """
    return cast("_Function", pluggy.HookimplMarker(GROUP)(cast("Any", function)))


@dataclass(frozen=True)
class Option:
    """One option of a backend: a keyword of its store class.

    Parameters
    ----------
    name : str
        The keyword.
    type : type
        `str`, `int`, `float`, `bool`, `list` (of `str`), or `object` for what only Python code can pass.
    default : object
        What holds where the option is not given; for the reader, since the store class has the same default.
    help : str
        One line: what it means, and in which unit.
    secret : bool
        Whether its value must never be shown.
    required : bool
        Whether a store can't be opened without it; the store class then gives the keyword no default.

    Examples
    --------
    >>> Option("timeout", float, default=10.0, help="seconds a call may take").name
    'timeout'
    """

    name: str
    type: type
    default: object = None
    help: str = ""
    secret: bool = False
    required: bool = False

    def __post_init__(self) -> None:
        if self.type not in (str, int, float, bool, list, object):
            raise TypeError(
                f"option {self.name!r} has the type {self.type!r}; use str, int, float, bool, list or object"
            )


@dataclass(frozen=True)
class BackendSpec:
    """What a backend is, as far as it can be told without importing it.

    Parameters
    ----------
    name : str
        The name by which configurations choose it; equal to the entry point's.
    store : str or type
        The store class, as ``"package.module:Class"``, imported when a store is opened and not before. A class
        itself serves where the backend is registered in-process.
    summary : str
        One line for a reader who chooses a backend.
    contract : int
        The version of the contract that it was written for. Write the number; `CONTRACT_VERSION` would always fit.
    options : tuple of Option
        Every option of the store class.
    capabilities : frozenset of str
        Names out of `CAPABILITIES`. What is not declared must raise `UnsupportedOperationError`.
    diagnose : str, optional
        A function, as ``"package.module:function"``, that knows what only this backend can know. It takes the
        options as a mapping and returns an iterable of ``(level, message)``, ``level`` being ``"good"``,
        ``"doubtful"`` or ``"bad"``, which is what does not work now. A message that is not good says after ``" -> "``
        what to do next.

    Raises
    ------
    ValueError
        If a capability is not one of `CAPABILITIES`.

    Examples
    --------
    >>> BackendSpec("shelf", "etha_kvstore_shelf.store:ShelfStore", "keys in a file", contract=1).capabilities
    frozenset()
    """

    name: str
    store: str | type
    summary: str
    contract: int
    options: tuple[Option, ...] = ()
    capabilities: frozenset[str] = field(default_factory=frozenset)
    diagnose: str | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(self.capabilities - CAPABILITIES.keys()):
            raise ValueError(f"backend {self.name!r} declares {unknown}; the capabilities are {sorted(CAPABILITIES)}")


@_marker
def kvstore_backend() -> BackendSpec:
    """Tell the core about one backend. Called whenever the backend is asked for.

    Returns
    -------
    BackendSpec
        The backend that this plugin offers.

    Examples
    --------
    >>> kvstore_backend().name
    'shelf'
    """
    raise NotImplementedError  # a specification: pluggy calls the plugins' implementations
