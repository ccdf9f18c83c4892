"""What is found in the process that the doctor starts, on its way to the doctor: one JSON document a line.

``step`` says what is about to be done, ``level`` and ``message`` what was found, ``exit_code`` what the doctor is to
end with, and ``done`` comes last, unless the process is ended before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from etha.kvstore.errors import (
    AuthenticationError,
    BackendConflictError,
    BackendIncompatibleError,
    BackendLoadError,
    BackendNotFoundError,
    ConfigError,
    KVStoreError,
    StoreFullError,
)
from etha.kvstore.hookspecs import BackendSpec

__all__ = ["LEVELS", "Report"]

LEVELS = ("good", "doubtful", "bad")

SHORTEST_SECRET = 4
"""Characters: a shorter secret is in every text by accident, and taking it out would tell what it is."""

CURES: tuple[tuple[type[Exception], str], ...] = (
    (ConfigError, "correct the configuration"),
    (ValueError, "correct the value that it names"),
    (BackendNotFoundError, "correct the name, or install the distribution that offers it"),
    (BackendConflictError, "uninstall all of them but one"),
    (BackendIncompatibleError, "upgrade the older one"),
    (BackendLoadError, "install that distribution again, or a version that fits the rest, or uninstall it"),
    (AuthenticationError, "correct the certificates or the login, or have the right granted to the user"),
    (StoreFullError, "make space on the server"),
    (KVStoreError, "see what is said of the server and its address"),
    (Exception, "report it to who makes that backend"),
)
"""What to do about an error: the first that fits."""


class Report:
    """What is found.

    Parameters
    ----------
    stream : file
        Where it is written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._secrets: list[str] = []

    def keep_secret(self, spec: BackendSpec, options: Mapping[str, object]) -> None:
        """Never show the values of the options that the backend calls secret, unless they are too short to be told.

        A path is shown, since it is no secret itself, and whoever looks for a file that can't be read has to see it.
        """
        secret = {option.name for option in spec.options if option.secret}
        values = (str(value) for name, value in options.items() if name in secret)
        self._secrets += [value for value in values if len(value) >= SHORTEST_SECRET and not _is_path(value)]

    def step(self, doing: str) -> None:
        """Say what is about to be done."""
        self._send({"step": doing})

    def found(self, level: str, message: str) -> None:
        """Say what was found. A secret that a stranger's code put into it is taken out."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        self._send({"level": level, "message": message})

    def failed(self, what: str, error: Exception, *, cure: str = "") -> None:
        """Say what an error kept from being done, and what to do about it, where `CURES` knows nothing better."""
        cure = cure or next(cure for kind, cure in CURES if isinstance(error, kind))
        told = str(error) if isinstance(error, KVStoreError) else f"{type(error).__name__}: {error}"
        self.found("bad", f"{what}: {told} -> {cure}")

    def end_with(self, code: int) -> None:
        """Say what the doctor is to end with, whatever else is found."""
        self._send({"exit_code": code})

    def done(self) -> None:
        """Say that everything was done."""
        self._send({"done": True})

    def _send(self, document: Mapping[str, object]) -> None:
        self._stream.write(json.dumps(document) + "\n")
        self._stream.flush()


def _is_path(value: str) -> bool:
    """Tell whether a value begins with a folder of this machine; a secret that merely has slashes does not."""
    root, *parts = Path(value).parts or ("",)
    return root == os.sep and len(parts) > 1 and os.path.isdir(root + parts[0])  # noqa: PTH112 (which fails on a PEM)
