"""What many ranks, and many keys of others, cost: ``python benchmarks/scale.py [--quick]``.

It starts its servers, prints what it has done so far, and writes ``scale.json``, ``scale.md`` and the plots into
``benchmarks/results``. All takes a few minutes, ``--quick`` about half of one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tools"))

from etcd_server import etcd_version
from scale_namespaces import measure_namespaces
from scale_rendezvous import Plan, exponents, measure_rendezvous
from scale_report import draw, write_table

__all__ = ["measure", "write"]

RESULTS = Path(__file__).parent / "results"

WHOLE = Plan(sizes=(8, 32, 128, 512, 2048), rounds=5, limit=60.0, relayed=128, spread_over=5.0)
QUICK = Plan(sizes=(8, 32, 64), rounds=2, limit=5.0, relayed=32, spread_over=1.0)

OTHERS, QUICK_OTHERS = 100_000, 2_000
SAMPLES, QUICK_SAMPLES = 12, 2


def measure(quick: bool) -> dict[str, Any]:
    """Measure the growth of a rendezvous, and what the keys of other jobs cost.

    Parameters
    ----------
    quick : bool
        Whether to do little of it, to see that it works.

    Returns
    -------
    dict
        What `write` writes.
    """
    begun = monotonic()

    def say(what: str) -> None:
        print(f"{monotonic() - begun:6.1f} s  {what}", flush=True)

    rendezvous = measure_rendezvous(QUICK if quick else WHOLE, say)
    others = QUICK_OTHERS if quick else OTHERS
    namespaces = measure_namespaces(others, QUICK_SAMPLES if quick else SAMPLES, say)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "quick": quick,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[1],
        "python": platform.python_version(),
        "versions": {"etcd": etcd_version(), **{name: version(name) for name in ("torch", "grpcio", "etha-kvstore")}},
        "rendezvous": rendezvous,
        "exponents": exponents(rendezvous),
        "namespaces": namespaces,
    }


def write(results: dict[str, Any], folder: Path) -> None:
    """Write ``scale.json``, ``scale.md`` and the plots.

    Parameters
    ----------
    results : dict
        What `measure` gave.
    folder : Path
        Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scale.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "scale.md").write_text(write_table(results))
    draw(results, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="do little of it, to see that it works")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the results go")
    arguments = parser.parse_args()
    write(measure(arguments.quick), arguments.folder)
