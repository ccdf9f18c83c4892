"""How the cost of a rendezvous grows with the number of ranks: its time, and the server's requests, bytes and CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from statistics import linear_regression, median
from typing import Any, NamedTuple

from scale_counts import Relay, growth
from scale_ranks import SHAPES, open_ranks
from scale_servers import Server, serve

__all__ = ["FIGURES", "Plan", "exponents", "measure_rendezvous"]

BACKENDS = ("etcd", "tcpstore")

FIGURES = ("seconds", "requests", "bytes", "server_cpu")
"""What a meeting costs; all but the time are told for one rank. Requests, bytes and CPU are the server's."""

ENOUGH = 32
"""The number of ranks from which on a law is fitted: below it what does not grow is most of the cost."""


class Plan(NamedTuple):
    """How much is measured.

    Attributes
    ----------
    sizes : sequence of int
        The numbers of ranks, ascending.
    rounds : int
        How often up to `ENOUGH` ranks meet; more of them meet once.
    limit : float
        The seconds that a meeting may be expected to take; of one beyond that only the law is told.
    relayed : int
        The largest number of ranks whose requests to a TCPStore are counted one by one.
    spread_over : float
        The seconds over which `relayed` ranks arrive when they do not arrive all at once.
    """

    sizes: Sequence[int]
    rounds: int
    limit: float
    relayed: int
    spread_over: float


Row = dict[str, Any]


def measure_rendezvous(plan: Plan, say: Callable[[str], object]) -> list[Row]:
    """Have ever more ranks meet on each backend, in each shape.

    Parameters
    ----------
    plan : Plan
        How much.
    say : callable
        Is told what has been done.

    Returns
    -------
    list of dict
        One for each meeting: backend, shape, ranks, and `FIGURES`; `by_law` names those that were not measured but
        follow from the smaller sizes, and `why` says why. Where `spread` is not zero the ranks came one by one.
    """
    rows: list[Row] = []
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(backend)) for backend in BACKENDS]
        for ranks in plan.sizes:
            for server in servers:
                told = {shape: _foretell(_series(rows, server.backend, shape), ranks) for shape in SHAPES}
                shapes = [shape for shape in SHAPES if told[shape].get("seconds", 0.0) <= plan.limit]
                found = _meet(server, ranks, shapes, plan)
                for shape in SHAPES:
                    row = _row(server.backend, shape, ranks)
                    row |= _complete(
                        found.get(shape, {"why": f"more than {plan.limit:.0f} s are expected"}), told[shape]
                    )
                    rows.append(row)
                    say(f"{server.backend} {shape} {ranks}: {row.get('seconds', math.nan):.3f} s {row.get('why', '')}")
        for server in servers:
            found = _meet(server, plan.relayed, list(SHAPES), plan, plan.spread_over)
            rows += [
                _row(server.backend, shape, plan.relayed, plan.spread_over) | _complete(found[shape], {})
                for shape in found
            ]
    return rows


def _row(backend: str, shape: str, ranks: int, spread: float = 0.0) -> Row:
    return {"backend": backend, "shape": shape, "ranks": ranks, "spread": spread}


def exponents(rows: Sequence[Row]) -> list[Row]:
    """Fit a power of the number of ranks to each series of measured figures.

    Parameters
    ----------
    rows : sequence of dict
        What `measure_rendezvous` gave.

    Returns
    -------
    list of dict
        For each backend, shape and figure the exponent, and the sizes that it was fitted to.
    """
    found = []
    for backend in BACKENDS:
        for shape in SHAPES:
            for figure in FIGURES:
                series = _series(rows, backend, shape)
                fitted = [
                    row for row in series if row["ranks"] >= ENOUGH and figure not in row["by_law"] and row[figure]
                ]
                if len(fitted) > 1:
                    sizes = [row["ranks"] for row in fitted]
                    slope, _ = linear_regression(
                        [math.log(size) for size in sizes], [math.log(row[figure]) for row in fitted]
                    )
                    found.append(
                        {"backend": backend, "shape": shape, "figure": figure, "exponent": slope, "sizes": sizes}
                    )
    return found


