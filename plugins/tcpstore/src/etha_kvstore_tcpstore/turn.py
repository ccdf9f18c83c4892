"""`Turn`: whose turn it is on a connection. First come, first served, for as long as each has the patience."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from etha.kvstore.follow import LONGEST_SLEEP, Bell

__all__ = ["Place", "Turn"]


class Place:
    """One thread's place in the line, for one turn."""

    called: Bell | None = None
    dismissed = False
    thread = 0
    """Who waits, once it does."""

    def call(self) -> None:
        """Have its thread look whether it may go on; where there is no bell yet, it is about to look."""
        if self.called is not None:
            self.called.set()


class Turn:
    """A lock that goes to those who wait in the order in which they came.

    With a `threading.Lock`, a thread that makes one call after another takes it again each time before those who wait
    have woken, and they starve. What is held is a place in a line that the caller made, so that it is given back
    wherever an exception comes from.

    Examples
    --------
    >>> turn, place = Turn(), Place()
    >>> try:
    ...     turn.take(place, monotonic() + 10)
    ... finally:
    ...     turn.give_back(place)
    True
    """

    def __init__(self) -> None:
        self._line: deque[Place] = deque()

    def take(self, place: Place, deadline: float) -> bool:
        """Go to the end of the line and wait for the turn; tell whether it came.

        It never comes behind a place of the same thread: that is a call which a signal's handler has interrupted.

        Parameters
        ----------
        place : Place
            A new place. `give_back` is due for it, however this call ends.
        deadline : float
            How long to wait, on the monotonic clock, in seconds.
        """
        line = self._line
        place.thread = threading.get_ident()
        line.append(place)
        return line[0] is place or self._wait(place, deadline)

    def _wait(self, place: Place, deadline: float) -> bool:
        if any(other.thread == place.thread for other in list(self._line) if other is not place):
            return False
        place.called = Bell()
        while self._line[0] is not place and not place.dismissed:
            remaining = deadline - monotonic()
            if remaining <= 0:
                return False
            place.called.wait(min(remaining, LONGEST_SLEEP))
        return not place.dismissed

    def give_back(self, place: Place) -> None:
        """Leave the line, and call whoever is first in it then."""
        line = self._line
        if line and line[0] is place:
            line.popleft()
        elif place in line:
            line.remove(place)
        if line:
            line[0].call()

    def dismiss(self) -> None:
        """Send away everybody who waits; one whose turn it is stays."""
        for place in list(self._line)[1:]:
            place.dismissed = True
            place.call()
