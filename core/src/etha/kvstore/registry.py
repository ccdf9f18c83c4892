"""Find, load and check backends, and open a store by the name of one.

pluggy's own entry point loader loads everything at once, lets one broken plugin abort the rest, and drops duplicate
names silently. This one loads the backend that was asked for and no other, each in a plugin manager of its own.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import importlib_metadata
import pluggy

from etha.kvstore import hookspecs
from etha.kvstore.base import KVStore
from etha.kvstore.errors import (
    BackendConflictError,
    BackendIncompatibleError,
    BackendLoadError,
    BackendNotFoundError,
    KVStoreError,
)
from etha.kvstore.hookspecs import CONTRACT_VERSION, GROUP, BackendSpec
from etha.kvstore.options import check_options

__all__ = [
    "InstalledBackend",
    "find_backend",
    "installed_backends",
    "load_object",
    "open_store",
    "register_backend",
    "unregister_backend",
]

log = logging.getLogger("etha.kvstore")

KNOWN_DISTRIBUTIONS = {name: f"etha-kvstore-{name}" for name in ("memory", "tcpstore", "etcd")}
"""What to install for the backends of this project; others are found by their entry points alone."""

_in_process: dict[str, BackendSpec] = {}


@dataclass(frozen=True)
class InstalledBackend:
    """One backend that a distribution claims to offer.

    Attributes
    ----------
    name : str
        The name of its entry point.
    distribution : str
        The distribution, or ``"(this process)"``.
    version : str
        The distribution's version.
    spec : BackendSpec or None
        What it says of itself, where it could be loaded.
    error : KVStoreError or None
        Why it could not.
    """

    name: str
    distribution: str
    version: str
    spec: BackendSpec | None = None
    error: KVStoreError | None = None


def installed_backends() -> list[InstalledBackend]:
    """List every backend that is installed or registered, the broken ones with the reason.

    Returns
    -------
    list of InstalledBackend
        Sorted by name. A broken plugin never hides another.

    Examples
    --------
    >>> [backend.name for backend in installed_backends() if backend.name == "memory"]
    ['memory']
    """
    found = [InstalledBackend(name, "(this process)", "", spec) for name, spec in _in_process.items()]
    for name, claims in _claims().items():
        for claim in claims:
            spec, error = None, None
            try:
                spec = _load(name, [claim])
            except KVStoreError as reason:
                error = reason
            if len(claims) > 1:
                error = _conflict(name, claims)
            found.append(InstalledBackend(name, claim.distribution, claim.version, spec, error))
    return sorted(found, key=lambda backend: (backend.name, backend.distribution))


def find_backend(name: str) -> BackendSpec:
    """Load the spec of the backend with a name.

    Parameters
    ----------
    name : str
        The backend's name, as a configuration gives it.

    Returns
    -------
    BackendSpec
        What the backend says of itself. Its store is not imported.

    Raises
    ------
    BackendNotFoundError
        If nothing installed has the name; the text says what to install.
    BackendConflictError
        If two distributions claim it.
    BackendLoadError
        If its plugin can't be imported or does not keep to the hook.
    BackendIncompatibleError
        If it was written for another version of the contract.

    Examples
    --------
    >>> find_backend("memory").name
    'memory'
    """
    if not isinstance(name, str):
        raise TypeError(f"a backend is chosen by name, a str, not {type(name).__name__}")
    return _in_process[name] if name in _in_process else _load(name, _claims().get(name, []))


def open_store(backend: str, *, namespace: str, component: str, **options: object) -> KVStore:
    """Open a store of the backend with a name.

    Parameters
    ----------
    backend : str
        The backend's name. It is never guessed, and nothing else is fallen back to: two ranks that guessed differently
        would wait for each other for ever.
    namespace, component : str
        As `KVStore`.
    **options
        The backend's own options, such as ``endpoints`` for etcd.

    Returns
    -------
    KVStore
        The open store.

    Raises
    ------
    BackendNotFoundError, BackendConflictError, BackendLoadError, BackendIncompatibleError
        As `find_backend`.
    ConfigError
        If an option is unknown to the backend or of the wrong type.
    StoreUnavailableError
        If its server could not be reached in time.

    Examples
    --------
    >>> with open_store("memory", namespace="job-42", component="trainer") as store:
    ...     store.exists("ready")
    False
    """
    spec = find_backend(backend)
    checked = check_options(spec, options)
    found = load_object(spec.store, spec.name) if isinstance(spec.store, str) else spec.store
    if not (isinstance(found, type) and issubclass(found, KVStore)):
        raise BackendLoadError(f"backend {spec.name!r} names {spec.store!r} as its store, which is no KVStore class")
    return cast("KVStore", cast("Any", found)(namespace, component, **checked))


def register_backend(spec: BackendSpec) -> None:
    """Register a backend in this process, for a test or a notebook.

    Parameters
    ----------
    spec : BackendSpec
        The backend. Its ``store`` may be the class itself.

    Raises
    ------
    BackendConflictError
        If the name is registered or installed already.
    BackendIncompatibleError
        If it was written for another version of the contract.

    Examples
    --------
    >>> from etha.kvstore.hookspecs import BackendSpec
    >>> register_backend(BackendSpec("mine", "my_module:MyStore", "an experiment", contract=1))
    >>> find_backend("mine").summary
    'an experiment'
    >>> unregister_backend("mine")
    """
    _check_contract(spec, "this process")
    if spec.name in _in_process:
        raise BackendConflictError(
            f"backend {spec.name!r} is registered in this process already; unregister_backend() first"
        )
    if spec.name in _claims():
        raise BackendConflictError(
            f"backend {spec.name!r} is installed: {_claims()[spec.name][0]}; choose another name"
        )
    _in_process[spec.name] = spec


def unregister_backend(name: str) -> None:
    """Take back `register_backend`.

    Parameters
    ----------
    name : str
        The backend's name.

    Raises
    ------
    BackendNotFoundError
        If it is not registered in this process.

    Examples
    --------
    >>> unregister_backend("never-registered")
    Traceback (most recent call last):
    etha.kvstore.errors.BackendNotFoundError: ...
    """
    if _in_process.pop(name, None) is None:
        raise BackendNotFoundError(f"backend {name!r} is not registered in this process")


def load_object(path: str, backend: str) -> Any:
    """Import what a spec names as ``"package.module:name"``.

    Parameters
    ----------
    path : str
        Where it is.
    backend : str
        The backend it belongs to, for the error.

    Returns
    -------
    object
        What is there.

    Raises
    ------
    BackendLoadError
        If it can't be imported, with the cause.

    Examples
    --------
    >>> load_object("etha.kvstore.base:KVStore", "any").__name__
    'KVStore'
    """
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # a plugin's module may do anything when it is imported
        raise BackendLoadError(
            f"backend {backend!r} is installed, but {path!r} can't be imported: {type(error).__name__}: {error}"
        ) from error


UNNAMED = "a distribution with damaged metadata"
"""What stands for the name of one that can't say it."""


