"""``etha-kv doctor`` beside other people's plugins that are broken in every way, and on stores of theirs that are."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from doctor_run import Diagnosis, install, run_doctor
from etha_kvstore_cli import doctor
from etha_kvstore_cli.target import Target

if TYPE_CHECKING:
    from addons.cli.tests.conftest import Running

pytestmark = pytest.mark.xdist_group("doctor-plugins")

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

BROKEN_STORE = """
from etha.kvstore.hookspecs import BackendSpec, hookimpl

@hookimpl
def kvstore_backend():
    return BackendSpec("{backend}", Store, "a stranger's", contract=1, capabilities=frozenset({"list_keys"}))

from etha_kvstore_memory.store import MemoryStore

class Store(MemoryStore):
"""
FORGETFUL = f"{BROKEN_STORE}    def get(self, key, **_):\n        return None\n"
FAILING = f"{BROKEN_STORE}    def list_keys(self, pattern='*', **_):\n        return 1 / 0\n"
SLOW = f"""{BROKEN_STORE}    def exists(self, key, **_):
        threading.Event().wait(0.11)
        return False
import threading
"""

HANGING = "import threading\nthreading.Event().wait()"


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


# --- plugins ---


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


# --- stores ---


def test_a_store_that_forgets_what_was_written_is_told_and_not_called_good(tmp_path: Path) -> None:
    install(tmp_path, "stranger-forgetful", "forgetful", FORGETFUL)
    found = run_doctor("--url", "forgetful:///job/trainer", environment={"PYTHONPATH": str(tmp_path)})
    assert found.code == 1
    (told,) = [text for text in found.of("good", "bad") if text.startswith("read back")]
    assert told == "read back: b'1' was written and None read -> report it to who makes that backend"
    assert told in found.of("bad")


def test_a_store_that_fails_with_an_error_of_its_own_is_told_and_the_rest_tried(tmp_path: Path) -> None:
    install(tmp_path, "stranger-failing", "failing", FAILING)
    found = run_doctor("--url", "failing:///job/trainer", environment={"PYTHONPATH": str(tmp_path)})
    assert found.code == 1
    assert found.of("bad") == [
        "list: failed: ZeroDivisionError: division by zero -> report it to who makes that backend"
    ]
    assert any(text.startswith("delete: works") for text in found.of("good"))


def test_a_slow_store_is_doubtful_once(tmp_path: Path) -> None:
    install(tmp_path, "stranger-slow", "slow", SLOW)
    found = run_doctor("--url", "slow:///job/trainer", "--read-only", environment={"PYTHONPATH": str(tmp_path)})
    assert found.code == 0
    (told,) = [text for text in found.of("good", "doubtful") if text.startswith("read:")]
    assert told in found.of("doubtful")
    assert told.startswith("read: works slowly; a round trip takes")


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
