"""What the store costs beside what a user would write or pick instead: ``python benchmarks/bench.py [--quick]``.

Every group of measurements runs in a process of its own, on servers of its own, so that none inherits another's threads
and a failure costs no other its result. ``--only NAME`` runs one group and writes nothing. The results go to
``benchmarks/results``; those of a quick run to ``benchmarks/results/quick``, which git ignores.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tools"))

from etcd_server import etcd_version
from harness import Result
from report import as_json, as_markdown, as_text

HERE = Path(__file__).resolve().parent

GROUPS = {
    "startup": ["startup.measure"],
    "memory": ["memory.measure", "wakes.measure_memory"],
    "tcpstore": ["tcpstore.measure", "wakes.measure_lateness"],
    "etcd": ["etcd.measure_calls"],
    "etcd-threads": ["etcd.measure_threads"],
    "etcd-disk": ["etcd.measure_disk"],
    "etcd-members": ["etcd.measure_members"],
    "etcd-wake": ["wakes.measure_etcd"],
    "etcd-arrivals": ["waits.measure_arrivals"],
    "etcd-crowd": ["waits.measure_crowd"],
    "quiet": ["waits.measure_quiet"],
}

TOGETHER = ("etcd-arrivals", "etcd-crowd", "quiet")
"""Groups that time nothing and spend most of their own time asleep: they run at the same time."""

GROUP_SECONDS = 600.0
"""After this a group has failed."""

PACKAGES = (
    "etha-kvstore",
    "etha-kvstore-memory",
    "etha-kvstore-tcpstore",
    "etha-kvstore-etcd",
    "aetcd",
    "etcd-client-py",
    "etcd3",
    "etcd3gw",
    "grpcio",
    "jax",
    "jaxlib",
    "protobuf",
    "py-key-value-aio",
    "tooz",
    "torch",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute, and less to be trusted")
    parser.add_argument("--only", choices=GROUPS, metavar="NAME", help=f"one group alone: {', '.join(GROUPS)}")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.into is not None:
        found = Result()
        for path in GROUPS[options.only]:
            merge(found, options.only, _function(path)(options.quick))
        options.into.write_bytes(pickle.dumps(found))
        return 0
    environment = describe(options.quick)
    start = monotonic()
    result = Result()
    wanted = [options.only] if options.only else list(GROUPS)
    patient = [name for name in wanted if name in TOGETHER]
    for names in [*([name] for name in wanted if name not in TOGETHER), *([patient] if patient else [])]:
        began = monotonic()
        print(f"{', '.join(names)} ...", end=" ", flush=True)
        with ThreadPoolExecutor(len(names)) as running:
            for name, outcome in zip(names, running.map(partial(run_group, quick=options.quick), names), strict=True):
                merge(result, name, outcome)
        print(f"{monotonic() - began:.1f} s", flush=True)
    environment["seconds"] = round(monotonic() - start, 1)
    print(as_text(result))
    if options.only is None:
        folder = HERE / "results" / ("quick" if options.quick else "")
        write(result, environment, folder)
        print(f"\n{environment['seconds']:.0f} s in all; the table, the plots and the numbers are in {folder}")
    return 1 if any(what.startswith("failed: ") for what in result.facts) else 0


def run_group(name: str, quick: bool) -> Result | str:
    """Run a group in a process of its own; give what it found, or how it failed."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "result"
        command = [sys.executable, __file__, "--only", name, "--into", str(found), *(["--quick"] if quick else [])]
        try:
            ended = subprocess.run(
                command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=GROUP_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"it was not done after {GROUP_SECONDS:.0f} s"
        if ended.returncode == 0:
            result: Result = pickle.loads(found.read_bytes())
            return result
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        print("", *said[-20:], sep="\n    ", file=sys.stderr)
        return said[-1] if said else f"it ended with {ended.returncode}"


def merge(result: Result, name: str, found: Result | str) -> None:
    """Add what a group found."""
    if isinstance(found, str):
        result.facts[f"failed: {name}"] = found
        return
    result.lines += found.lines
    result.series += found.series
    result.points.update(found.points)


def describe(quick: bool) -> dict[str, Any]:
    """Say where and with what the run is made."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "quick": quick,
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "system": platform.platform(),
        "load": " ".join(f"{each:.2f}" for each in os.getloadavg()),
        "python": platform.python_version(),
        "etcd": etcd_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def write(result: Result, environment: dict[str, Any], folder: Path) -> None:
    """Write the JSON file, the Markdown page and the plots."""
    from plots import draw

    folder.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(as_json(result, environment), indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(numbers + "\n", "utf-8")
    (folder / "results.md").write_text(as_markdown(result, environment), "utf-8")
    draw(result, folder)


def _function(path: str) -> Callable[[bool], Result]:
    module, _, name = path.partition(".")
    function: Callable[[bool], Result] = getattr(import_module(module), name)
    return function


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    sys.exit(main())
