"""The one table of the matrix: which fault strikes which operations where, in which phase, and what may come of it.

What may come of it is the contract's: its page "Errors" and what it says of waits, of the opening and of closing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from etha.kvstore.errors import (
    OperationTimeoutError,
    OutcomeUnknownError,
    StoreFullError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from faults import FAULTS
from operations import OPERATIONS, RETURNED, Kind, Operation
from scene import Phase

__all__ = ["CELLS", "TRIALS", "Cell", "Effect"]

SECONDS = 1.0
"""The time of an operation that will not succeed, and of a wait that is to time out."""

TAKING_OVER = 4.0
"""The time of an operation that succeeds once another member is asked, or a server is back."""

RIDING_OUT = 40.0
"""The time of a wait that is to return: a connection that is silently dead is noticed after 15 s."""

Allowed = Mapping[Kind, frozenset[str]]


def _allow(
    read: object, write: object, wait: object = RETURNED, opening: object = RETURNED, delete: object = None
) -> Allowed:
    """Name what may come of each kind of operation; a write of unknown outcome is one that can't be confirmed.

    Closing always returns.
    """

    def names(outcomes: object) -> frozenset[str]:
        each = outcomes if isinstance(outcomes, tuple) else (outcomes,)
        return frozenset(outcome if isinstance(outcome, str) else outcome.__name__ for outcome in each)

    return {
        Kind.READ: names(read),
        Kind.WRITE: names(write),
        Kind.DELETE: names(write if delete is None else delete),
        Kind.WAIT: names(wait),
        Kind.OPEN: names(opening),
        Kind.CLOSE: names(RETURNED),
    }


@dataclass(frozen=True)
class Effect:
    """What a fault means to the stores of a site.

    Attributes
    ----------
    allowed : mapping
        How an operation of each kind may end.
    goes_on : bool
        Whether the store does its work while the fault lasts, after the operation that was struck at the latest.
    recovers : bool
        Whether the store does its work again soon after the fault.
    data_die : bool
        Whether the data are gone.
    slowly : bool
        Whether a wait needs the many seconds after which a silent connection is held to be dead.
    lasts : bool
        Whether a wait is to live with the fault until an operation beside it has failed by it.
    """

    allowed: Allowed
    goes_on: bool = False
    recovers: bool = True
    data_die: bool = False
    slowly: bool = False
    lasts: bool = False


UNHURT = Effect(_allow(RETURNED, RETURNED), goes_on=True)
"""Late, or refused for want of a new token: nobody notices."""

GONE = Effect(_allow(StoreUnavailableError, OutcomeUnknownError, opening=StoreUnavailableError))
"""Nobody is there until the fault is mended."""

DEPARTED = Effect(
    _allow(StoreUnavailableError, (OutcomeUnknownError, StoreUnavailableError), opening=StoreUnavailableError)
)
"""Likewise; but the server may have said, as it went, what it has not taken."""

SILENT = Effect(
    _allow(OperationTimeoutError, OutcomeUnknownError, opening=StoreUnavailableError), recovers=False, slowly=True
)
"""Somebody is there, as far as one can see, and says nothing."""

FROZEN = replace(SILENT, recovers=True, slowly=False, lasts=True)
"""Likewise; and goes on where it was when the fault is mended."""

REQUEST_LOST = Effect(_allow(RETURNED, OutcomeUnknownError))
"""The connection was cut, and the server is there: a read is made again, a write may have been taken."""

REPLY_LOST = Effect(_allow(RETURNED, (RETURNED, OutcomeUnknownError), delete=OutcomeUnknownError))
"""Likewise; the write was taken, and reading may confirm it, but never a deletion."""

OTHERS_GO_ON = Effect(
    _allow(RETURNED, (RETURNED, OutcomeUnknownError), delete=(RETURNED, OutcomeUnknownError)), goes_on=True
)
"""One member is gone, and the others take over."""

ONE_IS_SILENT = replace(OTHERS_GO_ON, slowly=True)
"""One member says nothing, and the others take over."""

LEADERLESS = Effect(
    _allow(
        (StoreUnavailableError, OperationTimeoutError),
        (OutcomeUnknownError, StoreUnavailableError),
        opening=StoreUnavailableError,
    )
)
"""A member is there that can do nothing without the others; it may say so, or say nothing."""

WIPED = replace(REQUEST_LOST, data_die=True)
"""Another server is there, which holds nothing."""

FULL = Effect(_allow(RETURNED, StoreFullError, delete=RETURNED))
"""The server takes deletions, and no writes."""

LOST = Effect(
    _allow(StoreUnavailableError, OutcomeUnknownError, StoreUnavailableError, (RETURNED, StoreUnavailableError)),
    recovers=False,
)
"""TCPStore's connection is lost, and a store never has another; one that opens may have found the server again."""

LOST_FOR_NOW = replace(LOST, allowed={**LOST.allowed, Kind.OPEN: frozenset({StoreUnavailableError.__name__})})
"""Likewise, and nobody serves meanwhile."""

