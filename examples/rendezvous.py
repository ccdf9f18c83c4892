"""Ranks of a trainer and of an inference engine find each other and agree on who sends which weights to whom.

This is the job that the store exists for. It depends on the core, on numpy and on one backend::

    python examples/rendezvous.py                                    # memory: the ranks are threads
    python examples/rendezvous.py --backend tcpstore --trainers 3    # processes; the first rank is the server
    python tools/etcd_server.py -- python examples/rendezvous.py --backend etcd    # processes, beside a server

What a rank does is in `take_part`, and is the same for every backend; what differs is in `configurations`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import secrets
import socket
import sys
import threading
import traceback
from collections import defaultdict
from contextlib import suppress
from multiprocessing import connection
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from etha.kvstore import KVStore, open_store_from_config
from etha.kvstore.patterns import expand
from transfer_plan import (
    PlanError,
    Slice,
    allocate,
    check_plan,
    cut_for_engine,
    cut_for_trainer,
    digest,
    make_plan,
    pack,
    unpack,
)

TRAINER, ENGINE, PAIR = "trainer", "inference", "pair"
"""The components: each side describes itself in its own, and the pair's says how far every rank has come."""

OLD_VERSION, NEW_VERSION = "0", "1"

PATIENCE = 120.0
"""Seconds that a rank waits for the others at any point."""

Found = TypeVar("Found")


class Rank(NamedTuple):
    """One member of the pair."""

    number: int  # among all
    side: str  # its component
    place: int  # within its side

    def __str__(self) -> str:
        return f"{self.side} {self.place}"

    def fact(self, what: str) -> str:
        """Name a key in which this rank describes itself to others, in the component of its side."""
        return f"rank:{self.place}/{what}"

    def mark(self, what: str) -> str:
        """Name a key that says how far this rank has come, in the component of the pair."""
        return f"pair:demo/rank:{self.number}/{what}"


class Report(NamedTuple):
    """What a rank tells the process that started it."""

    address: str
    shards: int
    nbytes: int
    met: dict[Rank, str]  # the addresses of all ranks, its own included, as it read them
    plan: list[Slice]
    elements: int
    seconds: dict[str, float]


class Failure(NamedTuple):
    """What a rank tells instead when it fails."""

    reason: str
    trace: str


def take_part(me: Rank, ranks: list[Rank], config: dict[str, Any]) -> Report:
    """Do all that a rank does, from opening the store to closing it."""
    seconds: dict[str, float] = {}
    since = perf_counter()

    def ends(phase: str) -> None:
        nonlocal since
        now = perf_counter()
        seconds[phase], since = now - since, now

    cut = cut_for_trainer if me.side == TRAINER else cut_for_engine
    held = allocate(cut, me.place, sum(rank.side == me.side for rank in ranks))
    # If a step fails, the end of the block closes the store, and deletes what this rank wrote.
    with socket.create_server(("127.0.0.1", 0)) as listener, open_store_from_config(config) as store:
        ends("open")

        host, port = listener.getsockname()
        address = f"{host}:{port}"
        store.set(me.fact("address"), address)
        store.set_bytes(me.fact("shards"), pack([shard for shard, _ in held]))
        if me.number == 0:
            store.set("weights/version", OLD_VERSION)
        ends("publish")

        arrive(store, "ready", me, ranks)
        ends("meet")

        met, shards = {}, {}
        for rank in ranks:
            met[rank] = require(store.get(rank.fact("address"), component=rank.side), rank).decode()
            shards[rank] = unpack(require(store.get_bytes(rank.fact("shards"), component=rank.side), rank))
        ends("read")

        trainers = [shards[rank] for rank in ranks if rank.side == TRAINER]
        engines = [shards[rank] for rank in ranks if rank.side == ENGINE]
        plan = make_plan(trainers, engines)
        elements = check_plan(plan, trainers, engines)
        ends("plan")

        announce(store, me, ranks, plan)
        ends("announce")

        leave(store, me, ranks)
        ends("leave")
    return Report(address, len(held), sum(array.nbytes for _, array in held), met, plan, elements, seconds)


