"""The classes of typer's commands, without the conversion of what is given: every option here is a text or a flag.

Typer converts by pydantic, the help's own flag included, and loading that takes longer than most commands do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

__all__ = ["PlainCommand", "PlainGroup"]


class _AsGiven:
    """Takes a text for what it is, whatever else typer tells of the option."""

    def coerce(self, value: Any, *_: object, **__: object) -> Any:
        return value


def _plain(parameters: Sequence[Any]) -> list[Any]:
    """Have parameters take what is given. One of a typer that keeps its conversion elsewhere goes on converting."""
    for parameter in parameters:
        parameter._runtime_param = _AsGiven()
    return list(parameters)


class PlainCommand(TyperCommand):
    """A command whose options are texts and flags."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]  # the context it subclasses
        """Give the options."""
        return _plain(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """The group of such commands."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]  # the context it subclasses
        """Give the options."""
        return _plain(super().get_params(ctx))