DEAD = replace(LOST_FOR_NOW, data_die=True)
"""TCPStore's host is dead, and the data with it."""

REBORN = replace(LOST, data_die=True)
"""Likewise; another host is there, which holds nothing."""

MUTE = Effect(
    _allow(OperationTimeoutError, OutcomeUnknownError, WaitTimeoutError, StoreUnavailableError), recovers=False
)
"""TCPStore's connection is silently dead, which nothing but the deadline tells."""

LATE = Effect(
    _allow(
        (RETURNED, OperationTimeoutError),
        (RETURNED, OutcomeUnknownError),
        opening=(RETURNED, StoreUnavailableError),
    )
)
"""The process stood still until its time was up, and then may find the reply, or no time left."""

KILLED = Effect({}, recovers=False)
"""The process is no more: nobody is told anything."""


class Row(NamedTuple):
    """A line of the table: a fault on a site, the phases in which operations and waits are struck, and the effect."""

    fault: str
    site: str
    operations: tuple[Phase, ...]
    waits: tuple[Phase, ...]
    effect: Effect


REQUEST, REPLY, STANDING, POLLING, EVENT = Phase

TABLE = (
    Row("killed-server", "etcd", (REQUEST,), (REQUEST, STANDING), GONE),
    Row("terminated-server", "etcd", (REQUEST,), (STANDING,), DEPARTED),
    Row("frozen-server", "etcd", (REQUEST,), (REQUEST, STANDING), FROZEN),
    Row("wiped-server", "etcd", (REQUEST,), (STANDING,), WIPED),
    Row("port-taken", "etcd", (REQUEST,), (STANDING,), GONE),
    Row("space-alarm", "etcd", (REQUEST,), (STANDING,), FULL),
    Row("compaction", "etcd", (), (STANDING,), UNHURT),
    Row("expired-token", "etcd-users", (REQUEST,), (REQUEST, STANDING), UNHURT),
    Row("black-hole", "etcd", (REQUEST,), (REQUEST, EVENT), SILENT),
    Row("black-holed-requests", "etcd", (REQUEST,), (REQUEST,), SILENT),
    Row("black-holed-replies", "etcd", (REPLY,), (EVENT,), SILENT),
    Row("half-open", "etcd", (REQUEST,), (REQUEST,), SILENT),
    Row("reset", "etcd", (REQUEST,), (REQUEST, EVENT), REQUEST_LOST),
    Row("reset", "etcd", (REPLY,), (), REPLY_LOST),
    Row("refused", "etcd", (REQUEST,), (EVENT,), GONE),
    Row("dropped-reply", "etcd", (REPLY,), (EVENT,), GONE),
    Row("cut-in-mid-request", "etcd", (REQUEST,), (REQUEST,), REQUEST_LOST),
    Row("cut-in-mid-reply", "etcd", (REPLY,), (EVENT,), REPLY_LOST),
    Row("slow", "etcd", (REQUEST,), (EVENT,), UNHURT),
    Row("lossy", "etcd", (REQUEST,), (EVENT,), UNHURT),
    Row("killed-client", "etcd", (REQUEST,), (STANDING,), KILLED),
    Row("frozen-client", "etcd", (REPLY,), (EVENT,), LATE),
    Row("descriptors-used-up", "etcd", (REQUEST,), (EVENT,), GONE),
    Row("killed-leader", "etcd-cluster", (REQUEST,), (STANDING,), OTHERS_GO_ON),
    Row("killed-follower", "etcd-cluster", (REQUEST,), (STANDING,), OTHERS_GO_ON),
    Row("killed-members", "etcd-cluster", (REQUEST,), (STANDING,), GONE),
    Row("terminated-leader", "etcd-cluster", (REQUEST,), (STANDING,), OTHERS_GO_ON),
    Row("frozen-leader", "etcd-cluster", (REQUEST,), (STANDING,), ONE_IS_SILENT),
    Row("frozen-follower", "etcd-cluster", (REQUEST,), (STANDING,), ONE_IS_SILENT),
    Row("quorum-lost", "etcd-cluster", (REQUEST,), (STANDING,), LEADERLESS),
    Row("compaction", "etcd-cluster", (), (STANDING,), UNHURT),
    Row("black-hole", "etcd-cluster", (REQUEST,), (EVENT,), ONE_IS_SILENT),
    Row("reset", "etcd-cluster", (REQUEST,), (EVENT,), OTHERS_GO_ON),
    Row("dropped-reply", "etcd-cluster", (REPLY,), (EVENT,), OTHERS_GO_ON),
    Row("killed-server", "tcpstore", (REQUEST,), (POLLING,), DEAD),
    Row("terminated-server", "tcpstore", (REQUEST,), (POLLING,), DEAD),
    Row("frozen-server", "tcpstore", (REQUEST,), (POLLING,), FROZEN),
    Row("wiped-server", "tcpstore", (REQUEST,), (POLLING,), REBORN),
    Row("port-taken", "tcpstore", (REQUEST,), (POLLING,), DEAD),
    Row("black-hole", "tcpstore", (REQUEST,), (POLLING,), MUTE),
    Row("black-holed-requests", "tcpstore", (REQUEST,), (POLLING,), MUTE),
    Row("black-holed-replies", "tcpstore", (REPLY,), (POLLING,), MUTE),
    Row("half-open", "tcpstore", (REQUEST,), (POLLING,), MUTE),
    Row("reset", "tcpstore", (REQUEST, REPLY), (POLLING,), LOST),
    Row("refused", "tcpstore", (REQUEST,), (POLLING,), LOST_FOR_NOW),
    Row("dropped-reply", "tcpstore", (REPLY,), (POLLING,), LOST_FOR_NOW),
    Row("cut-in-mid-request", "tcpstore", (REQUEST,), (POLLING,), LOST),
    Row("cut-in-mid-reply", "tcpstore", (REPLY,), (POLLING,), LOST),
    Row("slow", "tcpstore", (REQUEST,), (POLLING,), UNHURT),
    Row("lossy", "tcpstore", (REQUEST,), (POLLING,), UNHURT),
    Row("killed-client", "tcpstore", (REQUEST,), (POLLING,), KILLED),
    Row("frozen-client", "tcpstore", (REPLY,), (POLLING,), LATE),
    Row("descriptors-used-up", "tcpstore", (REQUEST,), (), LOST_FOR_NOW),
    Row("frozen-client", "memory", (), (STANDING,), LATE),
    Row("descriptors-used-up", "memory", (), (STANDING,), UNHURT),
)
"""Phases that are missing mean nothing there, or the same as one that is there.

A store in memory is struck with its process only, and nothing of it is in flight but waits. A wait on TCPStore is
always between two looks. The alarm, the compaction and the token are etcd's.
"""


