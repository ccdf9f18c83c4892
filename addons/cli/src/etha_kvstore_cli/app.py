"""The commands of ``etha-kv`` and their options."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from etha_kvstore_cli.console import Output, as_json, shown
from etha_kvstore_cli.failures import EXIT_CODES, NotFoundError, exit_code, instead
from etha_kvstore_cli.options import Invocation, with_store_options
from etha_kvstore_cli.plain import PlainCommand, PlainGroup
from etha_kvstore_cli.target import UsageError

__all__ = ["app", "run"]

app = typer.Typer(
    cls=PlainGroup,
    help="Look into a store of etha-kvstore, write to it, and wait on it.",
    epilog=EXIT_CODES,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

command = partial(app.command, cls=PlainCommand, epilog=EXIT_CODES)

Pattern = Annotated[
    str, typer.Argument(metavar="PATTERN", help="Keys; each * stands for any run of characters, / included.")
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.")]
Binary = Annotated[bool, typer.Option("--bytes", help="As set_bytes and get_bytes have it, which TCPStore encodes.")]


@command()
@with_store_options()
def get(invocation: Invocation, key: Key, binary: Binary = False) -> None:
    """Write a key's value to standard output.

    Its bytes and no more; on a terminal a line's end is added, and what is not printable is shown as an escape.
    """
    with invocation.target.opened() as store:
        value = store.get_bytes(key) if binary else store.get(key)
    if value is None:
        raise NotFoundError(f"there is no key {key!r} in {store.namespace}/{store.component}")
    _write_value(invocation.output, key, value, binary=binary)


@command("set")
@with_store_options()
def set_value(
    invocation: Invocation,
    key: Key,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="The text; - reads standard input.", show_default=False)
    ] = None,
    file: Annotated[str | None, typer.Option(metavar="FILE", help="Read the value from a file.")] = None,
    binary: Binary = False,
) -> None:
    """Write a value, and leave it there.

    A value that begins with a minus stands after two of them: etha-kv set offset -- -1
    """
    target, output = invocation.target, invocation.output
    data = _given(value, file, output, binary=binary)
    with target.opened() as store:
        if binary:
            store.set_bytes(key, data)
        else:
            store.set(key, data.decode())
    lease = target.settings().options.get("lease_ttl")
    lifetime = {} if lease is None else {"lease_ttl": int(str(lease))}
    if output.json:
        output.document({"key": key, "bytes": len(data), **lifetime})
    elif lifetime and sys.stderr.isatty():  # in the log of a job each rank would say the same
        output.note(f"the key goes in {lease} s, for lease_ttl ties it to this command, which has ended")


@command()
@with_store_options()
def rm(invocation: Invocation, key: Key) -> None:
    """Delete a key."""
    with invocation.target.opened() as store:
        deleted = store.delete(key)
    if not deleted:
        raise NotFoundError(f"there is no key {key!r} in {store.namespace}/{store.component}")
    if invocation.output.json:
        invocation.output.document({"key": key, "deleted": True})


@command()
@with_store_options()
def ls(
    invocation: Invocation,
    pattern: Pattern = "*",
    long: Annotated[bool, typer.Option("--long", "-l", help="With the values.")] = False,
) -> None:
    """List keys, one a line, sorted.

    What is not printable is shown as an escape; --json has it as it is.
    """
    from etha_kvstore_cli.mirror import snapshot
    from etha_kvstore_cli.show import columns, entries

    output = invocation.output
    with invocation.target.opened() as store, instead("etha-kv get and etha-kv wait ask for keys by name"):
        state = snapshot(store, pattern) if long else dict.fromkeys(store.list_keys(pattern), b"")
    if not state:
        raise NotFoundError(f"no key matches {pattern!r} in {store.namespace}/{store.component}")
    if output.json:
        output.document(entries(state) if long else sorted(state))
    else:
        output.lines(columns(state, aligned=sys.stdout.isatty()) if long else map(shown, sorted(state)))


@command()
@with_store_options()
def watch(
    invocation: Invocation,
    pattern: Pattern = "*",
    table: Annotated[bool, typer.Option("--table", help="A table that stays current, in place of lines.")] = False,
) -> None:
    """Show what is there, then every change, until Ctrl-C."""
    from etha_kvstore_cli.watching import watch_lines, watch_table

    with invocation.target.opened() as store:
        (watch_table if table else watch_lines)(store, invocation.output, pattern)


@command()
@with_store_options()
def wait(
    invocation: Invocation,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key; a pattern, where --count or --for is given.")],
    value: Annotated[
        str | None,
        typer.Option(help="The value to wait for; any, if not given, and 1 with a pattern.", show_default=False),
    ] = None,
    count: Annotated[str | None, typer.Option(metavar="N", help="How many keys are to match.")] = None,
    names: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="NAMES", help="What stands for the *, such as 0..63 or 0..3,8; all, without --count."
        ),
    ] = None,
    timeout: Annotated[
        str,
        typer.Option(metavar="SECONDS", help="When to give up; inf for never. A server may come up meanwhile."),
    ] = "3600",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Wait until a key exists or has a value, or until enough keys have it.

    Writes the value, or the keys, to standard output, and progress to standard error: a bar on a terminal, else a line
    at each change.
    """
    from etha_kvstore_cli.waiting import wait as wait_for
    from etha_kvstore_cli.wanted import Wanted, seconds_of

    wanted, limit = Wanted.of(key, value, count, names), seconds_of(timeout)
    output = invocation.output
    found = wait_for(invocation.target, output, wanted, limit, quiet=quiet)
    if isinstance(found, bytes):
        _write_value(output, key, found)
    elif output.json:
        output.document(found)
    else:
        output.lines(map(shown, found))


