"""What a diagnosis consists of: findings, each a level and a message, which after an arrow says what to do."""

from __future__ import annotations

__all__ = ["Finding", "TroubleError", "bad", "doubtful"]

Finding = tuple[str, str]


class TroubleError(Exception):
    """What keeps a member from being used. Its text is a finding's."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{what} -> {cure}")


def bad(what: str, cure: str) -> Finding:
    """Say what does not work now."""
    return "bad", f"{what} -> {cure}"


def doubtful(what: str, cure: str) -> Finding:
    """Say what works now, and may not later or not for everybody."""
    return "doubtful", f"{what} -> {cure}"