class _Claim(NamedTuple):
    """One distribution's claim to a backend's name.

    What the distribution is called is read when somebody wants to know it: to parse its metadata takes longer than all
    else that opening a store does.
    """

    point: importlib_metadata.EntryPoint
    origin: Any

    @property
    def distribution(self) -> str:
        return _fact(self.origin, "name") or UNNAMED

    @property
    def version(self) -> str:
        return _fact(self.origin, "version")

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@lru_cache(maxsize=1)
def _claims() -> dict[str, list[_Claim]]:
    """Find the entry points of all backends, by name.

    Cached: searching all installed distributions takes milliseconds, and they don't change while a job runs.
    """
    found: dict[str, list[_Claim]] = {}
    for distribution in importlib_metadata.distributions(path=_searched()):
        try:
            if GROUP in (distribution.read_text("entry_points.txt") or ""):  # parsing is slow, and most have none
                for point in distribution.entry_points.select(group=GROUP):
                    found.setdefault(point.name, []).append(_Claim(point, distribution))
        except Exception as error:  # noqa: BLE001 (damaged metadata fail with anything)
            log.warning("a distribution with damaged metadata is left aside: %s: %s", type(error).__name__, error)
    return {name: claims if len(claims) == 1 else _distinct(claims) for name, claims in found.items()}


