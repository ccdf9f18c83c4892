"""``etha-kv doctor`` on the memory backend, beside other people's plugins that are broken in every way."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from doctor_run import Diagnosis, run_doctor
from etha_kvstore_cli import doctor
from etha_kvstore_cli.doctor import judge_clock
from etha_kvstore_cli.target import Target

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Done, Running

pytestmark = pytest.mark.xdist_group("doctor-memory")

WHERE = ("--backend", "memory", "--namespace", "job", "--component", "trainer")

RIGHT = """
from etha.kvstore.hookspecs import BackendSpec, Option, hookimpl

@hookimpl
def kvstore_backend():
    return BackendSpec(
        "{backend}", "etha_kvstore_memory.store:MemoryStore", "a stranger's", contract=1,
        options=(Option("token", str, secret=True),), diagnose="{module}:diagnose",
    )

def diagnose(options):
    yield "good", "the token is " + options.get("token", "")
    yield "unheard of", "something"
    raise RuntimeError("no licence for " + options.get("token", ""))
"""

STRANGERS = {
    "stranger-broken": ("broken", f"import a_library_that_is_not_there\n{RIGHT}"),
    "stranger-future": ("future", RIGHT.replace("contract=1", "contract=2")),
    "stranger-twin": ("twin", RIGHT),
    "another-twin": ("twin", RIGHT),
    "stranger-leaving": ("leaving", "import os\nos._exit(7)"),
    "stranger-killing": ("killing", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"),
    "stranger-storeless": ("storeless", RIGHT.replace("MemoryStore", "NoSuchStore")),
    "stranger-chatty": ("chatty", f"print('{{}}\\n[not json')\n{RIGHT}"),
}
"""Distribution: the name of its backend, and its plugin."""

HANGING = "import threading\nthreading.Event().wait()"


def install(folder: Path, distribution: str, backend: str, plugin: str) -> None:
    """Write what pip would unpack of a small distribution."""
    module = distribution.replace("-", "_")
    metadata = folder / f"{module}-1.2.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n")
    (metadata / "entry_points.txt").write_text(f"[etha.kvstore]\n{backend} = {module}\n")
    (folder / f"{module}.py").write_text(plugin.replace("{backend}", backend).replace("{module}", module))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which all of them are installed, and one whose metadata are damaged."""
    folder = tmp_path_factory.mktemp("strangers")
    for distribution, (backend, plugin) in STRANGERS.items():
        install(folder, distribution, backend, plugin)
    (folder / "damaged-1.dist-info").mkdir()
    return folder


@pytest.fixture(scope="module")
def crowded(strangers: Path) -> Diagnosis:
    """Give what is said of the memory backend beside all of them."""
    return run_doctor(*WHERE, environment={"PYTHONPATH": str(strangers)})


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


# --- plugins of other people's ---


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ("broken", ["stranger-broken 1.2.3", "No module named 'a_library_that_is_not_there' -> install that"]),
        ("future", ["stranger-future 1.2.3", "version 2", "version 1", "-> upgrade the older one"]),
        ("twin", ["another-twin 1.2.3 and stranger-twin 1.2.3", "claimed by", "-> uninstall all of them but one"]),
        (
            "leaving",
            ["stranger-leaving 1.2.3", "loading its plugin ended the process with exit code 7 -> mend or uninstall"],
        ),
        ("killing", ["stranger-killing 1.2.3", "ended the process with signal SIGSEGV -> mend or uninstall"]),
        ("storeless", ["stranger-storeless 1.2.3", "'etha_kvstore_memory.store:NoSuchStore' can't be imported"]),
    ],
)
def test_a_broken_plugin_is_named_with_what_to_do(crowded: Diagnosis, backend: str, told: list[str]) -> None:
    (found,) = crowded.of("bad", subject=f"plugin {backend}")
    assert [text for text in told if text not in found] == [], found


def test_a_broken_plugin_keeps_nothing_else_from_being_examined(crowded: Diagnosis) -> None:
    assert crowded.code == 1
    assert crowded.of("bad", "doubtful") == []
    assert any(text.startswith("delete: works") for text in crowded.of("good"))
    assert "it loads" in crowded.of("good", subject="plugin memory")[0]


def test_what_a_plugin_prints_is_no_part_of_the_report(crowded: Diagnosis) -> None:
    (told,) = crowded.of("good", subject="plugin chatty")
    assert "it loads; a stranger's" in told


def test_a_plugin_that_hangs_is_told_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "STEP_SECONDS", 3.0)
    install(tmp_path, "stranger-hanging", "hanging", HANGING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.run(Target("hanging:///job/trainer"), json=False) == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad")]
    late = "did not end within 3 s  -> mend or uninstall the plugin of that backend"
    assert bad == [
        f"bad       plugin hanging: (stranger-hanging 1.2.3) loading its plugin {late}",
        f"bad       store: loading the plugin of backend 'hanging' {late}",
    ]


def test_a_store_whose_plugin_ends_its_process_is_told(strangers: Path) -> None:
    found = run_doctor("--url", "leaving:///job/trainer", environment={"PYTHONPATH": str(strangers)})
    assert found.code == 1
    (told,) = found.of("bad")
    assert told.startswith(
        "loading the plugin of backend 'leaving' ended the process with exit code 7 -> mend or uninstall"
    )


def test_a_backends_own_diagnosis_may_fail_and_shows_no_secret(tmp_path: Path) -> None:
    install(tmp_path, "stranger-right", "right", RIGHT)
    where = ("--backend", "right", "--namespace", "job", "--component", "c", "-o", "token=canary-31415")
    found = run_doctor(*where, environment={"PYTHONPATH": str(tmp_path)})
    assert "the token is *** -> " in found.of("good")
    assert "something -> " in found.of("doubtful")
    assert any("own diagnosis failed: RuntimeError: no licence for ***" in text for text in found.of("bad"))
    assert "canary-31415" not in found.text


# --- mistakes in the configuration ---


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (("--url", "memry:///job/trainer"), "Did you mean 'memory'?"),
        (("--url", "memory:///job/trainer?timout=5"), "did you mean 'timeout'?"),
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


def test_where_no_backend_is_installed_the_doctor_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_installed", dict)
    assert doctor.run(None, json=False) == 1
    assert "no backend is installed  -> pip install etha-kvstore-etcd" in capsys.readouterr().out


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


# --- Ctrl-C ---


def test_ctrl_c_ends_the_doctor_and_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: Callable[..., Running]
) -> None:
    install(tmp_path, "stranger-hanging", "hanging", HANGING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = running("doctor", *WHERE)
    command.awaits("plugin etcd: .*it loads")
    started = psutil.Process(command.process.pid).children(recursive=True)
    assert started
    command.process.send_signal(signal.SIGINT)
    assert command.ends() == 130
    assert "Traceback" not in command.err
    _, left = psutil.wait_procs(started, timeout=10.0)
    assert left == []
