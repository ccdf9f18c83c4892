"""The options that every command has: which store, and whether a machine reads the answer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from etha_kvstore_cli.apart import run_apart
from etha_kvstore_cli.console import Output, Warnings
from etha_kvstore_cli.target import NONE_NAMED, Target, UsageError, choose_target

__all__ = ["Invocation", "with_store_options"]

_Command = Callable[..., "int | None"]

logger = logging.getLogger("etha.kvstore")

WHICH = "Which store (or the URL in ETHA_KVSTORE_URL)"


class Invocation(NamedTuple):
    """What the options that are common to all commands come to.

    Attributes
    ----------
    named : Target or None
        The store that they name, if they name one.
    output : Output
        Where the command writes.
    components : list of str
        What was given for ``--component``.
    """

    named: Target | None
    output: Output
    components: list[str]

    @property
    def namespace(self) -> Target:
        """The store, for a command that looks at several components."""
        if self.named is None:
            raise UsageError(NONE_NAMED)
        return self.named

    @property
    def target(self) -> Target:
        """The store, for a command that speaks of one component."""
        if len(self.components) > 1:
            raise UsageError("--component was given twice; only top takes several")
        return self.namespace


def _common(
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="A TOML file with a table kvstore.", rich_help_panel=WHICH)
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Such as etcd://127.0.0.1:2379/job-42/trainer.", rich_help_panel=WHICH),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="The backend's name; etha-kv backends lists them.", rich_help_panel=WHICH),
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="With --backend.", rich_help_panel=WHICH)] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(help="With --backend; or another one than the file or the URL says.", rich_help_panel=WHICH),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            metavar="OPTION=VALUE",
            help="With --backend: one of its options. May be repeated.",
            rich_help_panel=WHICH,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, one document a line.")] = False,
) -> Invocation:
    """Make sense of the common options."""
    components = list(component or ())
    file = None if config is None else Path(config)
    named = choose_target(file, url, backend, namespace, components[0] if components else None, option or ())
    return Invocation(named, Output(json=json), components)


def with_store_options(*, apart: bool = True) -> Callable[[_Command], _Command]:
    """Make a decorator that gives a command the common options.

    Parameters
    ----------
    apart : bool
        Run the command where no signal interrupts it half-way, as one must that opens a store in this process.

    Returns
    -------
    callable
        The decorator. The first parameter of what it decorates is an `Invocation`; the others are what is peculiar to
        the command.
    """

    def decorate(function: _Command) -> _Command:
        # Not by get_type_hints, which in Python 3.10 wraps what defaults to None once more, and typer loses the option.
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        common = list(inspect.signature(_common, eval_str=True).parameters.values())
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *common]]

        def command(**given: Any) -> int | None:
            invocation = _common(**{parameter.name: given.pop(parameter.name) for parameter in common})
            warnings = Warnings(invocation.output)
            logger.addHandler(warnings)
            try:
                run = partial(function, invocation, **given)
                return run_apart(run) if apart else run()
            finally:
                logger.removeHandler(warnings)

        command.__name__ = function.__name__
        command.__doc__ = function.__doc__
        # What typer reads: the options of the one and of the other in one signature.
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate
