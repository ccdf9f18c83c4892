"""The batch script for Slurm, run on this machine by the stand-in beside it: a gate that all ranks pass, or none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from etcd_server import EtcdServer

if TYPE_CHECKING:
    from tests.examples.conftest import Shell, Shown

PAGE = "gate-a-slurm-job.md"
JOB = ["examples/slurm/local.sh", "examples/slurm/job.sbatch"]

pytestmark = pytest.mark.xdist_group("slurm")


def as_shown(lines: Sequence[str]) -> list[str]:
    """Give lines without ports and times, in an order that does not depend on which rank was the faster."""
    changing = re.compile(r":\d{4,5}\b|\d+(\.\d)? s\b")
    # How often progress is told depends on how far apart the ranks come.
    progress = re.compile(r"etha-kv: \d of 2; ")
    return sorted(changing.sub("...", line) for line in lines if not progress.match(line))


def test_the_command_of_the_page_prints_what_the_page_shows(shell: Shell, shown: Callable[[str], Shown]) -> None:
    page = shown(PAGE)
    ran = shell.run(page.command)
    assert ran.returncode == 0, ran.stderr
    assert as_shown((ran.stdout + ran.stderr).splitlines()) == as_shown(page.output)


def test_no_rank_starts_its_work_before_the_last_is_prepared(etcd: EtcdServer, shell: Shell, tmp_path: Path) -> None:
    ran = shell.run(
        [*JOB, "sh", "-c", f'ls {tmp_path}; echo "rank $RANK of $WORLD_SIZE"'],
        ETCD_ENDPOINT=etcd.endpoint,
        PREPARE=f"touch {tmp_path}/prepared-$SLURM_PROCID",
    )
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    assert sorted(line for line in said if line.startswith("rank ")) == ["rank 0 of 2", "rank 1 of 2"]
    assert [said.count(f"prepared-{rank}") for rank in range(2)] == [2, 2]


def test_a_rank_that_does_not_come_is_named_and_ends_the_job(etcd: EtcdServer, shell: Shell) -> None:
    seconds = f"3571.{os.getpid()}"  # no other process of the machine sleeps that long
    ran = shell.run(
        [*JOB, "echo", "work"],
        ETCD_ENDPOINT=etcd.endpoint,
        PREPARE=f'[ "$SLURM_PROCID" != 1 ] || sleep {seconds}',
        PATIENCE="2",
    )
    assert ran.returncode == 1
    assert "rank:1/ready" in ran.stderr
    assert "work" not in ran.stdout.splitlines()
    asleep = [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", seconds]]
    assert psutil.wait_procs(asleep, timeout=10.0)[1] == []


def test_a_rank_that_fails_to_prepare_ends_the_job_at_once(etcd: EtcdServer, shell: Shell) -> None:
    ran = shell.run(
        [*JOB, "echo", "work"],
        ETCD_ENDPOINT=etcd.endpoint,
        PREPARE='[ "$SLURM_PROCID" != 1 ] || exit 7',
        PATIENCE="3600",
    )
    assert ran.returncode == 7
    assert "work" not in ran.stdout.splitlines()


def test_a_requeued_job_has_other_keys_and_all_of_them_end_with_their_lease(etcd: EtcdServer, shell: Shell) -> None:
    for count in ("0", "1"):
        job = {"SLURM_JOB_ID": "4242", "SLURM_NTASKS": "1", "SLURM_RESTART_COUNT": count}
        ran = shell.run([*JOB, "true"], ETCD_ENDPOINT=etcd.endpoint, **job)
        assert ran.returncode == 0, ran.stderr
    found = json.loads(etcd.ctl("get", "--prefix", "job-4242-", "--write-out", "json"))["kvs"]
    assert len(found) == 2
    assert all(each["lease"] for each in found)


def test_without_the_address_of_an_etcd_it_says_what_to_set(shell: Shell) -> None:
    ran = shell.run([*JOB, "true"])
    assert ran.returncode != 0
    assert "ETCD_ENDPOINT: set it to the host:port of an etcd" in ran.stderr


def test_without_a_command_it_says_that_one_is_wanted(etcd: EtcdServer, shell: Shell) -> None:
    ran = shell.run(JOB, ETCD_ENDPOINT=etcd.endpoint)
    assert ran.returncode != 0
    assert "give the command that each rank runs" in ran.stderr
