"""Is a history linearizable? The search of Wing and Gong, with Lowe's memory of what was tried before, key by key.

A key is a register that may be absent. The search looks for an order of its operations in which each takes effect at
one instant between its call and its return, and gives what it gave. A write whose outcome is unknown may have taken
effect at any time after its call, or never. So it is given a place only where the next operation can't do without it,
and of those that would do the same the first is taken: neither loses an order, and without it every lost write would
double the search. Nobody can tell apart two values that nobody read, so they count as the same one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

__all__ = ["Operation", "check"]

BUDGET = 300_000
"""How many states of one key are looked at before giving up."""

UNREAD = "a value that nobody read"

Node = tuple[int, int, tuple[int, ...], "str | None"]
"""All operations before this one have their place; which of those after it have (a bitmask); how many lost writes of
each effect were used; what the key holds."""


@dataclass(frozen=True)
class Operation:
    """One call (``get``, ``exists``, ``set`` or ``delete``), and what became of it.

    The value is what a `set` wrote, and what the others returned. A write whose outcome is unknown never returned.
    """

    kind: str
    value: str | bool | None
    called: float
    returned: float = inf
    key: str = "key"
    client: str = ""

    def __str__(self) -> str:
        argument = f"{self.key}, {self.value!r}" if self.kind == "set" else self.key
        answer = "unknown" if self.returned == inf else "done" if self.kind == "set" else repr(self.value)
        return f"[{self.called:.6f} to {self.returned:.6f}] {self.client} {self.kind}({argument}): {answer}"


def check(history: Iterable[Operation], budget: int = BUDGET) -> str:
    """Say what is wrong with a history, or nothing; giving up is wrong, too.

    Parameters
    ----------
    history : iterable of Operation
        What answered, and the writes whose outcome is unknown; what certainly did nothing is not in it. All keys were
        absent when it began.
    budget : int
        How many states of a key to look at.
    """
    by_key: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    wrong = ((key, _Search(operations).run(budget)) for key, operations in sorted(by_key.items()))
    return "\n".join(f"{key!r}: {what}" for key, what in wrong if what)


class _Search:
    """The search for the order of one key's operations."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        ordered = sorted(operations, key=lambda operation: operation.called)
        self._known = [operation for operation in ordered if operation.returned < inf]
        self._read = {operation.value for operation in self._known if operation.kind == "get"}
        self._lost: defaultdict[str | None, list[Operation]] = defaultdict(list)
        for operation in ordered:
            if operation.returned == inf:
                self._lost[self._after(operation, None)].append(operation)
        self._effects = list(self._lost)

    def run(self, budget: int) -> str:
        """Say what is wrong, or nothing."""
        start: Node = (0, 0, (0,) * len(self._effects), None)
        stack, seen, furthest = [start], {start}, start
        while stack:
            node = stack.pop()
            if node[0] == len(self._known):
                return ""
            if len(seen) > budget:
                return f"gave up after {len(seen)} states, of {len(self._known)} operations"
            furthest = max(furthest, node, key=_placed)
            for following in self._next(node):
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
        return self._explain(furthest)

    def _next(self, node: Node) -> Iterator[Node]:
        """Give the states that one more operation leads to, that of the first to return last."""
        first, mask, used, state = node
        ready, bound = self._ready(first, mask)
        for index in sorted(ready, key=lambda index: -self._known[index].returned):
            operation = self._known[index]
            place = _tidy(first, mask | 1 << (index - first))
            if _gives(operation, state):
                yield (*place, used, self._after(operation, state))
                continue
            for which, effect in enumerate(self._effects):
                lost = self._lost[effect][used[which] :]
                if _gives(operation, effect) and lost and lost[0].called <= bound:
                    spent = (*used[:which], used[which] + 1, *used[which + 1 :])
                    yield (*place, spent, self._after(operation, effect))

    def _ready(self, first: int, mask: int) -> tuple[list[int], float]:
        """Give the operations without a place that were called before any other of them returned, and that time."""
        ready, bound = [], inf
        for index in range(first, len(self._known)):
            operation = self._known[index]
            if operation.called > bound:
                break
            if not mask >> (index - first) & 1:
                ready.append(index)
                bound = min(bound, operation.returned)
        return ready, bound

    def _after(self, operation: Operation, state: str | None) -> str | None:
        """Tell what the key holds afterwards."""
        if operation.kind == "set":
            return str(operation.value) if operation.value in self._read else UNREAD
        return None if operation.kind == "delete" else state

    def _explain(self, furthest: Node) -> str:
        first, mask, _, state = furthest
        ready, _ = self._ready(first, mask)
        stuck = "".join(f"\n  {self._known[index]}" for index in ready)
        before = "".join(f"\n  {operation}" for operation in self._known[max(0, first - 8) : first])
        lost = "".join(f"\n  {operation}" for each in self._lost.values() for operation in each)
        return (
            f"not linearizable: after {_placed(furthest)} of {len(self._known)} operations it holds {state!r}, and "
            f"none of these can come next:{stuck}\nbefore them:{before or ' nothing'}\nlost writes:{lost or ' none'}"
        )


def _gives(operation: Operation, state: str | None) -> bool:
    """Tell whether an operation gives what it gave where the key holds this."""
    if operation.kind == "get":
        return operation.value == state
    return operation.kind == "set" or operation.value == (state is not None)


def _tidy(first: int, mask: int) -> tuple[int, int]:
    """Go past the operations that have their place, so that equal states look equal."""
    while mask & 1:
        first, mask = first + 1, mask >> 1
    return first, mask


def _placed(node: Node) -> int:
    return node[0] + bin(node[1]).count("1")
