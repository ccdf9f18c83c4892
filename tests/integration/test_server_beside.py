"""A command that is run beside an etcd: whatever ends it, the server is there until then and no longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

LEAVES_IN_ORDER = """
import os, signal, sys
from etha.kvstore import open_store

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
endpoint = os.environ["ETCD_ENDPOINT"]
with open_store("etcd", namespace="n", component="c", endpoints=[endpoint], timeout=5.0) as store:
    try:
        store.set("ready", "1")
        print(os.getpid(), flush=True)
        store.wait_for_key("never", 60)
    except (KeyboardInterrupt, SystemExit):
        store.set("leaving", "1")
        print("left in order", flush=True)
"""


@pytest.mark.parametrize("end", ["Ctrl-C in its terminal", "SIGTERM"])
def test_a_command_beside_a_server_leaves_in_order_and_nothing_is_left_running(end: str) -> None:
    command = [sys.executable, str(ROOT / "tools/etcd_server.py"), "--", sys.executable, "-c", LEAVES_IN_ORDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as beside:
        assert beside.stdout is not None
        serves, ready = beside.stdout.readline(), beside.stdout.readline()
        started = psutil.Process(beside.pid).children(recursive=True)
        assert serves.startswith("etcd serves at ")
        assert int(ready) in [each.pid for each in started]
        if end == "SIGTERM":
            beside.terminate()
        else:
            os.killpg(beside.pid, signal.SIGINT)
        assert beside.stdout.read() == "left in order\n"
        assert beside.wait(30) == 0
    assert psutil.wait_procs(started, timeout=30)[1] == []