def arrive(store: KVStore, point: str, me: Rank, ranks: list[Rank]) -> None:
    """Mark that this rank has come to a point, and wait until all have."""
    pattern = f"pair:demo/rank:*/{point}"
    marks = expand(pattern, range(len(ranks)))
    store.set(me.mark(point), "1", component=PAIR)
    store.wait_for_keys(pattern, len(ranks), timeout=PATIENCE, candidate_keys=marks, component=PAIR)


def require(found: Found | None, rank: Rank) -> Found:
    """Insist on what a rank published before it marked that it was ready."""
    if found is None:
        raise LookupError(f"{rank} is ready, but what it published is not in the store")
    return found


def announce(store: KVStore, me: Rank, ranks: list[Rank], plan: list[Slice]) -> None:
    """Announce the new weights once all ranks have come to the same plan; the engines wait for that."""
    mine = digest(plan)
    store.set(me.mark("plan"), mine, component=PAIR)
    if me.number == 0:
        for rank in ranks:
            theirs = store.wait_for_key(rank.mark("plan"), PATIENCE, component=PAIR).decode()
            if theirs != mine:
                raise PlanError(f"{rank} came to the plan {theirs}, and {me} to {mine}")
        store.set("weights/version", NEW_VERSION)
    elif me.side == ENGINE:
        store.wait_for_value("weights/version", NEW_VERSION, PATIENCE, component=TRAINER)


def leave(store: KVStore, me: Rank, ranks: list[Rank]) -> None:
    """Close the store without taking away what another rank still reads.

    All wait for each other's `done`, but one that cleaned up then would delete its mark under those still counting.
    So all but the first go without cleaning up, and say `left` before; nobody reads anything after that but the first
    rank, which waits for those words, deletes what the others wrote, and then is the last to close.
    """
    arrive(store, "done", me, ranks)
    if me.number != 0:
        store.set(me.mark("left"), "1", component=PAIR)
        store.close(cleanup=False)
        return
    arrive(store, "left", me, ranks)
    for rank in ranks[1:]:
        for fact in ("address", "shards"):
            store.delete(rank.fact(fact), component=rank.side)
        for mark in ("ready", "plan", "done", "left"):
            store.delete(rank.mark(mark), component=PAIR)
    store.close()


# --- what starts the ranks ---


def configurations(backend: str, ranks: list[Rank]) -> dict[Rank, dict[str, Any]]:
    """Say which store each rank opens: all that differs between backends."""
    namespace = f"demo-{secrets.token_hex(4)}"
    options: dict[str, Any] = {}
    if backend == "tcpstore":
        # The server is there once the first rank has imported torch, which takes long where many import it at once.
        options = {"host": "127.0.0.1", "port": free_port(), "connect_timeout": PATIENCE}
    elif backend == "etcd":
        options = {"endpoints": [os.environ["ETCD_ENDPOINT"]]}
    configs: dict[Rank, dict[str, Any]] = {
        rank: {"backend": backend, "namespace": namespace, "component": rank.side, "options": dict(options)}
        for rank in ranks
    }
    if backend == "tcpstore":
        configs[ranks[0]]["options"]["is_master"] = True
    return configs


