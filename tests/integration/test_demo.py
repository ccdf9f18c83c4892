"""The demo as a user runs it, on every backend, and the plan that it makes, with and without faults put into it."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest

from etcd_server import EtcdServer

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, str(ROOT / "examples/rendezvous.py")]
SIZES = [(1, 1), (3, 2), (4, 4)]
SECONDS = 240.0
"""How long a run may take on a busy machine, on which several processes import torch at once."""

pytestmark = pytest.mark.timeout(SECONDS + 60)


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("transfer_plan")


def demo(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, env=os.environ | environment
    )


def expected_elements(planning: ModuleType, engines: int) -> int:
    """Count what all engines hold: the model once, and what is not cut once for each."""
    return sum(math.prod(tensor.shape) * (engines if tensor.axis is None else 1) for tensor in planning.MODEL)


class TestDemo:
    @pytest.mark.parametrize(
        ("backend", "trainers", "engines"),
        [*(("memory", *size) for size in SIZES), ("tcpstore", 3, 2), ("etcd", 3, 2), ("etcd", 4, 4)],
    )
    def test_prints_a_complete_plan(self, planning: ModuleType, backend: str, trainers: int, engines: int) -> None:
        beside = [sys.executable, str(ROOT / "tools/etcd_server.py"), "--"] if backend == "etcd" else []
        sizes = ["--trainers", str(trainers), "--engines", str(engines)]
        ran = demo([*beside, *DEMO, "--backend", backend, *sizes])
        assert (ran.returncode, ran.stderr) == (0, "")
        lines = ran.stdout.splitlines()
        assert lines[-1] == f"plan complete: {expected_elements(planning, engines):,} elements, each exactly once"
        others = trainers + engines - 1
        assert ran.stdout.count(f"{others} of {others} others") == trainers + engines
        assert len(re.findall(r"^  trainer \d+ +-> inference \d+ ", ran.stdout, re.MULTILINE)) == trainers * engines
        phases = [line.split()[0] for line in lines[-9:-2]]
        assert phases == ["open", "publish", "meet", "read", "plan", "announce", "leave"]
        assert len(lines) < 60

    def test_leaves_nothing_in_an_etcd_that_goes_on(self) -> None:
        with EtcdServer() as server:
            ran = demo([*DEMO, "--backend", "etcd"], ETCD_ENDPOINT=server.endpoint)
            assert ran.returncode == 0, ran.stderr
            everything = json.dumps({"key": "AA==", "range_end": "AA=="}).encode()
            with urllib.request.urlopen(f"http://{server.endpoint}/v3/kv/range", everything, timeout=10) as answer:
                found = json.load(answer)
        assert int(found["header"]["revision"]) > 6 * 4  # so much was written,
        assert "kvs" not in found  # and is gone

    def test_says_how_to_get_an_etcd_where_none_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ETCD_ENDPOINT", raising=False)
        ran = demo([*DEMO, "--backend", "etcd"])
        assert ran.returncode == 2
        assert "make demo BACKEND=etcd" in ran.stderr

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ("plan[1:]", r"engine 0 receives embedding with \d+ elements missing and 0 too often"),
            ("[*plan, plan[0]]", r"engine 0 receives embedding with 0 elements missing and \d+ too often"),
            ("plan[::-1]", r"PlanError: \w+ \d came to the plan \w+, and trainer 0 to \w+"),
        ],
        ids=["a lost slice", "a doubled slice", "another order"],
    )
    def test_one_rank_with_a_faulty_plan_ends_it_at_once(self, change: str, complaint: str) -> None:
        program = f"""
import itertools, sys
sys.path.insert(0, {str(ROOT / "examples")!r})
import rendezvous
make_plan, calls = rendezvous.make_plan, itertools.count()
def faulty(trainers, engines):
    plan = make_plan(trainers, engines)
    return {change} if next(calls) == 1 else plan
