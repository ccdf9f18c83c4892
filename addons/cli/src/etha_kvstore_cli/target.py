"""Which store a command speaks to: what its options say, or the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from etha.kvstore import KVStore, open_store
from etha.kvstore.config import ENVIRONMENT_VARIABLE, Configuration, read_config
from etha.kvstore.errors import ConfigError
from etha.kvstore.registry import find_backend
from etha_kvstore_cli.apart import closing

__all__ = ["NONE_NAMED", "Target", "UsageError", "choose_target"]

EXAMPLE = "etcd://127.0.0.1:2379/job-42/trainer"

ONE_PROCESS = "memory"
"""The backend whose keys no other process sees."""


class UsageError(Exception):
    """The options of a command contradict each other, or something is missing among them."""


@dataclass(frozen=True)
class Target:
    """One store, as the options of a command name it. Nothing is read or opened before it is asked for, or read twice.

    Parameters
    ----------
    source : mapping, str or path, optional
        As `etha.kvstore.open_store_from_config` takes it; without it, the URL in ``ETHA_KVSTORE_URL``.
    component : str, optional
        Another component than the source's.
    """

    source: Mapping[str, Any] | str | Path | None = field(default=None, repr=False)
    component: str | None = None

    def settings(self) -> Configuration:
        """Read the configuration.

        Returns
        -------
        Configuration
            Backend, namespace, component and options.

        Raises
        ------
        ConfigError
            If it can't be read, or is incomplete.
        """
        return self._settings

    @cached_property
    def _settings(self) -> Configuration:
        return read_config(self.source, **({} if self.component is None else {"component": self.component}))

    def open(self, patience: float | None = None) -> KVStore:
        """Open the store.

        Parameters
        ----------
        patience : float, optional
            For how many seconds to wait for a server that is not up, where the configuration does not say and the
            backend can be told.

        Returns
        -------
        KVStore
            The open store, which the caller closes.

        Raises
        ------
        KVStoreError
            As `etha.kvstore.open_store_from_config`.
        """
        settings = self.settings()
        known = {option.name: option for option in find_backend(settings.backend).options}
        options = dict(settings.options)
        for name, value in options.items():
            if name in known and known[name].type is object and isinstance(value, str):
                raise ConfigError(
                    f"option {name!r} of backend {settings.backend!r} is a Python object, which no text can stand for"
                )
        if patience is not None and "connect_timeout" in known:
            options.setdefault("connect_timeout", patience)
        return open_store(settings.backend, namespace=settings.namespace, component=settings.component, **options)

    @contextmanager
    def opened(self, patience: float | None = None) -> Iterator[KVStore]:
        """Open the store for a block, and leave what the block writes to it.

        Parameters
        ----------
        patience : float, optional
            As `open`.

        Raises
        ------
        UsageError
            If no other process could see the store's keys, or write any for this one to see.
        KVStoreError
            As `open`.
        """
        if self.settings().backend == ONE_PROCESS:
            raise UsageError(
                f"backend {ONE_PROCESS!r} keeps its keys in the memory of one process, so a command sees none of "
                "another's and leaves none behind; use a backend that has a server, such as etcd or tcpstore"
            )
        with closing(self.open(patience)) as store:
            yield store


NONE_NAMED = (
    f"which store? Give --url, --config, or --backend with --namespace and --component; or set {ENVIRONMENT_VARIABLE} "
    f"to a URL such as {EXAMPLE}"
)


def choose_target(
    configuration: Path | None,
    url: str | None,
    backend: str | None,
    namespace: str | None,
    component: str | None,
    options: Sequence[str],
) -> Target | None:
    """Make a target of a command's options, and refuse those that contradict each other.

    Parameters
    ----------
    configuration, url, backend, namespace, component, options
        What was given for ``--config``, ``--url``, ``--backend``, ``--namespace``, ``--component`` and each ``-o``.

    Returns
    -------
    Target or None
        The store that they name, or the environment does; `None` where neither names one.

    Raises
    ------
    UsageError
        If they name more than one, or half of one.
    """
    sources = {"--config": configuration, "--url": url, "--backend": backend}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other: each says which store; give one of them")
    if backend is not None:
        if namespace is None or component is None:
            raise UsageError("--backend goes with --namespace and --component: give all three")
        return Target({"backend": backend, "namespace": namespace, "component": component, "options": _parsed(options)})
    for name, value in {"--namespace": namespace, "-o": options}.items():
        if value:
            said = given[0] if given else f"the URL in {ENVIRONMENT_VARIABLE}"
            raise UsageError(f"{name} goes with --backend; {said} says that itself")
    if url is not None and "://" not in url:
        raise UsageError(f"--url is a URL, such as {EXAMPLE}; a file is given by --config")
    if not given and not os.environ.get(ENVIRONMENT_VARIABLE):
        return None
    return Target(configuration or url, component)


def _parsed(options: Sequence[str]) -> dict[str, str]:
    """Take ``option=value`` apart. What has no ``=`` is not shown: it may be a secret that lost its name."""
    parsed: dict[str, str] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError("-o takes option=value, and one of them is not of that form")
        if name in parsed:
            raise UsageError(f"-o gives the option {name!r} twice")
        parsed[name] = value
    return parsed