def _series(rows: Sequence[Row], backend: str, shape: str) -> list[Row]:
    return [row for row in rows if (row["backend"], row["shape"], row["spread"]) == (backend, shape, 0.0)]


def _foretell(series: Sequence[Row], ranks: int) -> Row:
    """Go on from the last two sizes: what a rank costs is taken for a constant and a share for each other rank."""
    if len(series) < 2:
        return {}
    before, last = series[-2:]
    told: Row = {}
    for figure in FIGURES:
        if not (before.get(figure) and last.get(figure)):
            continue  # the kernel tells CPU in hundredths of a second
        of_one = [row[figure] / (row["ranks"] if figure == "seconds" else 1) for row in (before, last)]
        share = max(0.0, (of_one[1] - of_one[0]) / (last["ranks"] - before["ranks"]))
        foretold = of_one[1] + share * (ranks - last["ranks"])
        told[figure] = foretold * (ranks if figure == "seconds" else 1)
    return told


def _complete(found: Row, law: Row) -> Row:
    """Fill in by the law what was not measured."""
    missing = [figure for figure in FIGURES if figure in law and ("why" in found or figure not in found)]
    return {**law, **found, "by_law": missing}


def _meet(server: Server, ranks: int, shapes: Sequence[str], plan: Plan, spread: float = 0.0) -> dict[str, Row]:
    """Have ranks meet in some shapes, and give for each what it cost."""
    if not shapes:
        return {}
    found: dict[str, Row] = {}
    namespace = f"scale-{ranks}-{spread:g}"
    config = {"backend": server.backend, "namespace": namespace, "component": "job", "options": server.options()}
    resident = server.process.memory_info().rss
    with open_ranks(config, ranks) as meeting:
        for shape in shapes:
            samples: list[tuple[float, Mapping[str, float]]] = []
            for number in range(plan.rounds if ranks <= ENOUGH and not spread else 1):
                component = f"{shape}-{number}"
                try:
                    seconds, before, after = meeting.meet(shape, component, server.counts, 2 * plan.limit, spread)
                except TimeoutError as error:
                    return found | {shape: {"why": str(error)}}
                samples.append((seconds, growth(before, after)))
            grown = (server.process.memory_info().rss - resident) / ranks
            found[shape] = {**_summary(ranks, samples), "server_memory": grown}
    if server.backend == "tcpstore" and ranks <= plan.relayed:
        relay = Relay(server.endpoint)
        options = {"host": "127.0.0.1", "port": relay.port}
        with open_ranks({**config, "namespace": f"{namespace}-counted", "options": options}, ranks) as meeting:
            for shape in shapes:
                _, before, after = meeting.meet(shape, shape, relay.counts, 10 * plan.limit, spread)
                asked = {what: count / ranks for what, count in growth(before, after).items() if count}
                del asked["bytes_in"]
                found[shape] |= {"requests": sum(asked.values()), "requests_by_name": asked}
        relay.close()
    return found


def _summary(ranks: int, samples: Sequence[tuple[float, Mapping[str, float]]]) -> Row:
    """Give the median of each figure over the rounds, for one rank."""

    def of_one(*what: str) -> float:
        return median(sum(counted[each] for each in what) for _, counted in samples) / ranks

    row = {
        "seconds": median(seconds for seconds, _ in samples),
        "bytes": of_one("bytes_in", "bytes_out"),
        "bytes_in": of_one("bytes_in"),
        "bytes_out": of_one("bytes_out"),
        "server_cpu": of_one("server_cpu"),
    }
    if "events" in samples[0][1]:
        row |= {
            what: of_one(what) for what in ("requests", "replies", "events", "message_bytes_in", "message_bytes_out")
        }
    return row
