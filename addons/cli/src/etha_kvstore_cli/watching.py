"""``etha-kv watch``: every change as a line, or the present state as a table that stays current."""

from __future__ import annotations

import sys
from datetime import datetime

from etha.kvstore import KVStore
from etha.kvstore.errors import WaitTimeoutError
from etha_kvstore_cli.apart import restoring
from etha_kvstore_cli.console import Output, as_json, can_draw, shown, text_of
from etha_kvstore_cli.failures import instead
from etha_kvstore_cli.mirror import TICK, Mirror
from etha_kvstore_cli.target import UsageError

__all__ = ["watch_lines", "watch_table"]

ADVICE = "etha-kv top looks once a second, and etha-kv wait waits, without it"


def watch_lines(store: KVStore, output: Output, pattern: str) -> None:
    """Write what is there, then every change, until the command is ended.

    Parameters
    ----------
    store : KVStore
        Where.
    output : Output
        Where the lines go.
    pattern : str
        Which keys.
    """
    with instead(ADVICE), store.watch(pattern) as watch:
        for key, value in sorted(watch.state.items()):
            _write(output, "is", key, value)
        silent = False
        while True:
            try:
                change = watch.next(TICK)
            except WaitTimeoutError as nothing:
                if silent != (nothing.__cause__ is not None):
                    silent = not silent
                    output.note("the store does not answer" if silent else "the store answers again")
            else:
                _write(output, "deleted" if change.value is None else "set", change.key, change.value)


def watch_table(store: KVStore, output: Output, pattern: str) -> None:
    """Draw what is there, until the command is ended.

    Parameters
    ----------
    store : KVStore
        Where.
    output : Output
        Where it is drawn.
    pattern : str
        Which keys.
    """
    from rich.console import Group
    from rich.live import Live

    from etha_kvstore_cli.show import key_table

    if output.json or not can_draw(sys.stdout):
        raise UsageError("--table is for a terminal, and goes without --json; leave it out, and each change is a line")
    with instead(ADVICE):
        store.watch(pattern)  # not entered: only to see whether there is one
    mirror = Mirror(store, pattern)
    mirror.start()
    live = Live(console=output.screen, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    with output.drawing(output.screen), restoring(live.stop), live:
        while mirror.is_alive():
            mirror.moved.wait(1.0)
            mirror.moved.clear()
            view = mirror.view()
            table = key_table(view, output.screen.height - 2 - view.silent)
            live.update(Group(table, "the store does not answer") if view.silent else table, refresh=True)
    if mirror.error is not None:
        raise mirror.error


def _write(output: Output, event: str, key: str, value: bytes | None) -> None:
    now = datetime.now().astimezone()
    if output.json:
        facts = {} if value is None else as_json(value)
        output.document({"time": now.isoformat(timespec="milliseconds"), "event": event, "key": key, **facts})
    else:
        text = "" if value is None else f" = {text_of(value)}"
        output.lines([f"{now:%H:%M:%S}.{now.microsecond // 1000:03}  {event:7}  {shown(key)}{text}"])
