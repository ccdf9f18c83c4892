"""One trial: a control, a fault in mid-operation with the proof of it, mending, and the verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import monotonic

import verdicts
from cells import SECONDS, Cell
from clients import Client
from etha.kvstore.errors import StoreUnavailableError
from faults import FAULTS
from laboratory import MemorySite, Site
from operations import OPERATIONS, RETURNED, Call, Kind, Operation, Outcome
from scene import PATIENCE, Phase, Scene, surely
from tcp_proxy import Direction

__all__ = ["run_trial"]

OPEN, SET, GET = OPERATIONS["open"], OPERATIONS["set"], OPERATIONS["get"]

MEETING: dict[Phase, tuple[Direction, ...]] = {
    Phase.REQUEST: ("requests",),
    Phase.REPLY: ("replies",),
    Phase.EVENT: ("replies",),
}
"""Which bytes meet the fault."""


def run_trial(site: Site, cells: Sequence[Cell]) -> Iterator[str]:
    """Do a fault to a site while the operations of some cells are in flight, and say what there is to complain of.

    Parameters
    ----------
    site : Site
        The site, in a fresh namespace.
    cells : sequence of Cell
        The cells; they differ in nothing but the operation.

    Yields
    ------
    str
        A complaint, with the cell that it is about.
    """
    scene = Scene(site, cells[0].phase, FAULTS[cells[0].fault].victims)
    trial = Trial(scene, cells)
    try:
        trial.prepare()
        trial.strike()
        trial.await_outcomes()
        yield from trial.judge()
    finally:
        scene.clear()


class Trial:
    """What `run_trial` does, step by step."""

    def __init__(self, scene: Scene, cells: Sequence[Cell]) -> None:
        self._scene = scene
        self._cells = cells
        first = cells[0]
        self._effect, self._phase, self._kind = first.effect, first.phase, first.operation.kind
        self._fault = FAULTS[first.fault]
        self._written: dict[str, str] = {}
        """What was acknowledged before the fault."""
        self._written_since: dict[str, str] = {}
        """What was acknowledged during the fault, and after it."""
        self._outcomes: list[Outcome | None] = []
        self._mended_at = 0.0
        self._unable: list[str] = []
        """What the stores could not do that were to go on, or to recover."""

    # --- the steps ---

    def prepare(self) -> None:
        """Open the stores, have each operation done without a fault, and write what must not get lost."""
        self._clients = [self._client(cell) for cell in self._cells]
        if self._kind is not Kind.OPEN:
            for client in self._clients:
                self._succeed(client.begin(OPEN, "", 0.0))
        self._beside = self._scene.beside()
        for cell, client in zip(self._cells, self._clients, strict=True):
            self._control(cell.operation, client)
            cell.operation.prepare(self._beside, self._key(cell.operation))
        surely(self._beside.set, "acknowledged", "first")
        self._written["acknowledged"] = "first"
        if self._kind not in (Kind.OPEN, Kind.CLOSE):  # a store that closes deletes what it has written
            for client in self._clients:
                self._succeed(client.begin(SET, "acknowledged", 0.0))
                self._written["acknowledged"] = "new"
        if self._kind is Kind.CLOSE:
            self._succeed(self._clients[0].begin(SET, self._key(self._cells[0].operation), 0.0))

    def strike(self) -> None:
        """Bring the operations in flight, and do the fault while they are."""
        scene = self._scene
        scene.await_quiet()
        meeting = MEETING.get(self._phase, self._fault.meets)
        before = self._phase in (Phase.REQUEST, Phase.REPLY)
        if before:
            self._fault.arm(scene, meeting[0])
        self._calls = [
            self._begin(cell, client, number)
            for number, (cell, client) in enumerate(zip(self._cells, self._clients, strict=True), 1)
        ]
        if self._phase in (Phase.EVENT, Phase.POLLING):
            self._fault.arm(scene, meeting[0])
        if self._phase is Phase.EVENT:
            self._fulfil()
        if self._phase is not Phase.STANDING:
            size = 1 if self._kind is Kind.OPEN else scene.said_unasked + 1
            scene.hit = scene.proxy.await_struck(*meeting, timeout=PATIENCE, size=size, links=len(self._cells))
        else:
            scene.note_hit()
        self._fault.strike(scene)

    def await_outcomes(self) -> None:
        """See the operations end, mend the fault when it is time to, and see what the stores can do then."""
        scene = self._scene
        returns = any(RETURNED in cell.allowed for cell in self._cells)
        if self._fault.spares_servers and not isinstance(scene.site, MemorySite):
            surely(self._beside.set, "during", "1")
            self._written_since["during"] = "1"
        if self._kind is Kind.WAIT and returns:
            if self._effect.lasts:
                self._see_it_fail()
            if not self._effect.goes_on:
                self._mend()
            if self._phase is not Phase.EVENT:
                self._fulfil()
        elif self._fault.name == "frozen-client":
            self._mend()
        for each in self._calls:
            if self._fault.name == "killed-client":
                assert isinstance(each.exception(PATIENCE), EOFError)
                self._outcomes.append(None)
            else:
                self._outcomes.append(each.result(self._cells[0].seconds + PATIENCE))
        if self._effect.goes_on:
            self._see_it_work()
        self._mend()
        if self._effect.recovers and not self._effect.goes_on:
            self._see_it_work()

    def judge(self) -> Iterator[str]:
        """Say what there is to complain of."""
        scene = self._scene
        store = scene.beside()
        assert scene.hit is not None
        for cell, outcome in zip(self._cells, self._outcomes, strict=True):
            key = self._key(cell.operation)
            complaints = list(verdicts.of_the_key(cell, key, outcome, store))
            if outcome is not None:
                complaints += verdicts.in_flight(outcome, scene.hit)
                complaints += verdicts.as_promised(cell, key, outcome, self._deadline(cell, outcome))
            yield from (f"{cell}: {complaint} [{outcome}]" for complaint in complaints)
        yield from verdicts.lost(self._written, store, died=self._effect.data_die)
        yield from verdicts.lost(self._written_since, store, died=False)
        yield from self._unable

    # --- parts of them ---

    def _client(self, cell: Cell) -> Client:
        connect = cell.seconds if self._kind is Kind.OPEN else PATIENCE
        timeouts = {} if isinstance(self._scene.site, MemorySite) else {"connect_timeout": connect}
        seconds = SECONDS if self._kind is Kind.WAIT and not self._effect.goes_on else min(cell.seconds, 4.0)
        return self._scene.client(in_a_process=self._fault.in_a_process, timeout=seconds, **timeouts)

    def _control(self, operation: Operation, client: Client) -> None:
        """Have an operation done where nothing is wrong."""
        key = f"control/{operation}"
        if operation.kind in (Kind.OPEN, Kind.CLOSE):
            client = self._scene.bystander()
            self._succeed(client.begin(OPEN, "", 0.0))
        operation.prepare(self._beside, key)
        if operation.fulfil is None:
            outcome = self._succeed(client.begin(operation, key, 0.0))
        else:
            begun = self._standing(operation, client, key, PATIENCE, 1)
            operation.fulfil(self._beside, key)
            outcome = self._succeed(begun)
        assert outcome.value == operation.result(key), f"the control of {operation} gave {outcome}"

    def _begin(self, cell: Cell, client: Client, number: int) -> Call:
        key = self._key(cell.operation)
        if self._phase in (Phase.REQUEST, Phase.REPLY):
            return client.begin(cell.operation, key, cell.seconds)
        return self._standing(cell.operation, client, key, cell.seconds, number)

    def _standing(self, operation: Operation, client: Client, key: str, seconds: float, number: int) -> Call:
        """Begin a wait, the first or another of the trial, and return when it has looked."""
        self._scene.await_standing(number - 1)
        begun = client.begin(operation, key, seconds)
        self._scene.await_standing(number)
        self._scene.await_quiet()
        return begun

    def _fulfil(self) -> None:
        for cell in self._cells:
            fulfil = cell.operation.fulfil
            assert fulfil is not None
            surely(fulfil, self._beside, self._key(cell.operation))

    def _see_it_fail(self) -> None:
        """See an operation beside the waits fail by the fault, so that it has lasted for them too."""
        outcome = self._clients[0].begin(GET, "witness", 0.0).result(PATIENCE)
        if outcome.ended_with not in self._effect.allowed[Kind.READ]:
            self._unable.append(f"a read beside the wait, during the fault: {outcome}")

    def _mend(self) -> None:
        if not self._mended_at:
            self._scene.mend()
            self._mended_at = monotonic()

    def _see_it_work(self) -> None:
        """Have each store write, soon after the fault; or during it, where no other error than the fault's may come."""
        if self._kind is Kind.CLOSE:
            return
        pardoned = self._effect.allowed[Kind.WRITE]
        for client in self._clients:
            deadline = monotonic() + PATIENCE / 2
            for step in (OPEN, SET) if self._kind is Kind.OPEN and not self._effect.goes_on else (SET,):
                while (outcome := client.begin(step, "after", 0.0).result(PATIENCE)).ended_with != RETURNED:
                    if monotonic() > deadline or (self._effect.goes_on and outcome.ended_with not in pardoned):
                        break
            if outcome.ended_with == RETURNED:
                self._written_since["after"] = "new"
            else:
                self._unable.append(f"the store does not go on: {outcome}")

    def _deadline(self, cell: Cell, outcome: Outcome) -> float:
        """Give the time by which a call had to end; a process that stood still could not before it went on."""
        assert self._scene.hit is not None
        if cell.operation.kind is Kind.WAIT and cell.allowed == {StoreUnavailableError.__name__}:
            return self._scene.hit  # it raises at once
        deadline = outcome.began + cell.seconds
        return max(deadline, self._mended_at) if self._fault.name == "frozen-client" else deadline

    def _succeed(self, begun: Call) -> Outcome:
        outcome = begun.result(2 * PATIENCE)
        assert outcome.ended_with == RETURNED, f"without a fault: {outcome}"
        return outcome

    def _key(self, operation: Operation) -> str:
        return f"cell/{operation}"