@command()
@with_store_options()
def top(
    invocation: Invocation,
    ready: Annotated[str, typer.Option(metavar="PATTERN", help="The key by which a rank says so.")] = "rank:*/ready",
    once: Annotated[bool, typer.Option("--once", help="Draw one frame and leave.")] = False,
) -> None:
    """Look at a namespace: keys, values, who is ready, what changed last.

    Shows the components that --component names, which may be repeated; else the one that is configured. q leaves.
    """
    from etha_kvstore_cli.top import Readiness
    from etha_kvstore_cli.top import top as draw

    readiness = Readiness(ready)
    with invocation.namespace.opened() as store:
        components = list(dict.fromkeys(invocation.components)) or [store.component]
        draw(store, invocation.output, components, readiness, once=once)


@command()
@with_store_options(apart=False)
def doctor(
    invocation: Invocation,
    read_only: Annotated[bool, typer.Option("--read-only", help="Write no key, not even for a moment.")] = False,
) -> int:
    """Find out what is wrong with a store: its plugin, its configuration, its server.

    Where no store is named, only the plugins are looked at.
    """
    from etha_kvstore_cli.doctor import run as examine

    target = None if invocation.named is None else invocation.target
    return examine(target, invocation.output.json, read_only=read_only)


@command()
@with_store_options(apart=False)
def backends(invocation: Invocation) -> int:
    """List the backends that are installed, and what is broken and why.

    The one of the store that is named, if one is, is marked. Exit code 1 where there is none, or one is broken.
    """
    from etha_kvstore_cli.backends import list_backends

    return list_backends(invocation.output, None if invocation.named is None else invocation.target)


def run(arguments: Sequence[str]) -> int:
    """Run one command, and say in a line what went wrong if something did.

    Parameters
    ----------
    arguments : sequence of str
        The command line without the name of the program.

    Returns
    -------
    int
        The exit code. Ctrl-C and a closed pipe are left to the caller.
    """
    group = typer.main.get_command(app)
    try:
        try:
            # Not typer's own main(), which has exit codes of its own for Ctrl-C and for a closed pipe.
            with group.make_context("etha-kv", list(arguments) or ["--help"]) as context:
                return int(group.invoke(context) or 0)
        except typer.Exit as leaving:
            return leaving.exit_code
        except typer.TyperException as error:
            raise UsageError(f"{error.format_message().removesuffix('.')}. --help says more.") from None
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever a backend raises, it must not look like an answer)
        Output(json="--json" in arguments).failure(error)
        return exit_code(error)


def _given(value: str | None, file: str | None, output: Output, *, binary: bool) -> bytes:
    """Read the value that is to be written, and refuse what is not text unless it is to be binary."""
    if (value is None) == (file is None):
        raise UsageError("give one of VALUE, --file FILE, and - for standard input")
    if file is not None:
        try:
            data, origin = Path(file).read_bytes(), file
        except OSError as error:
            raise UsageError(f"{file} can't be read: {error.strerror or error}") from error
    elif value == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed, so there is no value to read")
        data, origin = sys.stdin.buffer.read(), "standard input"
    else:
        data, origin = os.fsencode(value or ""), "VALUE"
    if binary:
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{origin} is not text in UTF-8; with --bytes it is stored as binary data") from None
    if data.endswith(b"\n") and data.count(b"\n") == 1 and origin != "VALUE":
        output.note("the value ends with a newline, which is part of it; printf '%s' writes none")
    return data


def _write_value(output: Output, key: str, value: bytes, *, binary: bool = False) -> None:
    if output.json:
        output.document({"key": key, **as_json(value, binary=binary)})
    else:
        output.value(value)
