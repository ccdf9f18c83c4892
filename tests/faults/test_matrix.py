"""The fault matrix: each fault class against each operation on each backend, where the pair means something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from cells import TRIALS, Cell
from sites import Sites
from trials import run_trial


@pytest.fixture(scope="session")
def sites() -> Iterator[Sites]:
    with closing(Sites()) as sites:
        yield sites


def name(cells: tuple[Cell, ...]) -> str:
    """Name a trial after its cell, or its cells."""
    first = cells[0]
    return str(first) if len(cells) == 1 else f"{first.site}:{first.fault}:waits:{first.phase.value}"


@pytest.mark.parametrize(
    "cells",
    [pytest.param(cells, id=name(cells), marks=pytest.mark.xdist_group(f"faults-{cells[0].site}")) for cells in TRIALS],
)
def test_nothing_is_lost_nobody_left_waiting_and_every_call_ends_as_promised(
    cells: tuple[Cell, ...], sites: Sites, record_property: Callable[[str, object], None]
) -> None:
    with sites.lend(cells[0].site) as site:
        complaints = list(run_trial(site, cells))
        assert not complaints, "\n" + "\n".join(complaints)
    record_property("cells", len(cells))
