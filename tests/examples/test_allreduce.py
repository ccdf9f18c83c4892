"""The example of torch.distributed, as its page gives it and with ranks that are started one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer

if TYPE_CHECKING:
    from tests.examples.conftest import Shell, Shown

PAGE = "exchange-a-process-group-address.md"
EXAMPLE = ["python", "examples/allreduce.py"]

pytestmark = pytest.mark.xdist_group("allreduce")


def without_ports(lines: Sequence[str]) -> list[str]:
    """Give lines in an order that does not depend on which rank was the faster."""
    return sorted(re.sub(r":\d{4,5}\b", ":PORT", line) for line in lines)


def test_the_command_of_the_page_prints_what_the_page_shows(shell: Shell, shown: Callable[[str], Shown]) -> None:
    page = shown(PAGE)
    ran = shell.run(page.command)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert without_ports(ran.stdout.splitlines()) == without_ports(page.output)
    assert len(page.output) == 3


def test_ranks_that_are_started_one_by_one_meet_and_leave_nothing_in_etcd(etcd: EtcdServer, shell: Shell) -> None:
    url = f"etcd://{etcd.endpoint}/apart/trainer"
    ranks = {rank: shell.start(EXAMPLE, RANK=str(rank), WORLD_SIZE="2", ETHA_KVSTORE_URL=url) for rank in (1, 0)}
    for rank, running in ranks.items():
        out, err = running.communicate(timeout=90.0)
        assert (running.returncode, err) == (0, "")
        assert f"rank {rank}: the sum over 2 ranks is 3, as it should be\n" in out
    assert etcd.ctl("get", "--prefix", "apart/", "--keys-only").split() == []


def test_a_rank_that_does_not_come_is_named(etcd: EtcdServer, shell: Shell) -> None:
    url = f"etcd://{etcd.endpoint}/alone/trainer"
    ran = shell.run([*EXAMPLE, "--url", url, "--patience", "0.5"], RANK="0", WORLD_SIZE="2")
    assert ran.returncode == 1
    assert re.fullmatch(r"rank 0: timed out .*: 1 of 2 matched; 1 absent: rank:1/here\n", ran.stderr)
    assert etcd.ctl("get", "--prefix", "alone/", "--keys-only").split() == []


def test_two_ranks_that_find_no_store_end_with_the_reason(shell: Shell) -> None:
    ran = shell.run([*EXAMPLE, "--url", "etcd://127.0.0.1:1/nowhere/trainer?connect_timeout=0.5"])
    assert ran.returncode == 1
    assert re.search(r"^rank \d: .*127\.0\.0\.1:1", ran.stderr, re.MULTILINE)
    assert ran.stderr.splitlines()[-1].startswith("allreduce failed: process ")
