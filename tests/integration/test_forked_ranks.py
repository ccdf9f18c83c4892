"""A hundred processes, forked from one that has imported torch, meet again and again; each is always released."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etcd_server import EtcdServer, free_port

RANKS = 100
ROUNDS = int(os.environ.get("KVSTORE_ROUNDS", "10"))


def run_ranks(url: str) -> str:
    script = Path(__file__).with_name("forked_ranks.py")
    command = [sys.executable, str(script), url, str(RANKS), str(ROUNDS)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60 + 30 * ROUNDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    return ended.stdout


@pytest.mark.xdist_group("forked ranks")  # a hundred processes at a time are enough
@pytest.mark.timeout(60 + 30 * ROUNDS)
@pytest.mark.parametrize("backend", ["etcd", "tcpstore"])
def test_every_forked_rank_is_released_in_every_round(backend: str) -> None:
    released = f"{RANKS} of {RANKS} ranks were released in all of {ROUNDS} rounds"
    if backend == "etcd":
        with EtcdServer() as server:
            assert released in run_ranks(f"etcd://{server.endpoint}/forked/ranks")
    else:
        url = f"tcpstore://127.0.0.1:{free_port()}/forked/ranks?is_master={{role}}"
        assert released in run_ranks(url)