def free_port() -> int:
    """Find a port for the first rank to serve on, none of those that the kernel hands out to whoever asks for any."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def run(configs: dict[Rank, dict[str, Any]], as_threads: bool) -> dict[Rank, Report]:
    """Start all ranks and gather their reports. The first failure ends this program and its daemons, the ranks."""
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of libraries, but not their threads
    running: dict[connection.Connection, tuple[Rank, Any]] = {}
    for rank, config in configs.items():
        receiver, sender = context.Pipe(duplex=False)
        kind = threading.Thread if as_threads else context.Process
        worker = kind(target=run_rank, args=(rank, list(configs), config, sender), daemon=True)
        worker.start()
        if not as_threads:
            sender.close()  # the process has its own; with this one open, its death would not be seen
        running[receiver] = rank, worker
    reports = {}
    while running:
        for ended in connection.wait(list(running)):
            assert isinstance(ended, connection.Connection)
            rank, worker = running.pop(ended)
            try:
                result = ended.recv()
            except EOFError:
                result = Failure("its process ended before its work", "")
            if isinstance(result, Failure):
                sys.exit(f"{result.trace}rendezvous failed in {rank}: {result.reason}")
            worker.join()
            if code := getattr(worker, "exitcode", 0):
                sys.exit(f"rendezvous failed in {rank}: its process did its work and then ended with exit code {code}")
            reports[rank] = result
    return dict(sorted(reports.items()))


def run_rank(me: Rank, ranks: list[Rank], config: dict[str, Any], results: connection.Connection) -> None:
    """Take part, and tell how it went."""
    with results:
        try:
            results.send(take_part(me, ranks, config))
        except BaseException as error:
            results.send(Failure(f"{type(error).__name__}: {error}", traceback.format_exc()))
            raise SystemExit(1) from error


def show(reports: dict[Rank, Report]) -> None:
    """Print who met whom, who sends how much to whom, and how long each phase took."""
    addresses = {rank: report.address for rank, report in reports.items()}
    print(f"\n{'rank':>4}  {'component':<13} {'address':<16} {'shards':>6} {'bytes':>10}  met")
    for rank, report in reports.items():
        if report.met != addresses:
            sys.exit(f"rendezvous failed: {rank} read the addresses {report.met}, and they are {addresses}")
        print(
            f"{rank.number:>4}  {rank!s:<13} {report.address:<16} {report.shards:>6} {report.nbytes:>10,}  "
            f"{len(report.met) - 1} of {len(reports) - 1} others"
        )

    first = next(iter(reports.values()))
    flows: dict[tuple[int, int], list[Slice]] = defaultdict(list)
    for piece in first.plan:
        flows[piece.sender, piece.receiver].append(piece)
    print(f"\n{'transfer plan':<29} {'tensors':>8} {'slices':>8} {'bytes':>10}")
    for (sender, receiver), pieces in sorted(flows.items()):
        print(
            f"  {TRAINER} {sender:<3} -> {ENGINE} {receiver:<3} {len({piece.tensor for piece in pieces}):>8} "
            f"{len(pieces):>8} {sum(piece.nbytes for piece in pieces):>10,}"
        )

    print(f"\n{'phase':<10} {'fastest rank':>12} {'slowest rank':>14}")
    for phase in first.seconds:
        times = [report.seconds[phase] for report in reports.values()]
        print(f"{phase:<10} {min(times) * 1e3:>9.1f} ms {max(times) * 1e3:>11.1f} ms")

    print(f"\nplan complete: {first.elements:,} elements, each exactly once")


def at_least_one(text: str) -> int:
    """Read a number of ranks."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a side has at least one rank")
    return number


def main() -> None:
    """Read the command line, run the ranks and show what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backend", choices=("memory", "tcpstore", "etcd"), default="memory")
    parser.add_argument("--trainers", type=at_least_one, default=4, help="ranks of the trainer (default: 4)")
    parser.add_argument("--engines", type=at_least_one, default=2, help="ranks of the inference engine (default: 2)")
    options = parser.parse_args()
    if options.backend == "etcd" and "ETCD_ENDPOINT" not in os.environ:
        parser.error("set ETCD_ENDPOINT to the host:port of an etcd, or start one: make demo BACKEND=etcd")

    sides = [TRAINER] * options.trainers + [ENGINE] * options.engines
    ranks = [Rank(number, side, number - sides.index(side)) for number, side in enumerate(sides)]
    as_threads = options.backend == "memory"
    print(
        f"{options.trainers} {TRAINER} and {options.engines} {ENGINE} ranks meet through backend {options.backend}, "
        f"as {'threads' if as_threads else 'processes'}",
        flush=True,
    )
    show(run(configurations(options.backend, ranks), as_threads))


if __name__ == "__main__":
    main()
