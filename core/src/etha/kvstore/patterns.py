"""Patterns: keys in which each ``*`` stands for any run of characters, none and ``/`` included.

All else is literal: ``?``, ``[`` and ``.`` mean themselves. Each literal piece is looked for once, from where the one
before it ended; a regular expression with several ``.*`` would try all ways to place them.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Pattern", "expand"]


class Pattern:
    """A compiled pattern over keys in UTF-8.

    Matching whole bytes is matching whole characters, since in UTF-8 no character's bytes begin inside
    another's.

    Parameters
    ----------
    text : bytes
        The pattern.
    literal : int
        So many bytes at the beginning mean themselves, a ``*`` included: a component's prefix, or the whole of a key.

    Attributes
    ----------
    literal_prefix : bytes
        What every match begins with: a server can range over it.
    is_literal : bool
        Whether the pattern has no ``*`` and so matches one key only.

    Examples
    --------
    >>> ready = Pattern(b"pair:foo/rank:*/ready")
    >>> ready.matches(b"pair:foo/rank:0/ready"), ready.matches(b"pair:foo/rank:0/done")
    (True, False)
    """

    __slots__ = ("_least", "_middle", "_suffix", "is_literal", "literal_prefix")

    def __init__(self, text: bytes, literal: int = 0) -> None:
        first, *rest = text[literal:].split(b"*")
        self.literal_prefix = text[:literal] + first
        self.is_literal = not rest
        self._suffix = rest.pop() if rest else b""
        self._middle = [piece for piece in rest if piece]
        self._least = len(text) - text.count(b"*", literal)

    def matches(self, key: bytes) -> bool:
        """Tell whether a key matches.

        Parameters
        ----------
        key : bytes
            The key, in full.

        Returns
        -------
        bool
            Whether it does.

        Examples
        --------
        >>> Pattern(b"*.bin").matches(b"a/b.bin")
        True
        """
        if self.is_literal:
            return key == self.literal_prefix
        if len(key) < self._least or not key.startswith(self.literal_prefix) or not key.endswith(self._suffix):
            return False
        at, end = len(self.literal_prefix), len(key) - len(self._suffix)
        for piece in self._middle:  # the leftmost place for each piece leaves the most room for the next
            at = key.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True


def expand(pattern: str, values: Iterable[object]) -> list[str]:
    """Write out the keys that a pattern stands for, as `KVStore.wait_for_keys` takes for candidates.

    Parameters
    ----------
    pattern : str
        A pattern with one ``*``.
    values : iterable
        What stands in the place of the ``*``; each is turned into a `str`.

    Returns
    -------
    list of str
        One key for each value, in order.

    Raises
    ------
    ValueError
        If the pattern does not hold exactly one ``*``.

    Examples
    --------
    >>> expand("pair:foo/rank:*/ready", range(2))
    ['pair:foo/rank:0/ready', 'pair:foo/rank:1/ready']
    """
    pieces = pattern.split("*")
    if len(pieces) != 2:
        raise ValueError(f"expand() takes a pattern with exactly one '*', and {pattern!r} holds {len(pieces) - 1}")
    before, after = pieces
    return [f"{before}{value}{after}" for value in values]