class Cell(NamedTuple):
    """One fault that strikes one operation in one phase on one site."""

    site: str
    fault: str
    operation: Operation
    phase: Phase
    effect: Effect

    def __str__(self) -> str:
        return f"{self.site}:{self.fault}:{self.operation}:{self.phase.value}"

    @property
    def allowed(self) -> frozenset[str]:
        """How the operation may end."""
        return self.effect.allowed.get(self.operation.kind, frozenset())

    @property
    def seconds(self) -> float:
        """The operation's time."""
        if self.operation.kind is Kind.WAIT:
            return SECONDS if WaitTimeoutError.__name__ in self.allowed else RIDING_OUT
        if self.effect in (GONE, DEPARTED, SILENT, FROZEN, MUTE, LATE):
            return SECONDS
        return TAKING_OVER if self.allowed == {RETURNED} else TAKING_OVER / 2


LEFT_OUT: tuple[tuple[str, Callable[[Cell], bool]], ...] = (
    (
        "TCPStore has no watch",
        lambda cell: cell.site == "tcpstore" and cell.operation.name == "watch",
    ),
    (
        "the first look of a watch is a listing",
        lambda cell: cell.phase is REQUEST and cell.operation.name == "watch",
    ),
    (
        "a store that is not open yet has no connection that could be half open",
        lambda cell: cell.fault == "half-open" and cell.operation.name == "open",
    ),
    (
        "a process that is killed while it reads or opens has promised nothing, and was promised nothing",
        lambda cell: cell.fault == "killed-client" and cell.operation.kind in (Kind.READ, Kind.OPEN),
    ),
    (
        "a TCPStore client that has its connection needs no other descriptor",
        lambda cell: (cell.fault, cell.site) == ("descriptors-used-up", "tcpstore") and cell.operation.name != "open",
    ),
    (
        "an answer of one byte has no middle",
        lambda cell: (
            (cell.fault, cell.site) == ("cut-in-mid-reply", "tcpstore")
            and cell.operation.name in ("exists", "set", "set_bytes", "wait_for_keys")
        ),
    ),
    (
        "a request of one byte has no middle",
        lambda cell: (cell.fault, cell.site, cell.operation.name) == ("cut-in-mid-request", "tcpstore", "list_keys"),
    ),
)
"""The pairs of the table that mean nothing, and why."""


def _cells() -> Iterator[Cell]:
    for row in TABLE:
        for operation in OPERATIONS.values():
            for phase in row.waits if operation.kind is Kind.WAIT else row.operations:
                cell = Cell(row.site, row.fault, operation, phase, row.effect)
                if not any(applies(cell) for _, applies in LEFT_OUT):
                    yield cell


def _trials() -> Iterator[tuple[Cell, ...]]:
    """Put cells together that share one fault, since each alone would be waited for many seconds."""
    together: dict[tuple[str, str, Phase], list[Cell]] = {}
    for cell in CELLS:
        if cell.effect.slowly and cell.operation.kind is Kind.WAIT:
            together.setdefault((cell.site, cell.fault, cell.phase), []).append(cell)
        else:
            yield (cell,)
    yield from map(tuple, together.values())


CELLS = list(_cells())
"""The matrix."""

TRIALS = list(_trials())
"""The cells by the faults that are done: one each, but for the waits that notice a dead connection slowly."""

assert set(FAULTS) == {cell.fault for cell in CELLS}
