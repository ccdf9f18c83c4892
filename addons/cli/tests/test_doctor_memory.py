"""``etha-kv doctor`` on the memory backend, healthy and broken, and how what it finds is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doctor_run import Diagnosis, install, run_doctor
from etha_kvstore_cli import doctor
from etha_kvstore_cli.doctor import judge_clock

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Done

pytestmark = pytest.mark.xdist_group("doctor-memory")

WHERE = ("--backend", "memory", "--namespace", "job", "--component", "trainer")


@pytest.fixture(scope="module")
def alone() -> Diagnosis:
    return run_doctor(*WHERE)


# --- all is well ---


def test_a_healthy_store_is_good_and_the_exit_code_says_so(alone: Diagnosis) -> None:
    assert alone.code == 0
    assert {each["level"] for each in alone.findings} == {"good"}
    told = alone.of("good")
    for what in ("read", "list", "write", "read back", "watch", "delete"):
        assert any(text.startswith(f"{what}: works") for text in told), what
    assert any("a round trip takes" in text and "median of 9" in text for text in told)
    assert any("one who waits hears of a write after" in text for text in told)


def test_that_memory_is_seen_by_no_other_process_is_said(alone: Diagnosis) -> None:
    assert any("no other process sees them" in text for text in alone.of("good"))


def test_with_read_only_nothing_is_written() -> None:
    found = run_doctor(*WHERE, "--read-only")
    assert found.code == 0
    told = found.of("good")
    assert any(text.startswith("write and delete: not tried") for text in told)
    assert not any(text.startswith(("write: ", "delete: ")) for text in told)


def test_without_a_store_the_plugins_are_examined_and_that_is_said() -> None:
    found = run_doctor()
    assert found.code == 0
    assert "--url" in found.of("doubtful")[0]
    assert "it loads" in found.of("good", subject="plugin memory")[0]


# --- the installation ---


def test_a_distribution_that_is_half_there_is_named_and_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "etha_kvstore_memory").mkdir()
    (tmp_path / "etha_kvstore_memory" / "__init__.py").touch()
    found = run_doctor(*WHERE, environment={"PYTHONPATH": str(tmp_path)})
    assert found.code == 2
    (told,) = found.of("bad")
    assert "its plugin 'etha_kvstore_memory.plugin' can't be imported" in told
    assert "-> install that distribution again" in told


def test_a_name_that_two_distributions_claim_ends_with_2_and_names_both(tmp_path: Path) -> None:
    install(tmp_path, "stranger-memory", "memory", "")
    found = run_doctor(*WHERE, environment={"PYTHONPATH": str(tmp_path)})
    assert found.code == 2
    (told,) = found.of("bad")
    assert "etha-kvstore-memory" in told
    assert "stranger-memory 1.2.3" in told
    assert "-> uninstall all of them but one" in told


def test_where_no_backend_is_installed_the_doctor_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_installed", dict)
    assert doctor.run(None, json=False) == 1
    assert "no backend is installed  -> pip install etha-kvstore-etcd" in capsys.readouterr().out


def test_one_of_many_processes_is_told_that_they_do_not_meet() -> None:
    found = run_doctor(*WHERE, environment={"WORLD_SIZE": "8"})
    assert found.code == 0
    (told,) = found.of("doubtful")
    assert "several processes (WORLD_SIZE=8) -> where they are to meet, choose etcd or tcpstore" in told


# --- mistakes in the configuration ---


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (("--url", "memry:///job/trainer"), "Did you mean 'memory'?"),
        (("--url", "memory:///job/trainer?timout=5"), "did you mean 'timeout'?"),
        (("--url", "memory:///job/trainer?timeout=soon"), "'timeout' of backend 'memory' is of type float"),
        (
            ("--url", "memory:///job/trainer?timeout=-1"),
            "that is not negative, not -1.0 -> correct",
        ),
        (("--url", "memory:///job-${NO_SUCH_VARIABLE}/trainer"), "NO_SUCH_VARIABLE is not set"),
        (("--url", "memory://10.0.0.1:2379/job/trainer"), "connects to no host"),
        (("--config", "no-such-file.toml"), "no-such-file.toml can't be read"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_and_ends_with_2(where: tuple[str, str], told: str) -> None:
    found = run_doctor(*where)
    assert found.code == 2
    (text,) = found.of("bad")
    assert told in text
    assert not text.endswith("-> ")


# --- how it is said ---


def test_a_clock_before_the_installation_is_bad() -> None:
    found = judge_clock(now=0.0, installed=1e9)
    assert found.level == "bad"
    assert "1970-01-01" in found.what
    assert found.do.startswith("set it by NTP")
    assert judge_clock(now=1e9, installed=1e9).level == "good"


def test_the_levels_have_colours_where_colours_are_shown_and_in_a_pipe_none(
    kv: Callable[..., Done], tmp_path: Path
) -> None:
    file = tmp_path / "kvstore.toml"
    file.write_text('[kvstore]\nbackend = "memory"\nnamespace = "job"\ncomponent = "trainer"\n')
    shown = kv("doctor", "--config", str(file), FORCE_COLOR="1")
    assert "\x1b[32mgood    \x1b[0m  store: read: works" in shown.out.decode()
    piped = kv("doctor", *WHERE)
    assert "good      store: read: works" in piped.out.decode()
    assert b"\x1b" not in piped.out
    assert shown.code == piped.code == 0
    assert shown.err == piped.err == ""
