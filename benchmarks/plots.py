"""The plots: each value beside its target, every contestant's times, set to wake, and lateness.

They are made for print: no colour carries a meaning that shape or brightness does not carry too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import Line, Result, Series
from report import MISSED, lines_of, verdict
from targets import TARGETS, Target
from wakes import GRACE, SHARE

__all__ = ["draw"]

OURS = "etha.kvstore"
DARK, MIDDLE, LIGHT = "#12395b", "#7f7f7f", "#c4c4c4"
STYLES = (("-", DARK), ("--", "#b35806"), (":", MIDDLE))

LATENCIES = (
    "memory get",
    "memory set",
    "TCPStore get",
    "TCPStore set",
    "TCPStore exists",
    "TCPStore get_bytes of 1 MiB",
    "TCPStore set_bytes of 1 MiB",
    "etcd get",
    "etcd set",
    "etcd exists",
    "etcd delete",
    "etcd get by client",
    "etcd set by client",
    "etcd list_keys of 100",
)


def draw(result: Result, folder: Path) -> None:
    """Write every plot for which there are measurements."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "font.size": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 8,
            "axes.titlelocation": "left",
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
        }
    )
    _draw_targets(result, folder / "targets.png")
    _draw_latencies(result, folder / "latencies.png")
    _draw_wakes(result, folder / "wakes.png")
    _draw_lateness(result, folder / "lateness.png")


def _judged(result: Result) -> Iterator[tuple[Target, Line, float]]:
    """Give each judged line with its share of what its target allows; below one it is met."""
    for target in TARGETS:
        for _, line in lines_of(target, result):
            if line is not None and not line.stated:
                limit = target.limit if line.limit is None else line.limit
                yield target, line, limit / line.value if target.at_least else line.value / limit


def _draw_targets(result: Result, path: Path) -> None:
    from matplotlib import pyplot

    judged = list(_judged(result))
    if not judged:
        return
    figure, axes = pyplot.subplots(figsize=(6.7, 0.2 * len(judged) + 0.8))
    for place, (target, line, share) in enumerate(judged):
        missed = verdict(target, line) == MISSED
        if line.quartiles is not None:
            ends = [share * quartile / line.value for quartile in line.quartiles]
            if target.at_least:
                ends = [share * line.value / quartile for quartile in line.quartiles]
            axes.plot(ends, [place, place], color=LIGHT, linewidth=4, solid_capstyle="butt", zorder=1)
        axes.plot(
            max(share, 0.01), place, "X" if missed else "o", color="#b35806" if missed else DARK, markersize=5, zorder=2
        )
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(judged)), [_label(target, line) for target, line, _ in judged])
    axes.invert_yaxis()
    axes.set_xlabel("measured, as a share of what the target allows (bar: the middle half of the rounds)")
    axes.set_title("Left of the line: target met (●). Right of it: missed (✖).")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.5)
    axes.set_axisbelow(True)
    figure.savefig(path)
    pyplot.close(figure)


def _label(target: Target, line: Line) -> str:
    return target.short if len(target.lines) == 1 else f"{target.short}: {line.what}"


def _draw_latencies(result: Result, path: Path) -> None:
    from matplotlib import pyplot

    found = {each.name: each for each in result.series}
    shown = [found[name] for name in LATENCIES if name in found]
    if not shown:
        return
    heights = [len(each.samples) for each in shown]
    figure, grid = pyplot.subplots(
        len(shown),
        1,
        figsize=(6.3, 0.16 * sum(heights) + 0.4 * len(shown)),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
    )
    for axes, series in zip(grid.flat, shown, strict=True):
        _draw_one(axes, series)
    grid[-1][0].set_xscale("log")
    grid[-1][0].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    grid[-1][0].set_xlabel("time of one call, µs (mark: median; end of the line: 99th percentile)")
    figure.subplots_adjust(hspace=0.9)
    figure.savefig(path)
    pyplot.close(figure)


def _draw_one(axes: Any, series: Series) -> None:
    names = sorted(series.samples, key=series.median)
    for place, name in enumerate(names):
        median, late = series.median(name) * 1e6, series.p99(name) * 1e6
        colour = DARK if name.startswith(OURS) else MIDDLE
        axes.plot([median, late], [place, place], color=colour, linewidth=1)
        axes.plot(median, place, "o" if name.startswith(OURS) else "s", color=colour, markersize=4)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(series.name, fontweight="bold", pad=2)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.5)
    axes.set_axisbelow(True)


def _draw_wakes(result: Result, path: Path) -> None:
    from matplotlib import pyplot

    shown = [each for each in result.series if each.name.endswith("set to wake")]
    if not shown:
        return
    figure, grid = pyplot.subplots(1, len(shown), figsize=(3.4 * len(shown), 2.4), sharey=True, squeeze=False)
    for axes, series in zip(grid.flat, shown, strict=True):
        for (line, colour), name in zip(STYLES, series.samples, strict=False):
            samples = [sample * 1e3 for sample in series.all_samples(name)]
            axes.step(samples, _shares(samples), line, where="post", color=colour, linewidth=1.3, label=name)
        axes.set_xscale("log")
        axes.set_title(series.name, fontweight="bold")
        axes.set_xlabel("from the set to the wake, ms")
        axes.legend(frameon=False, fontsize=7, loc="lower right")
        axes.grid(color="#e4e4e4", linewidth=0.5)
    grid[0][0].set_ylabel("share of waits awake")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _shares(samples: Sequence[float]) -> list[float]:
    return [(place + 1) / len(samples) for place in range(len(samples))]


def _draw_lateness(result: Result, path: Path) -> None:
    from matplotlib import pyplot

    if not result.points:
        return
    figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
    for (name, pairs), marker, colour in zip(result.points.items(), ("o", "x"), (DARK, MIDDLE), strict=True):
        waited, late = zip(*pairs, strict=True)
        shown = [max(each * 1e3, 0.01) for each in late]
        axes.plot(waited, shown, marker, color=colour, markersize=3, label=name, linestyle="none")
    longest = max(waited for pairs in result.points.values() for waited, _ in pairs)
    times = [0.004 * (longest / 0.004) ** (step / 50) for step in range(51)]
    allowed = [(SHARE * time + GRACE) * 1e3 for time in times]
    axes.plot(times, allowed, color="black", linewidth=0.9, label="allowed: 2 % of the time waited + 1.5 ms")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("time waited, s")
    axes.set_ylabel("late by, ms (0.01: no later)")
    axes.legend(frameon=False, fontsize=7)
    axes.grid(color="#e4e4e4", linewidth=0.5)
    figure.savefig(path)
    pyplot.close(figure)
