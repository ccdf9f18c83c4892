"""``etha-kv wait``: wait as the store does, and show how far it has come."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING

from etha.kvstore.registry import find_backend
from etha_kvstore_cli.console import Output, can_draw
from etha_kvstore_cli.progress import Lines
from etha_kvstore_cli.target import Target, UsageError
from etha_kvstore_cli.wanted import Wanted

if TYPE_CHECKING:
    from etha_kvstore_cli.bar import Bar

__all__ = ["wait"]

LEAST_PATIENCE = 10.0
"""Seconds that the opening may take, however short the wait itself may be."""

LONGEST_PATIENCE = 366 * 86_400.0


def wait(target: Target, output: Output, wanted: Wanted, timeout: float, *, quiet: bool) -> bytes | list[str]:
    """Wait as the store does, and show how far it has come.

    Parameters
    ----------
    target : Target
        The store.
    output : Output
        Where progress is shown.
    wanted : Wanted
        What is waited for.
    timeout : float
        Seconds until the wait gives up; a server that is not up yet is waited for within them.
    quiet : bool
        Show nothing.

    Returns
    -------
    bytes or list of str
        The value, or the keys where there is a count.
    """
    _check_candidates(target, wanted)
    deadline = monotonic() + timeout
    patience = min(max(timeout, LEAST_PATIENCE), LONGEST_PATIENCE)
    if quiet:
        with target.opened(patience) as store:
            return wanted.wait(store, max(0.0, deadline - monotonic()))
    progress = _progress(output, wanted, timeout)
    with progress.shown(), target.opened(patience) as store:
        progress.observe(store)
        found = wanted.wait(store, max(0.0, deadline - monotonic()))
        progress.done(found)
        return found


def _check_candidates(target: Target, wanted: Wanted) -> None:
    """Refuse a pattern without names, in the words of the command, where the backend can't look by pattern."""
    if wanted.count is None or wanted.candidates is not None:
        return
    backend = find_backend(target.settings().backend)
    if "waits_by_pattern" not in backend.capabilities:
        raise UsageError(
            f"backend {backend.name!r} can't look for keys by pattern: say who they are with --for, for instance "
            f"--for 0..{max(wanted.count - 1, 0)}"
        )


def _progress(output: Output, wanted: Wanted, timeout: float) -> Lines | Bar:
    if output.json or not can_draw(sys.stderr):
        return Lines(output, wanted, timeout)
    from etha_kvstore_cli.bar import Bar

    return Bar(output, wanted, timeout)