def _searched() -> list[str]:
    """Give the places where modules are looked for, without archives that are not there.

    Python puts the name of one into every path, and to find that it is none takes importlib-metadata milliseconds.
    """
    return [entry for entry in sys.path if not str(entry).endswith(".zip") or Path(entry).exists()]


def _distinct(claims: list[_Claim]) -> list[_Claim]:
    """Count a distribution that is seen twice once, and one that can't say its name not at all."""
    named: dict[str, _Claim] = {}
    for claim in claims:
        if name := _fact(claim.origin, "name"):
            named.setdefault(_normal(name), claim)
    return list(named.values())


def _fact(distribution: Any, fact: str) -> str:
    """Read the name or the version of a distribution; empty where its metadata are damaged."""
    try:
        return getattr(distribution, fact) or ""
    except Exception as error:  # noqa: BLE001 (damaged metadata fail with anything)
        log.warning("a distribution's metadata are damaged: %s: %s", type(error).__name__, error)
        return ""


def _load(name: str, claims: list[_Claim]) -> BackendSpec:
    """Load the one plugin that offers a name."""
    if not claims:
        raise _not_found(name)
    if len(claims) > 1:
        raise _conflict(name, claims)
    claim, point = claims[0], claims[0].point
    try:
        plugin = point.load()
    except (Exception, SystemExit) as error:  # a plugin's module may do anything when it is imported
        raise BackendLoadError(
            f"backend {name!r} of {claim} is installed, but its plugin {point.value!r} can't be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    spec = _ask(plugin, point.value, name, claim)
    _check_contract(spec, claim)
    if spec.name != name:
        raise BackendLoadError(f"{claim} calls its entry point {name!r} but its backend {spec.name!r}; they must agree")
    return spec


def _ask(plugin: object, module: str, name: str, origin: _Claim) -> BackendSpec:
    """Call the hook of one plugin, in a plugin manager of its own."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        if isinstance(plugin, ModuleType):
            manager.register(plugin)
        manager.check_pending()
        specs = manager.hook.kvstore_backend()
    except Exception as error:  # pluggy's refusal of a misspelt hook, or whatever the plugin's own code does
        raise BackendLoadError(
            f"backend {name!r} of {origin} is installed, but its plugin does not keep to the hook: {error}"
        ) from error
    if len(specs) != 1 or not isinstance(specs[0], BackendSpec):
        raise BackendLoadError(
            f"backend {name!r} of {origin} is installed, but {module} has no function kvstore_backend, marked "
            "with etha.kvstore.hookspecs.hookimpl, that returns a BackendSpec"
        )
    return specs[0]


def _check_contract(spec: BackendSpec, origin: _Claim | str) -> None:
    if spec.contract != CONTRACT_VERSION:
        raise BackendIncompatibleError(
            f"backend {spec.name!r} of {origin} was written for version {spec.contract} of the store contract, and "
            f"this etha-kvstore keeps version {CONTRACT_VERSION}; install versions of the two that agree"
        )


def _not_found(name: str) -> BackendNotFoundError:
    if name in KNOWN_DISTRIBUTIONS:
        return BackendNotFoundError(
            f"Backend {name!r} is not installed. Install it with: pip install {KNOWN_DISTRIBUTIONS[name]}"
        )
    import difflib  # here, since hardly any program gets to it

    installed = sorted({*_claims(), *_in_process})
    near = difflib.get_close_matches(name, [*installed, *KNOWN_DISTRIBUTIONS], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return BackendNotFoundError(
        f"No installed distribution offers a backend {name!r}; installed: {', '.join(installed) or 'none'}.{hint} "
        f"This project's own are {', '.join(f'{n} (pip install {d})' for n, d in KNOWN_DISTRIBUTIONS.items())}."
    )


def _conflict(name: str, claims: list[_Claim]) -> BackendConflictError:
    return BackendConflictError(
        f"backend {name!r} is claimed by {' and by '.join(map(str, claims))}; uninstall or rename one"
    )


def _normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")
