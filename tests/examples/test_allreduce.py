"""The example of torch.distributed, as its page gives it and with ranks that are started one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer, free_port
from etha.kvstore import open_store_from_config

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
        out, err = running.communicate(timeout=shell.seconds)
        assert (running.returncode, err) == (0, "")
        assert f"rank {rank}: the sum over 2 ranks is 3, as it should be\n" in out
    assert etcd.ctl("get", "--prefix", "apart/", "--keys-only").split() == []


def test_two_ranks_that_are_started_at_once_meet_in_the_store_of_a_url(etcd: EtcdServer, shell: Shell) -> None:
    ran = shell.run([*EXAMPLE, "--url", f"etcd://{etcd.endpoint}/together/trainer"])
    assert (ran.returncode, ran.stderr) == (0, "")
    sums = [line for line in ran.stdout.splitlines() if " the sum over 2 ranks is 3," in line]
    assert sorted(line.partition(":")[0] for line in sums) == ["rank 0", "rank 1"]
    assert etcd.ctl("get", "--prefix", "together/", "--keys-only").split() == []


def test_a_rank_that_is_killed_before_the_other_comes_is_named(etcd: EtcdServer, shell: Shell) -> None:
    url = f"etcd://{etcd.endpoint}/killed/trainer?lease_ttl=1"
    rank_1 = shell.start([*EXAMPLE, "--url", url], RANK="1", WORLD_SIZE="2")
    with open_store_from_config(url) as store, store.watch("rank:1/here") as watch:
        if not watch.state:
            assert watch.next(shell.seconds).value == b"1"
        rank_1.kill()
        assert watch.next(shell.seconds).value is None
    ran = shell.run([*EXAMPLE, "--url", url, "--patience", "0.5"], RANK="0", WORLD_SIZE="2")
    assert ran.returncode == 1
    assert ran.stderr.endswith("1 absent: rank:1/here\n")


def test_a_rank_that_died_after_it_was_here_keeps_nobody_longer_than_its_patience(
    etcd: EtcdServer, shell: Shell
) -> None:
    etcd.ctl("put", "dead/trainer/rank:0/here", "1")
    etcd.ctl("put", "dead/trainer/group/address", f"127.0.0.1:{free_port()}")
    etcd.ctl("put", "gone/trainer/rank:1/here", "1")
    for rank, namespace in (1, "dead"), (0, "gone"):
        url = f"etcd://{etcd.endpoint}/{namespace}/trainer"
        ran = shell.run([*EXAMPLE, "--url", url, "--patience", "1"], RANK=str(rank), WORLD_SIZE="2")
        assert ran.returncode == 1
        assert ran.stderr.splitlines()[-1].startswith(f"rank {rank}: a rank that was here has died, or cannot be")
        assert "Traceback" not in ran.stderr


def test_a_rank_that_does_not_come_is_named(etcd: EtcdServer, shell: Shell) -> None:
    url = f"etcd://{etcd.endpoint}/alone/trainer"
    ran = shell.run([*EXAMPLE, "--url", url, "--patience", "0.5"], RANK="0", WORLD_SIZE="2")
    assert ran.returncode == 1
    assert re.fullmatch(r"rank 0: timed out .*: 1 of 2 matched; 1 absent: rank:1/here\n", ran.stderr)
    assert etcd.ctl("get", "--prefix", "alone/", "--keys-only").split() == []


@pytest.mark.parametrize(
    "environment", [{"RANK": "0"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}]
)
def test_a_rank_that_is_not_told_who_it_is_says_what_it_wants(shell: Shell, environment: dict[str, str]) -> None:
    ran = shell.run(EXAMPLE, **environment)
    assert ran.returncode == 2
    assert "error: RANK and WORLD_SIZE are two numbers, such as 0 and 2, and not " in ran.stderr.splitlines()[-1]


def test_a_host_that_is_not_of_this_machine_is_named(shell: Shell) -> None:
    elsewhere = "203.0.113.1"  # reserved for examples, so that no machine has it
    url = "memory:///refused/trainer"
    ran = shell.run([*EXAMPLE, "--url", url, "--host", elsewhere], RANK="0", WORLD_SIZE="2")
    assert ran.returncode == 1
    assert re.fullmatch(rf"rank 0: .*{elsewhere}.*; --host is an address of this machine\n", ran.stderr)


def test_two_ranks_that_find_no_store_end_with_the_reason(shell: Shell) -> None:
    ran = shell.run([*EXAMPLE, "--url", "etcd://127.0.0.1:1/nowhere/trainer?connect_timeout=0.5"])
    assert ran.returncode == 1
    assert re.search(r"^rank \d: .*127\.0\.0\.1:1", ran.stderr, re.MULTILINE)
    assert ran.stderr.splitlines()[-1].startswith("allreduce failed: process ")
