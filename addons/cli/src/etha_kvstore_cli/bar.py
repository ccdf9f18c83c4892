"""How far a wait has come, as a bar on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etha_kvstore_cli.apart import restoring
from etha_kvstore_cli.console import Output, shown
from etha_kvstore_cli.mirror import View
from etha_kvstore_cli.progress import Progress, span
from etha_kvstore_cli.wanted import Wanted

__all__ = ["Bar"]

SHORTEST_BAR = 10
"""Cells that a bar takes at the least beside what it is of; where there are fewer, that has a line of its own."""


class Bar(Progress):
    """A bar on the terminal."""

    def __init__(self, output: Output, wanted: Wanted, timeout: float) -> None:
        super().__init__(output, wanted, timeout)
        self._matched: int | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar until the block is left, and leave its last state on the screen."""
        live = Live(
            get_renderable=self._frame,
            console=self.output.aside,
            refresh_per_second=5,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with self.output.drawing(self.output.aside), restoring(live.stop), live:
            yield

    def done(self, found: bytes | list[str]) -> None:
        """Keep what the last frame is to show."""
        self._matched = 1 if isinstance(found, bytes) else len(found)

    def _frame(self) -> Group:
        view = View() if self._mirror is None else self._mirror.view()
        total = self.wanted.total
        matched = len(self.wanted.matched(view)) if self._matched is None else self._matched
        waited = monotonic() - self.began
        left = "" if math.isinf(self.timeout) else f"{span(max(0.0, self.timeout - waited))} left"
        if self._matched is not None:
            left = f"after {span(waited)}"
        value = "" if self.wanted.value is None else f" = {self.wanted.value}"
        name = Text(shown(self.wanted.key + value), no_wrap=True, overflow="ellipsis")
        figures = [Text(f"{matched} of {total}"), *([Text(left)] if left else [])]
        bar = ProgressBar(total=max(total, 1), completed=matched if total else 1)
        beside: list[Text | ProgressBar] = [name, bar, *figures]
        is_narrow = sum(each.cell_len + 2 for each in (name, *figures)) + SHORTEST_BAR > self.output.aside.width
        line = Table.grid(padding=(0, 2), expand=True)
        for each in beside[is_narrow:]:
            line.add_column(no_wrap=True, ratio=1 if each is bar else None)
        line.add_row(*beside[is_narrow:])
        below = [Text(shown(said), no_wrap=True, overflow="ellipsis") for said in self._below(view)]
        return Group(*beside[:is_narrow], line, *below)

    def _below(self, view: View) -> list[str]:
        if self._matched is not None:
            return []
        return ["connecting"] if self._mirror is None else self.absent(view, most=None)
