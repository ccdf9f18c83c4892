"""Ranks that the real ``torchrun`` started meet through the store that its agent hosts, with no options at all."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from etcd_server import free_port

RANK = """
import os, sys
from pathlib import Path
from etha.kvstore.patterns import expand
from etha_kvstore_tcpstore import TCPKVStore

rank, attempt = int(os.environ["RANK"]), os.environ["TORCHELASTIC_RESTART_COUNT"]
with (
    TCPKVStore("job-" + attempt, "trainer") as store,
    TCPKVStore("job", "trainer") as careless,  # without the attempt in its namespace
):
    store.set(f"rank:{rank}/ready", "1")
    met = store.wait_for_keys("rank:*/ready", 2, timeout=60, candidate_keys=expand("rank:*/ready", range(2)))
    found = careless.get(f"rank:{rank}/attempt")
    careless.set(f"rank:{rank}/attempt", attempt)
    Path(sys.argv[1], f"{attempt}-{rank}").write_text(f"{met} {found} {store.port == int(os.environ['MASTER_PORT'])}")
    store.set(f"rank:{rank}/done", "1")
    store.wait_for_keys("rank:*/done", 2, timeout=60, candidate_keys=expand("rank:*/done", range(2)))
if attempt == "0":
    sys.exit(1)  # the agent starts both ranks once more
"""


def test_ranks_meet_through_the_agents_store_which_outlives_a_restart(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    said = tmp_path / "said"
    said.mkdir()
    command = [
        *(sys.executable, str(Path(sysconfig.get_path("scripts"), "torchrun"))),
        *("--nnodes=1", "--nproc-per-node=2", "--max-restarts=1", "--monitor-interval=0.1"),
        *("--master-addr=127.0.0.1", f"--master-port={free_port()}"),
        *(str(script), str(said)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stderr
    met = "['rank:0/ready', 'rank:1/ready']"
    assert {path.name: path.read_text() for path in said.iterdir()} == {
        "0-0": f"{met} None True",
        "0-1": f"{met} None True",
        "1-0": f"{met} b'0' True",
        "1-1": f"{met} b'0' True",
    }
