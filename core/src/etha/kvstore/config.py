"""Open a store from a configuration: a mapping, a TOML file, a URL, or the environment variable `ETHA_KVSTORE_URL`.

``${NAME}`` in any string of a configuration, but not of the keyword overrides, is the environment's, so that a
namespace such as ``job-${SLURM_JOB_ID}-${ATTEMPT}`` keeps a restarted attempt out of the last one's keys.
``$${NAME}`` is a literal ``${NAME}``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

from etha.kvstore.base import KVStore
from etha.kvstore.errors import ConfigError
from etha.kvstore.hookspecs import BackendSpec
from etha.kvstore.options import unknown_name
from etha.kvstore.registry import find_backend, open_store

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ENVIRONMENT_VARIABLE", "Configuration", "open_store_from_config", "read_config"]

ENVIRONMENT_VARIABLE = "ETHA_KVSTORE_URL"
"""Where `open_store_from_config` finds a URL that it is not given."""

_FIELDS = ("backend", "namespace", "component", "options")
_URL = re.compile(r"([A-Za-z][\w+.-]*)://([^/?#]*)(?:/+([^/?#@]+))?(?:/+([^/?#@]+))?/*(?:\?([^#@]*))?")
_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Configuration:
    """What a configuration comes to: its parts put together, and the environment's values in them.

    Attributes
    ----------
    backend, namespace, component : str
        As `etha.kvstore.open_store`.
    options : dict
        The options of the backend as they were given, not yet checked. There may be a password among them.
    """

    backend: str
    namespace: str
    component: str
    options: dict[str, object] = field(repr=False)


def open_store_from_config(
    source: Mapping[str, Any] | str | os.PathLike[str] | None = None, **overrides: object
) -> KVStore:
    """Open the store that a configuration describes.

    Parameters
    ----------
    source : mapping, str or path, optional
        A mapping with the keys ``backend``, ``namespace``, ``component`` and ``options``; a URL such as
        ``etcd://user:password@h1:2379,h2:2379/job-42/trainer?timeout=5``, its parts percent-encoded; or the path of a
        TOML file with a ``[kvstore]`` table of the same keys. Without it, the URL in `ETHA_KVSTORE_URL`.
    **overrides
        ``backend``, ``namespace``, ``component`` or options of the backend, which win over the source.

    Returns
    -------
    KVStore
        The open store.

    Raises
    ------
    ConfigError
        If the configuration is incomplete or contradicts itself, or an option is unknown or of the wrong type.
    BackendNotFoundError, BackendConflictError, BackendLoadError, BackendIncompatibleError
        As `etha.kvstore.registry.find_backend`.

    Examples
    --------
    >>> with open_store_from_config("memory:///job-42/trainer", component="inference") as store:
    ...     store.component
    'inference'
    """
    found = read_config(source, **overrides)
    return open_store(found.backend, namespace=found.namespace, component=found.component, **found.options)


def read_config(source: Mapping[str, Any] | str | os.PathLike[str] | None = None, **overrides: object) -> Configuration:
    """Read a configuration without opening the store, for a tool that wants to say something of it.

    Parameters
    ----------
    source, **overrides
        As `open_store_from_config`.

    Returns
    -------
    Configuration
        Backend, namespace, component and options.

    Raises
    ------
    ConfigError
        If the configuration is incomplete or contradicts itself.

    Examples
    --------
    >>> read_config("memory:///job-42/trainer", component="inference")
    Configuration(backend='memory', namespace='job-42', component='inference')
    """
    if source is None:
        source = os.environ.get(ENVIRONMENT_VARIABLE)
        if not source:
            raise ConfigError(
                f"no configuration was given and {ENVIRONMENT_VARIABLE} is not set; set it to a URL such as "
                "etcd://127.0.0.1:2379/job-42/trainer"
            )
        if "://" not in source:
            raise ConfigError(
                f"{ENVIRONMENT_VARIABLE} is not a URL; one looks like etcd://127.0.0.1:2379/job-42/trainer"
            )
        read, origin = _from_url(source), ENVIRONMENT_VARIABLE
    elif isinstance(source, Mapping):
        read, origin = _from_mapping(source), "the configuration"
    elif isinstance(source, str) and "://" in source:
        read, origin = _from_url(source), "the URL"
    elif isinstance(source, (str, os.PathLike)):
        read, origin = _from_toml(Path(source)), str(source)
    else:
        raise TypeError(f"a configuration is a mapping, a URL or a path, not {type(source).__name__}")

    options = cast("dict[str, object]", read.pop("options", {}))
    for name, value in overrides.items():
        (read if name in ("backend", "namespace", "component") else options)[name] = value
    for part in ("backend", "namespace", "component"):
        if part in options:
            raise ConfigError(f"{part!r} stands among the options in {origin}; it is a key of its own beside them")
        if part not in read:
            raise ConfigError(f"{origin} names no {part}")
        if not isinstance(read[part], str):
            raise ConfigError(f"{part!r} in {origin} is a str, not {type(read[part]).__name__}")
    return Configuration(**cast("dict[str, Any]", read), options=options)


def _from_mapping(source: Mapping[str, Any]) -> dict[str, object]:
    for name in source:
        if name not in _FIELDS:
            raise unknown_name(str(name), _FIELDS, "a store's configuration has no key")
    read = {name: _expanded(value) for name, value in source.items()}
    options = read.setdefault("options", {})
    if not isinstance(options, dict):
        raise ConfigError(f"'options' is a table of options, not {type(options).__name__}")
    return read


def _from_toml(path: Path) -> dict[str, object]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        invalid = ""
    except OSError as error:
        raise ConfigError(f"the configuration {path} can't be read: {error.strerror or error}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        invalid = str(error)
    if invalid:  # without the cause, which holds all of the file and with it its secrets
        raise ConfigError(f"the configuration {path} is not valid TOML: {invalid}")
    table = document.get("kvstore")
    if not isinstance(table, dict):
        raise ConfigError(f"{path} has no [kvstore] table")
    return _from_mapping(table)


def _from_url(url: str) -> dict[str, object]:
    """Take a URL apart. Its text is in no error, since it may hold a password; the standard library's show it."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigError("a store's URL is backend://[user:password@]hosts/namespace/component[?option=value]")
    backend, netloc, namespace, component, query = match.groups()
    read: dict[str, object] = {"backend": backend}
    for name, part in (("namespace", namespace), ("component", component)):
        if part:
            read[name] = _expanded(unquote(part))
    login, _, hosts = netloc.rpartition("@")
    given: list[tuple[str, object]] = []
    if login:
        user, colon, password = login.partition(":")
        given.append(("user", _expanded(unquote(user))))
        if colon:
            given.append(("password", _expanded(unquote(password))))
    if hosts:
        given += _hosts(_expanded(unquote(hosts)), find_backend(backend)).items()
    given += [(name, _expanded(value)) for name, value in parse_qsl(query or "", keep_blank_values=True)]
    options: dict[str, object] = {}
    for name, value in given:
        if name in options:
            raise ConfigError(f"the URL gives the option {name!r} twice")
        options[name] = value
    read["options"] = options
    return read


