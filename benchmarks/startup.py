"""Import and start: each in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from time import monotonic

from harness import Block, Contestant, Result, compare, interleave, sampled

__all__ = ["measure"]

IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
"""The statement's own time, in a fresh interpreter."""

START = "{}; import time; print(time.monotonic())"
"""The instant at which it is done; the monotonic clock is the same in all processes of a machine."""

FIRST_SET = (
    "from etha.kvstore import open_store; "
    "store = open_store('memory', namespace='job-42', component='trainer'); "
    "store.set('rank:0/ready', '1')"
)


def measure(quick: bool) -> Result:
    """Time both, pair by pair."""
    result = Result()
    rounds = 8 if quick else 30
    imports = interleave(
        "import",
        [
            Contestant("import etha.kvstore", _reported(IMPORT.format("import etha.kvstore"))),
            Contestant("import asyncio", _reported(IMPORT.format("import asyncio"))),
            Contestant(
                "import pluggy, importlib_metadata",
                _reported(IMPORT.format("import pluggy, importlib_metadata")),
            ),
        ],
        rounds,
        samples=1,
    )
    starts = interleave(
        "interpreter start",
        [
            Contestant("first set on memory", _started(START.format(FIRST_SET))),
            Contestant(
                "import pluggy, importlib_metadata", _started(START.format("import pluggy, importlib_metadata"))
            ),
            Contestant("bare interpreter", _started(START.format("pass"))),
        ],
        rounds,
        samples=1,
    )
    result.series += [imports, starts]
    result.lines += [
        compare("import", "import", imports, "import etha.kvstore", "import asyncio"),
        compare("start", "start", starts, "first set on memory", "import pluggy, importlib_metadata"),
    ]
    return result


def _reported(code: str) -> Block:
    """Have an interpreter say how long something took it."""
    return sampled(lambda: _run(code))


def _started(code: str) -> Block:
    """Have an interpreter say when it was done, and count from before it was started."""
    return sampled(lambda: -monotonic() + _run(code))


def _run(code: str) -> float:
    """Run code as a user does, whose interpreter compiles what is installed once: in the round that is not counted."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return float(ended.stdout)
