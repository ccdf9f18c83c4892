"""Random fault schedules for as long as one likes, each history checked; the command that ``make soak`` runs.

    python tests/faults/soak.py --seconds 600 [--seed N] [--only SITE]
    python tests/faults/soak.py --replay FILE

It ends at the first failure, keeps the history in a file, and says how to check it again and how to play the same
schedule again: the same faults and the same calls, though never at the same instants.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tools"))

from laboratory import Site
from schedules import Record, play
from sites import MAKE
from traffic import Wrap, unchanged

COMMAND = "python tests/faults/soak.py"

WEIGHTS = {"etcd-cluster": 4, "etcd": 3, "tcpstore": 3, "memory": 1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if options.replay is not None:
        return replay(options.replay)
    return soak(options.seconds, options.seed, options.only)


def soak(seconds: float, seed: int, only: str | None, wrap: Wrap = unchanged) -> int:
    """Play schedules until the time is up; give the exit status."""
    end = monotonic() + seconds
    operations = 0
    sites: dict[str, Site] = {}
    with ExitStack() as running:
        for number in itertools.count():
            if number and monotonic() >= end:
                print(f"{number} schedules, {operations:,} checked operations, 0 violations")
                return 0
            name = only or random.Random(seed + number).choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            record = Record(name, seed + number)
            try:
                if name not in sites:
                    sites[name] = running.enter_context(MAKE[name]())
                play(record, sites[name], wrap=wrap)
                record.judge()
                sites[name].renew()
            except Exception as error:  # noqa: BLE001 (whatever it is, it ends the run)
                return report(record, error, f"{number} schedules, {operations:,} checked operations before it")
            operations += len(record.history)
            print(record, flush=True)
    raise AssertionError("numbers don't end")


def report(record: Record, error: Exception, so_far: str) -> int:
    """Say what failed, and keep its history."""
    path = Path(tempfile.gettempdir()) / f"history-{record.site}-{record.seed}.jsonl"
    record.write(path)
    print(f"\nFAILED, with {so_far}: {type(error).__name__}: {error}\n")
    print(f"the same schedule: {COMMAND} --only {record.site} --seed {record.seed} --seconds 1")
    print(f"the same history:  {COMMAND} --replay {path}")
    return 1


def replay(path: Path) -> int:
    """Check a history that was kept; give the exit status."""
    record = Record.read(path)
    try:
        record.judge()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is the answer)
        print(f"{type(error).__name__}: {error}")
        return 1
    print(f"{record}\n1 schedule, {len(record.history):,} checked operations, 0 violations")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run random fault schedules on real servers and check every history.")
    parser.add_argument("--seconds", type=float, default=600.0, help="for how long to begin new ones (600)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="the first one's")
    parser.add_argument("--only", choices=sorted(MAKE.keys() - {"etcd-users"}), help="on this site alone")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="check a history that was kept, and nothing else")
    return parser


if __name__ == "__main__":
    # Of the connections that are cut on purpose torch would print a page each.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    sys.exit(main())
