"""What a run found, as text (the table of targets, what is missed, everybody's times) and as one JSON file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness import Line, Result, Series, duration
from targets import MISSES, TARGETS, Target

__all__ = ["as_json", "as_markdown", "as_text", "misses", "verdict"]

MET, MISSED, STATED, ABSENT = "met", "MISSED", "stated", "not measured"


def verdict(target: Target, line: Line) -> str:
    """Say whether a line is within its target."""
    if line.stated:
        return STATED
    limit = target.limit if line.limit is None else line.limit
    return MET if (line.value >= limit if target.at_least else line.value <= limit) else MISSED


def lines_of(target: Target, result: Result) -> list[tuple[str, Line | None]]:
    """Give a target's lines in their order; `None` for one that was not measured."""
    found = {line.what: line for line in result.lines if line.target == target.name}
    return [(what, found.get(what)) for what in target.lines]


def misses(result: Result) -> list[tuple[Target, Line, str]]:
    """List the lines that miss their targets, each with what is said about it."""
    return [
        (target, line, MISSES.get(f"{target.name}/{what}") or MISSES.get(target.name) or "No explanation yet.")
        for target in TARGETS
        for what, line in lines_of(target, result)
        if line is not None and verdict(target, line) == MISSED
    ]


def value(target: Target | None, line: Line) -> str:
    """Write a line's value with its unit, and its quartiles where there are any."""
    unit = line.unit if line.unit is not None else target.unit if target else "×"
    gap = "" if unit in ("", "×") else " "
    limit = line.limit or (target.limit if target else 0.0)
    near = limit > 0 and abs(line.value / limit - 1) < 0.01
    shown = f"{f'{line.value:.4g}' if near else digits(line.value)}{gap}{unit}"
    return shown if line.quartiles is None else f"{shown} ({digits(line.quartiles[0])} to {digits(line.quartiles[1])})"


def digits(number: float) -> str:
    """Write a number to three digits, a whole one as it is."""
    if number == int(number) or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.{min(4, 2 - math.floor(math.log10(abs(number))))}f}"


def as_text(result: Result) -> str:
    """Write the table for a terminal."""
    out = []
    for target in TARGETS:
        wanted = f"at most {target.wanted}" if target.wanted[0].isdigit() else target.wanted
        out.append("\n" + " | ".join(each for each in (target.work, target.beside, wanted) if each).replace("`", ""))
        for what, line in lines_of(target, result):
            if line is None:
                out.append(f"  {ABSENT:12} {what}")
            else:
                out.append(f"  {verdict(target, line):12} {what}: {value(target, line)}  [{line.note}]")
    out += [f"\nFAILED {failure}" for failure in failures(result)]
    return "\n".join(out)


def failures(result: Result) -> list[str]:
    """List the groups that ended with an error, and the errors."""
    return [
        f"{what.removeprefix('failed: ')}: {why}" for what, why in result.facts.items() if what.startswith("failed: ")
    ]


def as_markdown(result: Result, environment: Mapping[str, Any]) -> str:
    """Write the whole report."""
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    run = "a quick run" if environment["quick"] else "a full run"
    made = (
        f"Measured on {environment['date']} by {run} of {environment['seconds']:.0f} s: {environment['system']}, "
        f"{environment['cores']} cores ({environment['cpu']}), load {environment['load']} at the start."
    )
    how = (
        "A value is the median over the rounds of ours divided by theirs, round by round; the brackets hold its first "
        "and third quartile. What was measured, and how, is in `benchmarks/README.md`."
    )
    out = [
        "# What the store costs",
        made,
        how,
        table(("work", "beside", "at most", "measured", "verdict"), (_row(target, result) for target in TARGETS)),
    ]
    if missed := misses(result):
        out.append("## Missed")
        out += [
            f"**{target.work}, {line.what}**: {value(target, line)}, {line.note}.\n\n{text}"
            for target, line, text in missed
        ]
    if failed := failures(result):
        out += ["## Failed", *failed]
    out += ["![Every value beside its target](targets.png)", "## For the context"]
    context = [line for line in result.lines if not line.target]
    out.append(table(("what", "measured", "medians"), ((line.what, value(None, line), line.note) for line in context)))
    out += ["## Every contestant", "![Times of every contestant](latencies.png)", "![Set to wake](wakes.png)"]
    out += ["![Lateness of waits on TCPStore](lateness.png)"]
    out.append(table(("work", "contestant", "median", "99th percentile", "samples"), _times(result.series)))
    out += ["## Versions", f"Python {environment['python']}, etcd {environment['etcd']}, {packages}."]
    return "\n\n".join(out) + "\n"


def _row(target: Target, result: Result) -> tuple[str, ...]:
    measured, verdicts = [], []
    for what, line in lines_of(target, result):
        name = "" if len(target.lines) == 1 else f"{what}: "
        measured.append(f"{name}{'' if line is None else value(target, line)}")
        said = ABSENT if line is None else verdict(target, line)
        verdicts.append(f"**{said}**" if said in (MISSED, ABSENT) else said)
    return target.work, target.beside, target.wanted, "<br>".join(measured), "<br>".join(verdicts)


def _times(series: Iterable[Series]) -> Iterable[tuple[str, ...]]:
    for each in series:
        for name in each.samples:
            samples = each.all_samples(name)
            yield each.name, name, duration(each.median(name)), duration(each.p99(name)), f"{len(samples):,}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown."""
    head = list(head)
    every = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in every)


def as_json(result: Result, environment: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the JSON file holds: the environment, every line, and every contestant's rounds and percentiles."""
    by_name = {target.name: target for target in TARGETS}
    return {
        "environment": dict(environment),
        "targets": [
            {
                "work": target.work,
                "beside": target.beside,
                "wanted": target.wanted,
                "lines": [_line(line, target) for line in result.lines if line.target == target.name],
            }
            for target in by_name.values()
        ],
        "missed": [
            {"what": f"{target.name}/{line.what}", "explanation": text} for target, line, text in misses(result)
        ],
        "failed": failures(result),
        "context": [_line(line, None) for line in result.lines if not line.target],
        "series": [_series(each) for each in result.series],
        "lateness": {name: [[_short(one), _short(two)] for one, two in pairs] for name, pairs in result.points.items()},
    }


def _line(line: Line, target: Target | None) -> dict[str, Any]:
    limit = None if target is None or line.stated else target.limit if line.limit is None else line.limit
    return {
        "what": line.what,
        "value": _short(line.value),
        "quartiles": None if line.quartiles is None else [_short(each) for each in line.quartiles],
        "unit": line.unit if line.unit is not None else target.unit if target else "×",
        "limit": limit,
        "verdict": None if target is None else verdict(target, line),
        "note": line.note,
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "work": series.name,
        "seconds": {
            name: {
                "median": _short(series.median(name)),
                "p99": _short(series.p99(name)),
                "samples": len(series.all_samples(name)),
                "round_medians": [_short(each) for each in series.rounds(name)],
            }
            for name in series.samples
        },
    }


def _short(number: float) -> float:
    return float(f"{number:.4g}")