rendezvous.make_plan = faulty
rendezvous.main()
"""
        started = time.monotonic()
        ran = demo([sys.executable, "-c", program])
        assert ran.returncode == 1
        assert re.match(rf"rendezvous failed in \w+ \d: .*{complaint}", ran.stderr.splitlines()[-1])
        assert "plan complete" not in ran.stdout
        assert time.monotonic() - started < 60.0  # half of what the other ranks would wait

    def test_a_rank_that_is_killed_ends_it_at_once_and_leaves_no_process(self) -> None:
        ranks: list[psutil.Process] = []
        arguments = [*DEMO, "--backend", "tcpstore", "--trainers", "1", "--engines", "1"]
        with psutil.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            started = time.monotonic()
            while len(ranks) < 2 and time.monotonic() - started < SECONDS:
                ranks = [child for child in running.children() if "spawn_main" in "".join(child.cmdline())]
            ranks[-1].kill()
            _, complaint = running.communicate(timeout=60.0)
            assert running.returncode == 1
        assert re.search(r"^rendezvous failed in \w+ 0: its process ended before its work", complaint, re.MULTILINE)
        assert psutil.wait_procs(ranks, timeout=10.0)[1] == []


def sides(planning: ModuleType, trainers: int, engines: int) -> tuple[list[list[Any]], list[list[Any]]]:
    """Allocate what all ranks of both sides hold: for each, shards and their arrays."""
    return (
        [planning.allocate(planning.cut_for_trainer, index, trainers) for index in range(trainers)],
        [planning.allocate(planning.cut_for_engine, index, engines) for index in range(engines)],
    )


def shards_of(side: list[list[Any]]) -> list[list[Any]]:
    return [[shard for shard, _ in held] for held in side]


def within(block: Any, shard: Any) -> tuple[slice, ...]:
    """Where in the array of a shard a block lies."""
    return tuple(slice(a - at, b - at) for a, b, at in zip(block.start, block.stop, shard.start, strict=True))


def covers(shard: Any, piece: Any) -> bool:
    return shard.tensor == piece.tensor and all(
        low <= begin and end <= high
        for low, begin, end, high in zip(shard.start, piece.start, piece.stop, shard.stop, strict=True)
    )


class TestPlan:
    @pytest.mark.parametrize(("trainers", "engines"), [*SIZES, (7, 5), (40, 9)])
    def test_carries_every_weight_to_its_place(self, planning: ModuleType, trainers: int, engines: int) -> None:
        sending, receiving = sides(planning, trainers, engines)
        random = np.random.default_rng(7)
        weights = {
            tensor.name: random.integers(1, 2048, tensor.shape).astype(tensor.dtype) for tensor in planning.MODEL
        }
        for shard, array in (each for held in sending for each in held):
            array[...] = weights[shard.tensor][tuple(map(slice, shard.start, shard.stop))]
        moved = 0
        for piece in planning.make_plan(shards_of(sending), shards_of(receiving)):
            ((source, sent),) = [each for each in sending[piece.sender] if covers(each[0], piece)]
            ((goal, received),) = [each for each in receiving[piece.receiver] if covers(each[0], piece)]
            received[within(piece, goal)] = sent[within(piece, source)]
            moved += piece.nbytes
        for shard, array in (each for held in receiving for each in held):
            np.testing.assert_array_equal(array, weights[shard.tensor][tuple(map(slice, shard.start, shard.stop))])
        assert moved == sum(array.nbytes for held in receiving for _, array in held)

    @pytest.mark.parametrize(("trainers", "engines"), SIZES)
    def test_describes_real_arrays_and_survives_packing(
        self, planning: ModuleType, trainers: int, engines: int
    ) -> None:
        for held in (each for side in sides(planning, trainers, engines) for each in side):
            for shard, array in held:
                assert (shard.dtype, shard.address) == (array.dtype.str, array.__array_interface__["data"][0])
                assert array.shape == tuple(b - a for a, b in zip(shard.start, shard.stop, strict=True))
                assert array.flags.c_contiguous
            described = [shard for shard, _ in held]
            assert planning.unpack(planning.pack(described)) == described

    @pytest.mark.parametrize(("trainers", "engines"), SIZES)
    def test_counts_what_the_engines_hold(self, planning: ModuleType, trainers: int, engines: int) -> None:
        sending, receiving = map(shards_of, sides(planning, trainers, engines))
        plan = planning.make_plan(sending, receiving)
        assert planning.check_plan(plan, sending, receiving) == expected_elements(planning, engines)

    @pytest.mark.parametrize("which", [0, 17, -1])
    @pytest.mark.parametrize(("trainers", "engines"), SIZES)
    def test_finds_a_missing_slice(self, planning: ModuleType, trainers: int, engines: int, which: int) -> None:
        sending, receiving = map(shards_of, sides(planning, trainers, engines))
        plan = planning.make_plan(sending, receiving)
        lost = plan.pop(which)
        with pytest.raises(planning.PlanError) as caught:
            planning.check_plan(plan, sending, receiving)
        size = math.prod(b - a for a, b in zip(lost.start, lost.stop, strict=True))
        assert f"engine {lost.receiver} receives {lost.tensor} with {size} elements missing and 0 " in str(caught.value)

    @pytest.mark.parametrize("which", [0, 17, -1])
    @pytest.mark.parametrize(("trainers", "engines"), SIZES)
    def test_finds_a_doubled_slice(self, planning: ModuleType, trainers: int, engines: int, which: int) -> None:
        sending, receiving = map(shards_of, sides(planning, trainers, engines))
        plan = planning.make_plan(sending, receiving)
        twice = plan[which]
        with pytest.raises(planning.PlanError) as caught:
            planning.check_plan([*plan, twice], sending, receiving)
        size = math.prod(b - a for a, b in zip(twice.start, twice.stop, strict=True))
        assert f"engine {twice.receiver} receives {twice.tensor} with 0 elements missing and {size} " in str(
            caught.value
        )

    def test_finds_a_slice_that_is_one_row_short(self, planning: ModuleType) -> None:
        sending, receiving = map(shards_of, sides(planning, 3, 2))
        plan = planning.make_plan(sending, receiving)
        rows, columns = plan[0].stop
        plan[0] = plan[0]._replace(stop=(rows - 1, columns))
        with pytest.raises(planning.PlanError, match=rf"embedding with {columns} elements missing and 0 too often"):
            planning.check_plan(plan, sending, receiving)

    @pytest.mark.parametrize("change", [{"sender": 2}, {"sender": 3}, {"start": (-1, 0)}])
    def test_finds_a_sender_that_does_not_hold_what_it_sends(
        self, planning: ModuleType, change: dict[str, object]
    ) -> None:
        sending, receiving = map(shards_of, sides(planning, 3, 2))
        plan = planning.make_plan(sending, receiving)
        plan[0] = plan[0]._replace(**change)
        complaint = rf"trainer {plan[0].sender} is to send a slice of embedding that it does not hold"
        with pytest.raises(planning.PlanError, match=complaint):
            planning.check_plan(plan, sending, receiving)

    def test_finds_a_slice_that_reaches_beyond_its_tensor(self, planning: ModuleType) -> None:
        sending, receiving = map(shards_of, sides(planning, 3, 2))
        plan = planning.make_plan(sending, receiving)
        at = max(number for number, piece in enumerate(plan) if piece.tensor == "embedding")
        assert plan[at].stop == (503, 90)
        plan[at] = plan[at]._replace(stop=(504, 90))
        with pytest.raises(planning.PlanError, match="trainer 2 is to send a slice of embedding that it does not hold"):
            planning.check_plan(plan, sending, receiving)

    def test_finds_a_slice_for_an_engine_that_does_not_exist(self, planning: ModuleType) -> None:
        sending, receiving = map(shards_of, sides(planning, 3, 2))
        plan = planning.make_plan(sending, receiving)
        plan[0] = plan[0]._replace(receiver=2)
        with pytest.raises(planning.PlanError, match=r"engine 2 is sent a slice of embedding that it does not hold"):
            planning.check_plan(plan, sending, receiving)

    def test_finds_what_no_engine_asks_for(self, planning: ModuleType) -> None:
        sending, receiving = map(shards_of, sides(planning, 3, 2))
        short = [[shard for shard in held if shard.tensor != "layer.2.mlp.up"] for held in receiving]
        plan = planning.make_plan(sending, short)
        with pytest.raises(planning.PlanError, match=r"no engine receives 32400 elements of layer\.2\.mlp\.up"):
            planning.check_plan(plan, sending, short)

    @pytest.mark.parametrize("change", [{"dtype": "<f4"}, {"shape": (503, 91)}])
    def test_is_refused_where_the_sides_hold_different_tensors(
        self, planning: ModuleType, change: dict[str, object]
    ) -> None:
        sending, receiving = map(shards_of, sides(planning, 1, 1))
        receiving[0][0] = receiving[0][0]._replace(**change)
        with pytest.raises(planning.PlanError, match="trainer 0 and engine 0 hold different tensors as embedding"):
            planning.make_plan(sending, receiving)
