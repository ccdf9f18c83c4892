"""Directives that write a page's tables from the code: the backends' specs and the errors' docstrings.

``backend-table`` compares the backends of this project, ``backend-options`` lists the options of one, and
``error-table`` says of each error what it is caught as, its cause, and what to do.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from etha.kvstore import errors
from etha.kvstore.errors import KVStoreError
from etha.kvstore.hookspecs import CAPABILITIES
from etha.kvstore.registry import KNOWN_DISTRIBUTIONS, find_backend

CURE = "What to do: "
"""How the paragraph of an error's docstring begins that says so."""


def table(*rows: Iterable[str]) -> str:
    """Write a table in Markdown; its first row is the head."""
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return "\n".join([head, "| --- " * len(list(rows[0])) + "|", *body])


def backend_table() -> str:
    """Compare the backends of this project by what their specs declare."""
    specs = [find_backend(name) for name in KNOWN_DISTRIBUTIONS]
    rows = [
        ["", *(f"`{spec.name}`" for spec in specs)],
        ["holds", *(spec.summary for spec in specs)],
        ["install", *(f"`pip install {distribution}`" for distribution in KNOWN_DISTRIBUTIONS.values())],
    ]
    for capability, promise in CAPABILITIES.items():
        rows.append([promise, *("yes" if capability in spec.capabilities else "no" for spec in specs)])
    return table(*rows)


def options_table(backend: str) -> str:
    """List the options of a backend."""
    rows = [["option", "type", "default", "meaning"]]
    for option in find_backend(backend).options:
        kind = "from Python only" if option.type is object else f"`{option.type.__name__}`"
        default = "required" if option.required else "" if option.default is None else f"`{option.default}`"
        rows.append([f"`{option.name}`", kind, default, option.help + ("; never shown" if option.secret else "")])
    return table(*rows)


def cause_and_cure(error: type[KVStoreError]) -> tuple[str, str]:
    """Read from an error's docstring what it means, and what to do about it.

    Raises
    ------
    LookupError
        If the docstring does not say what to do.
    """
    cause, *more = (" ".join(paragraph.split()) for paragraph in (inspect.getdoc(error) or "").split("\n\n"))
    for paragraph in more:
        if paragraph.startswith(CURE):
            cure = paragraph[len(CURE) :]
            return cause, cure[:1].upper() + cure[1:]
    raise LookupError(f"the docstring of {error.__name__} has no paragraph that begins with {CURE!r}")


def error_table() -> str:
    """Say of each error what it is caught as, its cause, and what to do."""
    rows: list[list[str]] = [["error", "is also", "cause", "what to do"]]
    for error in vars(errors).values():
        if inspect.isclass(error) and issubclass(error, KVStoreError) and error is not KVStoreError:
            builtins = [f"`{base.__name__}`" for base in error.__bases__ if base is not KVStoreError]
            rows.append([f"`{error.__name__}`", ", ".join(builtins), *cause_and_cure(error)])
    return table(*rows)


class BackendTable(SphinxDirective):
    """Stands for what `backend_table` writes."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(backend_table())


class BackendOptions(SphinxDirective):
    """Stands for what `options_table` writes of the backend that is named."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(options_table(self.arguments[0]))


class ErrorTable(SphinxDirective):
    """Stands for what `error_table` writes."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(error_table())


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx know the directives."""
    app.add_directive("backend-table", BackendTable)
    app.add_directive("backend-options", BackendOptions)
    app.add_directive("error-table", ErrorTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
