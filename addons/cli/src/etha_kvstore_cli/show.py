"""Keys and values in rows: as aligned lines, as a table that fits the screen, and as JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from etha_kvstore_cli.console import as_json, shown, text_of
from etha_kvstore_cli.mirror import View

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["clock", "columns", "entries", "key_table", "runs"]

LONGEST_VALUE = 200
"""Characters of a value that a table begins to draw; the screen's width cuts it further."""

RECENT = 5.0
"""Seconds for which a changed key stands out."""


def clock(at: float) -> str:
    """Write a moment as the local time of day, to the second."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def entries(state: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Make the JSON of keys and values, sorted."""
    return [{"key": key, **as_json(value)} for key, value in sorted(state.items())]


def columns(state: Mapping[str, bytes], *, aligned: bool) -> list[str]:
    """Write keys and values in lines: aligned for a person, with a tab between them for another program."""
    rows = [(shown(key), text_of(value)) for key, value in sorted(state.items())]
    if not aligned:
        return [f"{key}\t{value}" for key, value in rows]
    from rich.cells import cell_len

    width = max((cell_len(key) for key, _ in rows), default=0)
    return [f"{key}{' ' * (width - cell_len(key))}  {value}" for key, value in rows]


def key_table(view: View, most: int) -> Table:
    """Draw keys, their values and when they changed last.

    Parameters
    ----------
    view : View
        What there is.
    most : int
        How many rows fit on the screen. Where there are more keys, those that changed last are drawn.

    Returns
    -------
    rich.table.Table
        The table.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    table.add_column("key", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("value", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("changed", no_wrap=True, width=8)
    keys = sorted(view.state, key=_by_number)
    left_out = len(keys) - max(most, 1)
    if left_out > 0:
        keys = sorted(keys, key=lambda key: -view.changed.get(key, 0.0))[: max(most - 1, 1)]
    now = time.time()
    for key in keys:
        changed = view.changed.get(key)
        style = "bold" if changed is not None and now - changed < RECENT else ""
        when = "" if changed is None else clock(changed)
        table.add_row(Text(shown(key)), Text(text_of(view.state[key], LONGEST_VALUE)), when, style=style)
    if left_out > 0:
        table.add_row(Text(f"and {len(view.state) - len(keys):,} more"), "", "")
    return table


def _by_number(key: str) -> list[str | int]:
    """Have rank 2 stand before rank 10."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split("([0-9]+)", key))]


def runs(names: Sequence[str]) -> str:
    """Write names in short: whole numbers that follow one another as a range, the rest as they are.

    Parameters
    ----------
    names : sequence of str
        Such as ``["0", "1", "2", "5", "left"]``.

    Returns
    -------
    str
        Such as ``0..2 5 left``.
    """
    numbers = sorted({int(name) for name in names if name.isdecimal()})
    said = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        said.append(str(members[0]) if len(members) == 1 else f"{members[0]}..{members[-1]}")
    return " ".join([*said, *sorted(shown(name) for name in names if not name.isdecimal())])
