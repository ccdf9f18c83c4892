"""What the memory backend says of itself to who looks for a trouble."""

from __future__ import annotations

import os

import pytest

from doctor_run import the_one
from etha_kvstore_memory.diagnose import COUNTS, diagnose


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in COUNTS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}, {"no_such_option": object()}])
def test_a_process_alone_is_well_and_told_that_no_other_process_sees_its_keys(options: dict[str, object]) -> None:
    ((level, told),) = diagnose(options)
    assert level == "good"
    assert f"in one process only, here in {os.getpid()}" in told
    assert "two processes never meet by it" in told


@pytest.mark.parametrize("name", COUNTS)
def test_one_of_many_processes_is_told_that_they_do_not_meet(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert [level for level, _ in diagnose({})] == ["good"]
    monkeypatch.setenv(name, "8")
    told = the_one("doubtful", diagnose({}))
    assert f"several processes ({name}=8) -> where they are to meet, choose etcd or tcpstore" in told
