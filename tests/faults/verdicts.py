"""The verdicts on a cell, as complaints: something lost, somebody left waiting, late, or not as promised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cells import Cell
from etha.kvstore import KVStore
from etha.kvstore.errors import OutcomeUnknownError
from operations import RETURNED, Kind, Outcome

__all__ = ["GRACE", "as_promised", "in_flight", "lost", "of_the_key"]

GRACE = 1.0
"""Seconds that a call may take beyond its deadline."""

UNKNOWN = OutcomeUnknownError.__name__


def in_flight(outcome: Outcome, hit: float) -> Iterator[str]:
    """Complain of a cell that does not count: the fault struck before the operation began, or after it ended."""
    if not outcome.began < hit < outcome.ended:
        before, after = hit - outcome.began, outcome.ended - hit
        yield f"not in flight: it began {before:.3f} s before the fault and ended {after:.3f} s after it"


def as_promised(cell: Cell, key: str, outcome: Outcome, deadline: float) -> Iterator[str]:
    """Complain of a call that ended late or not as the contract says: a wait that did not return, for one."""
    if outcome.ended > deadline + GRACE:
        yield f"late: {outcome.ended - deadline:.2f} s after its deadline"
    if outcome.ended_with not in cell.allowed:
        yield f"not as promised, which is one of {sorted(cell.allowed)}"
    if outcome.ended_with == RETURNED:
        right = [cell.operation.result(key)]
        if cell.effect.data_die and cell.operation.kind is Kind.READ:
            right = [cell.operation.nothing]
        if outcome.value not in right:
            yield f"not the value that is there: {right[0]!r}"


def of_the_key(cell: Cell, key: str, outcome: Outcome | None, store: KVStore) -> Iterator[str]:
    """Complain of a key whose state is not what came of the operation on it; `None` is an outcome nobody was told."""
    operation = cell.operation
    held = store.get_bytes(key) if operation.name == "set_bytes" else store.get(key)
    ended_with = UNKNOWN if outcome is None else outcome.ended_with
    if operation.kind is Kind.CLOSE:
        possible = {operation.after, None}
    elif operation.kind in (Kind.WRITE, Kind.DELETE):
        taken, left = {operation.after}, {operation.before}
        possible = taken if ended_with == RETURNED else taken | left if ended_with == UNKNOWN else left
    elif operation.kind is Kind.WAIT:
        return  # the key is what it waited for
    else:
        possible = {operation.before}
    if cell.effect.data_die:
        possible = possible | {None}
    if held not in possible:
        yield f"the key holds {held!r}, which is none of {possible}"


def lost(written: Mapping[str, str], store: KVStore, *, died: bool) -> Iterator[str]:
    """Complain of a write that was acknowledged and is not there, or, where the data died, is there all the same."""
    for key, value in written.items():
        held = store.get(key)
        if held != (None if died else value.encode()):
            yield f"{key!r} was acknowledged as {value!r} and is {held!r}"