def _hosts(hosts: str, spec: BackendSpec) -> dict[str, object]:
    """Give the hosts of a URL to the options that a backend has for them: ``endpoints``, or ``host`` and ``port``."""
    known = {option.name for option in spec.options}
    if "endpoints" in known:
        return {"endpoints": hosts.split(",")}
    if "host" not in known:
        raise ConfigError(f"backend {spec.name!r} connects to no host; write {spec.name}:///namespace/component")
    if "," in hosts:
        raise ConfigError(f"backend {spec.name!r} connects to one host, and the URL names several")
    host, colon, port = hosts.rpartition(":")
    if not colon or hosts.endswith("]"):
        return {"host": hosts.strip("[]")}
    return {"host": host.strip("[]"), "port": port}


def _expanded(value: Any) -> Any:
    """Put the environment's values in the place of ``${NAME}``, in every string of a configuration."""
    if isinstance(value, str):
        return _VARIABLE.sub(_from_environment, value)
    if isinstance(value, Mapping):
        return {name: _expanded(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_expanded(inner) for inner in value]
    return value


def _from_environment(match: re.Match[str]) -> str:
    escaped, name = match.groups()
    if escaped:
        return match.group()[1:]
    if name not in os.environ:
        raise ConfigError(f"the configuration uses ${{{name}}}, and the environment variable {name} is not set")
    return os.environ[name]
