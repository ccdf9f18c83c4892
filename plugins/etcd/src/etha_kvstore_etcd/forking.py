"""Calls and forks apart: a fork waits until no call is under way, and a call waits until no fork is.

gRPC gets over a fork that no call is in the way of. Beside one its own handlers may lose the reply, so that the parent
waits for it until its time is up, and the child may die in its first call; the plugin's README has figures.
"""

from __future__ import annotations

import os
from threading import get_ident
from time import monotonic, sleep

__all__ = ["LONGEST_HOLD", "ApartFromForks"]

LONGEST_HOLD = 1.0
"""Seconds that a fork waits for calls at the most: one to a server that stands still may last for hours."""

PAUSE = 0.0005
"""Seconds between two looks of one who waits for the other side: a call takes about as long, and a fork longer."""

_calling: set[int] = set()
"""The threads that are in a call."""

_forking: set[int] = set()
"""The threads that fork."""


class ApartFromForks:
    """A context for one call, of any store; one instance does for all."""

    def __enter__(self) -> None:
        me = get_ident()
        _calling.add(me)
        while _forking and me not in _forking:  # it is in there where a signal's handler calls in the middle of a fork
            _calling.discard(me)
            sleep(PAUSE)
            _calling.add(me)

    def __exit__(self, *exc_info: object) -> None:
        _calling.discard(get_ident())


def _begin() -> None:
    me = get_ident()
    _forking.add(me)
    given_up = monotonic() + LONGEST_HOLD
    while _calling - {me} and monotonic() < given_up:
        sleep(PAUSE)


def _end_in_parent() -> None:
    _forking.discard(get_ident())


def _end_in_child() -> None:
    """Forget all other threads, which don't exist in the child."""
    _calling.clear()
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_begin, after_in_parent=_end_in_parent, after_in_child=_end_in_child)
