"""``etha-kv watch``: every change as a line, or the present state as a table that stays current."""

from __future__ import annotations

from datetime import datetime

from rich.live import Live

from etha.kvstore import KVStore
from etha_kvstore_cli.apart import restoring
from etha_kvstore_cli.console import Output, as_json, shown, text_of
from etha_kvstore_cli.failures import instead
from etha_kvstore_cli.mirror import Mirror
from etha_kvstore_cli.show import key_table
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
        for change in watch:
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
    if output.json or not output.screen.is_terminal:
        raise UsageError("--table is for a terminal, and goes without --json; leave it out, and each change is a line")
    with instead(ADVICE):
        store.watch(pattern)  # not entered: only to see whether there is one
    mirror = Mirror(store, pattern)
    mirror.start()
    live = Live(console=output.screen, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    with restoring(live.stop), live:
        while mirror.is_alive():
            mirror.moved.wait(1.0)
            mirror.moved.clear()
            live.update(key_table(mirror.view(), output.screen.height - 2), refresh=True)
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
