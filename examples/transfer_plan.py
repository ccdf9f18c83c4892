"""Who sends which slice of a model's weights to whom, when trainers and inference engines cut the model differently.

Trainers cut every tensor into blocks of rows, as FSDP does. Engines cut as tensor parallelism does: some tensors by
rows, some by columns, the fused projection of attention head by head, and each engine holds a whole copy of the norms.
Where a trainer's block and an engine's block of one tensor overlap, there is a slice to send.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Index = tuple[int, ...]
Array = npt.NDArray[Any]

# Small, and of sizes that few numbers divide, so that the cuts of the two sides seldom fall on the same place.
VOCABULARY, WIDTH, HEADS, LAYERS = 503, 90, 6, 4


class PlanError(Exception):
    """A plan that does not give every engine each element of its shards exactly once, or that not all agree on."""


class Tensor(NamedTuple):
    """A tensor of the model, and how engines cut it."""

    name: str
    shape: Index
    dtype: str
    axis: int | None = None  # what engines cut; without it, each of them holds the whole
    unit: int = 1  # what stays together on that axis: the rows of one head
    fused: int = 1  # how many matrices lie one behind the other in it; each of them is cut


class Shard(NamedTuple):
    """A block of a tensor that a rank holds: where it lies in the whole, and in the memory of the rank."""

    tensor: str
    dtype: str
    shape: Index  # of the whole tensor
    start: Index
    stop: Index
    address: int


class Slice(NamedTuple):
    """A block of a tensor that one trainer sends to one engine."""

    tensor: str
    sender: int
    receiver: int
    start: Index
    stop: Index
    nbytes: int


def _transformer() -> Iterator[Tensor]:
    half, single, head = "<f2", "<f4", WIDTH // HEADS
    yield Tensor("embedding", (VOCABULARY, WIDTH), half, axis=0)
    for layer in range(LAYERS):
        attention, mlp = f"layer.{layer}.attention", f"layer.{layer}.mlp"
        yield Tensor(f"{attention}.norm", (WIDTH,), single)
        yield Tensor(f"{attention}.qkv", (3 * WIDTH, WIDTH), half, axis=0, unit=head, fused=3)
        yield Tensor(f"{attention}.out", (WIDTH, WIDTH), half, axis=1, unit=head)
        yield Tensor(f"{mlp}.norm", (WIDTH,), single)
        yield Tensor(f"{mlp}.up", (4 * WIDTH, WIDTH), half, axis=0)
        yield Tensor(f"{mlp}.down", (WIDTH, 4 * WIDTH), half, axis=1)
    yield Tensor("norm", (WIDTH,), single)


MODEL = tuple(_transformer())

Cut = Callable[[Tensor, int, int], list[tuple[int, int, int]]]
"""Gives the blocks of a tensor that one of so many ranks holds: the axis, where each begins and where it ends."""


def cut_for_trainer(tensor: Tensor, index: int, count: int) -> list[tuple[int, int, int]]:
    """Cut equal blocks of rows; the last rank has what remains."""
    rows = tensor.shape[0]
    block = -(-rows // count)
    return [(0, min(index * block, rows), min((index + 1) * block, rows))]


def cut_for_engine(tensor: Tensor, index: int, count: int) -> list[tuple[int, int, int]]:
    """Cut whole units, as even as may be, out of each of the fused matrices."""
    if tensor.axis is None:
        return [(0, 0, tensor.shape[0])]
    size = tensor.shape[tensor.axis] // tensor.fused
    begin, end = (size // tensor.unit * share // count * tensor.unit for share in (index, index + 1))
    return [(tensor.axis, part * size + begin, part * size + end) for part in range(tensor.fused)]


def allocate(cut: Cut, index: int, count: int) -> list[tuple[Shard, Array]]:
    """Make the arrays that one of so many ranks holds; blocks of one tensor are views into one array."""
    held = []
    for tensor in MODEL:
        blocks = [block for block in cut(tensor, index, count) if block[1] < block[2]]
        if not blocks:  # there are more ranks than there is to cut
            continue
        axis = blocks[0][0]
        ends = np.cumsum([end - begin for _, begin, end in blocks])
        shape = (*tensor.shape[:axis], int(ends[-1]), *tensor.shape[axis + 1 :])
        parts = np.split(np.zeros(shape, tensor.dtype), ends[:-1], axis)
        for (_, begin, end), part in zip(blocks, parts, strict=True):
            start = tuple(begin if at == axis else 0 for at in range(part.ndim))
            stop = tuple(end if at == axis else size for at, size in enumerate(tensor.shape))
            held.append((Shard(tensor.name, part.dtype.str, tensor.shape, start, stop, part.ctypes.data), part))
    return held


# What is published is an array of fixed-width records. Nothing in it can run, as a pickle could.
RECORD = np.dtype(
    [
        ("tensor", "S32"),
        ("dtype", "S4"),
        ("axes", "u1"),
        ("shape", "<u4", 2),
        ("start", "<u4", 2),
        ("stop", "<u4", 2),
        ("address", "<u8"),
    ]
)


def pack(shards: Sequence[Shard]) -> bytes:
    """Describe shards in bytes."""

    def padded(index: Index) -> Index:
        return index + (0,) * (2 - len(index))

    records = [
        (s.tensor, s.dtype, len(s.shape), padded(s.shape), padded(s.start), padded(s.stop), s.address) for s in shards
    ]
    return np.array(records, RECORD).tobytes()


def unpack(data: bytes) -> list[Shard]:
    """Read what `pack` wrote."""

    def index(record: Any, field: str) -> Index:
        return tuple(record[field][: record["axes"]].tolist())

    return [
        Shard(
            r["tensor"].decode(),
            r["dtype"].decode(),
            index(r, "shape"),
            index(r, "start"),
            index(r, "stop"),
            int(r["address"]),
        )
        for r in np.frombuffer(data, RECORD)
    ]


def make_plan(trainers: Sequence[Sequence[Shard]], engines: Sequence[Sequence[Shard]]) -> list[Slice]:
    """Find every overlap of a trainer's shard with an engine's. The same shards give the same plan in every rank."""
    offers = defaultdict(list)
    for sender, shards in enumerate(trainers):
        for shard in shards:
            offers[shard.tensor].append((sender, shard))
    plan = []
    for receiver, shards in enumerate(engines):
        for goal in shards:
            for sender, source in offers[goal.tensor]:
                if (source.shape, source.dtype) != (goal.shape, goal.dtype):
                    raise PlanError(f"trainer {sender} and engine {receiver} hold different tensors as {goal.tensor}")
                start = tuple(map(max, source.start, goal.start))
                stop = tuple(map(min, source.stop, goal.stop))
                extent = _extent(start, stop)
                if min(extent) > 0:
                    nbytes = math.prod(extent) * np.dtype(goal.dtype).itemsize
                    plan.append(Slice(goal.tensor, sender, receiver, start, stop, nbytes))
    return sorted(plan)


def check_plan(plan: Sequence[Slice], trainers: Sequence[Sequence[Shard]], engines: Sequence[Sequence[Shard]]) -> int:
    """Count how often each element of each engine's shards is received, and return the number of elements.

    It does not trust the arithmetic of `make_plan`: it counts in arrays, element by element. `PlanError` says what is
    missing, received twice, or sent by or to a rank that does not hold it.
    """
    held, due = _holdings(trainers), _holdings(engines)
    received = {place: np.zeros_like(counts) for place, counts in due.items()}
    faults = []
    for piece in plan:
        box, extent = _box(piece), _extent(piece.start, piece.stop)
        source = held.get((piece.sender, piece.tensor))
        if source is None or source[box].shape != extent or not source[box].all():
            faults.append(f"trainer {piece.sender} is to send a slice of {piece.tensor} that it does not hold")
        if (goal := received.get((piece.receiver, piece.tensor))) is None:
            faults.append(f"engine {piece.receiver} is sent a slice of {piece.tensor} that it does not hold")
        else:
            goal[box] += 1
    for (receiver, tensor), counts in received.items():
        wanted = due[receiver, tensor]
        missing, surplus = int((counts < wanted).sum()), int((counts > wanted).sum())
        if missing or surplus:
            faults.append(
                f"engine {receiver} receives {tensor} with {missing} elements missing and {surplus} too often"
            )
    reached = {tensor: np.zeros_like(counts) for (_, tensor), counts in held.items()}
    for (_, tensor), counts in due.items():
        if tensor in reached:
            reached[tensor] += counts
    for tensor, counts in reached.items():
        if lost := int((counts == 0).sum()):
            faults.append(f"no engine receives {lost} elements of {tensor}")
    if faults:
        raise PlanError("the plan does not cover every element exactly once: " + "; ".join(faults[:3]))
    return sum(int(counts.sum()) for counts in due.values())


def digest(plan: Sequence[Slice]) -> str:
    """Give a short text that differs where plans differ."""
    return hashlib.sha256(repr(plan).encode()).hexdigest()[:16]


def _extent(start: Index, stop: Index) -> Index:
    return tuple(end - begin for begin, end in zip(start, stop, strict=True))


def _box(block: Shard | Slice) -> tuple[slice, ...]:
    return tuple(map(slice, block.start, block.stop))


def _holdings(shards_of: Sequence[Sequence[Shard]]) -> dict[tuple[int, str], Array]:
    """For each rank of a side and each tensor, count how often the rank holds each element of the tensor."""
    counts: dict[tuple[int, str], Array] = {}
    for rank, shards in enumerate(shards_of):
        for shard in shards:
            whole = counts.setdefault((rank, shard.tensor), np.zeros(shard.shape, np.int32))
            whole[_box(shard)] += 1
    return counts
