"""``etha-kv top``: a namespace at a glance, kept current until ``q`` or Ctrl-C."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from etha.kvstore import KVStore
from etha_kvstore_cli.apart import is_leaving, restoring
from etha_kvstore_cli.console import Output, can_draw, shown, text_of
from etha_kvstore_cli.failures import instead
from etha_kvstore_cli.mirror import Mirror, View, snapshot
from etha_kvstore_cli.show import clock, entries, key_table, runs
from etha_kvstore_cli.target import UsageError

__all__ = ["Readiness", "top"]

FRAME = 0.5
"""Seconds between two frames, and until a pressed key is noticed at the latest."""

ADVICE = "etha-kv get and etha-kv wait ask for keys by name"


class Readiness:
    """Which ranks have said that they are ready.

    Parameters
    ----------
    pattern : str
        The key by which one says so, such as ``rank:*/ready``; it holds ``1`` then.
    """

    def __init__(self, pattern: str) -> None:
        if pattern.count("*") != 1:
            raise UsageError(f"--ready is a pattern with one *, which stands for the rank, and not {pattern!r}")
        self._before, self._after = pattern.split("*")

    def sort(self, state: Mapping[str, bytes]) -> tuple[list[str], list[str]]:
        """Tell the ranks that are ready from the others of which there is any key.

        Parameters
        ----------
        state : mapping
            Keys and values.

        Returns
        -------
        tuple of list of str
            Those that are ready, and those that are not.
        """
        ranks: dict[str, bool] = {}
        for key in state:
            if key.startswith(self._before):
                rank = key[len(self._before) :].removesuffix(self._after).partition("/")[0]
                ranks[rank] = state.get(f"{self._before}{rank}{self._after}") == b"1"
        return [rank for rank, ready in ranks.items() if ready], [rank for rank, ready in ranks.items() if not ready]


def top(store: KVStore, output: Output, components: Sequence[str], readiness: Readiness, *, once: bool) -> None:
    """Draw the components of a namespace.

    Parameters
    ----------
    store : KVStore
        Where.
    output : Output
        Where it is drawn.
    components : sequence of str
        Which ones; the keys of no other are looked at.
    readiness : Readiness
        Who counts as ready.
    once : bool
        Draw one frame and return, as happens too where nobody looks at a terminal.
    """
    if once or output.json or not can_draw(sys.stdout):
        with instead(ADVICE):
            views = {component: View(snapshot(store, "*", component)) for component in components}
        if output.json:
            output.document(_document(store, views, readiness))
        else:
            output.draw(_frame(store, views, readiness, rows=None))
        return
    with instead(ADVICE):
        mirrors = {component: Mirror(store, "*", component) for component in components}
        for mirror in mirrors.values():
            mirror.start()
        live = Live(console=output.screen, screen=True, auto_refresh=False)
        with output.drawing(output.screen), restoring(live.stop), live, _keyboard() as pressed:
            while pressed() != "q" and not is_leaving():
                for mirror in mirrors.values():
                    if mirror.error is not None:
                        raise mirror.error
                views = {component: mirror.view() for component, mirror in mirrors.items()}
                live.update(_frame(store, views, readiness, rows=output.screen.height), refresh=True)


def _document(store: KVStore, views: Mapping[str, View], readiness: Readiness) -> dict[str, object]:
    drawn = {}
    for component, view in views.items():
        ready, waiting = readiness.sort(view.state)
        drawn[component] = {"keys": entries(view.state), "ready": sorted(ready), "not_ready": sorted(waiting)}
    return {"namespace": store.namespace, "components": drawn}


def _frame(store: KVStore, views: Mapping[str, View], readiness: Readiness, rows: int | None) -> Group:
    """Draw one frame, in so many rows where the screen has a limit."""
    names = ", ".join(views)
    total = sum(len(view.state) for view in views.values())
    header = f"{store.namespace}  {total:,} keys in {names}  {clock(time.time())}"
    drawn: list[RenderableType] = [_line(header + ("" if rows is None else "  (q leaves)"), "bold reverse")]
    changes = [(*view.last, component) for component, view in views.items() if view.last is not None]
    if changes:
        at, change, component = max(changes, key=itemgetter(0))
        event = "deleted" if change.value is None else f"= {text_of(change.value, 40)}"
        drawn.append(_line(f"last change  {clock(at)}  {component}  {change.key} {event}"))
    most = total if rows is None else (rows - 2) // max(len(views), 1) - 5
    for component, view in views.items():
        ready, waiting = readiness.sort(view.state)
        drawn += [Text(), _line(f"{component}{'  (the store does not answer)' if view.silent else ''}", "bold")]
        if ready or waiting:
            drawn.append(_line(f"ready    {len(ready):,} of {len(ready) + len(waiting):,}: {runs(ready) or 'none'}"))
        if waiting:  # on a line of its own, since the names of those that are ready may fill theirs
            drawn.append(_line(f"not yet  {len(waiting):,}: {runs(waiting)}"))
        drawn.append(key_table(view, most) if view.state else _line("no keys"))
    return Group(*drawn)


def _line(text: str, style: str = "") -> Text:
    return Text(shown(text), style=style, no_wrap=True, overflow="ellipsis")


@contextmanager
def _keyboard() -> Iterator[Callable[[], str]]:
    """Take keys as they are pressed, for a block; give a function that waits a moment for one."""
    keyboard = [sys.stdin.fileno()] if sys.stdin.isatty() else []

    def pressed() -> str:
        ready, _, _ = select.select(keyboard, [], [], FRAME)
        return os.read(ready[0], 1).decode(errors="replace") if ready else ""

    if not keyboard:
        yield pressed
        return
    (terminal,) = keyboard
    before = termios.tcgetattr(terminal)
    with restoring(lambda: termios.tcsetattr(terminal, termios.TCSADRAIN, before)):
        tty.setcbreak(terminal)
        yield pressed
