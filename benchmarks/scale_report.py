"""The tables and the plots of what `scale.py` measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw", "write_table"]

Row = Mapping[str, Any]

SHAPES = {"each": "all read all", "leader": "a leader reads all"}

PLOTS = {
    "seconds": ("scale-time.png", "seconds until the last rank is done", "Time of a rendezvous"),
    "requests": ("scale-requests.png", "requests a rank", "Requests to the server"),
    "bytes": ("scale-bytes.png", "bytes a rank, both ways", "Bytes to and from the server"),
}

LOOKS = {"etcd": ("tab:blue", "o"), "tcpstore": ("tab:orange", "s")}

FIGURES = {
    "seconds": "time",
    "requests": "requests a rank",
    "bytes": "bytes a rank",
    "server_cpu": "server's CPU a rank",
}


def write_table(results: Mapping[str, Any]) -> str:
    """Write all that was measured as Markdown.

    Parameters
    ----------
    results : dict
        What `scale.measure` gave.

    Returns
    -------
    str
        The text of ``scale.md``.
    """
    rows = results["rendezvous"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    spread = [row for row in rows if row["spread"]]
    parts = [
        "# Scale, measured",
        (
            f"On {results['date']}, {results['cores']} cores shared by the ranks and the servers, other load included "
            f"({results['load']:.1f} over five minutes), Python {results['python']}, {versions}. Written by "
            f"`benchmarks/scale.py{' --quick' if results['quick'] else ''}`; "
            "[the page on scale](../../docs/explanation/scale.md) says what it means."
        ),
        "## A rendezvous",
        (
            "All ranks begin at once. All but the time is told for one rank; bytes are what its connection carries, "
            "both ways; the server's memory is what it has grown by since the ranks began to connect. A figure after a "
            "`~` was not measured: it follows from the two sizes before it, by the law that a rank costs a constant "
            "and a share for each other rank."
        ),
    ]
    for shape, name in SHAPES.items():
        parts += [f"### {name.capitalize()}", _table(_meetings(rows, shape))]
    parts += [
        "## Growth",
        (
            "The power of the number of ranks that each figure grows with, fitted to what was measured from 32 on: "
            "0 does not grow, 1 is linear, 2 is the square."
        ),
        _table(_growth(results["exponents"])),
        "## Ranks that come one by one",
        f"{spread[0]['ranks']} ranks that arrive evenly over {spread[0]['spread']:g} s.",
        _table(_one_by_one(spread)),
        "## The keys of others",
        (
            f"A job with 100 keys alone in a server, and beside {results['namespaces'][0]['others']:,} keys of other "
            "components and namespaces in another one. Medians of interleaved rounds; the ratio is the median of the "
            "rounds, with its quartiles."
        ),
        _table(_beside(results["namespaces"])),
    ]
    return "\n\n".join(parts) + "\n"


def draw(results: Mapping[str, Any], folder: Path) -> None:
    """Draw the plots of the rendezvous.

    Parameters
    ----------
    results : dict
        What `scale.measure` gave.
    folder : Path
        Where the PNG files go.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    slopes = {(each["backend"], each["shape"], each["figure"]): each["exponent"] for each in results["exponents"]}
    for figure, (file, label, title) in PLOTS.items():
        drawing, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for backend, (colour, marker) in LOOKS.items():
            for shape, name in SHAPES.items():
                series = [row for row in _series(results["rendezvous"], backend, shape) if row.get(figure)]
                slope = slopes.get((backend, shape, figure))
                power = "" if slope is None else f" (power {slope:.1f})"
                axes.plot(
                    [row["ranks"] for row in series],
                    [row[figure] for row in series],
                    "-" if shape == "each" else "--",
                    color=colour,
                    label=f"{backend}, {name}{power}",
                )
                for row in series:
                    filled = colour if figure not in row["by_law"] else "white"
                    axes.plot(row["ranks"], row[figure], marker, color=colour, markerfacecolor=filled)
        sizes = sorted({row["ranks"] for row in results["rendezvous"]})
        axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel=label, title=f"{title}; hollow: by the law")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        drawing.savefig(folder / file, dpi=150)
        pyplot.close(drawing)


def _series(rows: Iterable[Row], backend: str, shape: str) -> list[Row]:
    return [row for row in rows if (row["backend"], row["shape"], row["spread"]) == (backend, shape, 0.0)]


def _meetings(rows: Iterable[Row], shape: str) -> list[list[str]]:
    table = [["backend", "ranks", "time", "requests", "bytes", "events", "server's CPU", "server's memory", ""]]
    for row in rows:
        if row["shape"] == shape and not row["spread"]:
            last = [_memory(row), row.get("why", "")]
            table.append([row["backend"], f"{row['ranks']:,}", *_figures(row), *last])
    return table


def _figures(row: Row) -> list[str]:
    return [
        _show(row, "seconds", lambda value: f"{_digits(value)} s"),
        _show(row, "requests", _count),
        _show(row, "bytes", _count),
        _show(row, "events", _count),
        _show(row, "server_cpu", lambda value: f"{_digits(value * 1000)} ms"),
    ]


def _memory(row: Row) -> str:
    return f"{row['server_memory'] / 1000:,.0f} kB" if "server_memory" in row else ""


def _show(row: Row, figure: str, form: Callable[[float], str]) -> str:
    if not row.get(figure):
        return ""  # not counted, or less CPU than the kernel tells
    return ("~" if figure in row["by_law"] else "") + form(row[figure])


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _growth(exponents: Sequence[Row]) -> list[list[str]]:
    table = [["backend", "shape", *FIGURES.values()]]
    found = {(each["backend"], each["shape"], each["figure"]): f"{each['exponent']:.2f}" for each in exponents}
    for backend in LOOKS:
        for shape, name in SHAPES.items():
            table.append([backend, name, *(found.get((backend, shape, figure), "") for figure in FIGURES)])
    return table


def _one_by_one(rows: Iterable[Row]) -> list[list[str]]:
    table = [["backend", "shape", "time", "requests", "bytes", "events", "server's CPU"]]
    return table + [[row["backend"], SHAPES[row["shape"]], *_figures(row)] for row in rows]


def _beside(rows: Iterable[Row]) -> list[list[str]]:
    table = [["backend", "work", "alone", "beside them", "ratio", "quartiles"]]
    for row in rows:
        quartiles = "" if row["quartiles"] is None else "{:.2f} to {:.2f}".format(*row["quartiles"])
        times = [f"{row[which]:,.0f} µs" for which in ("alone_us", "beside_us")]
        table.append([row["backend"], row["work"], *times, f"{row['ratio']:.2f}", quartiles])
    return table


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])
