"""The example of an inference front end: what clients are told before, while and after its engines come."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from etcd_server import EtcdServer, free_port
from etha.kvstore import open_store_from_config

if TYPE_CHECKING:
    from tests.examples.conftest import Shell, Shown

PAGE = "serve-when-engines-are-ready.md"
EXAMPLE = ["python", "examples/serving.py"]
SECONDS = 30.0
"""How long anything may take on a busy machine."""
ELSEWHERE = "203.0.113.1"
"""An address that is reserved for examples, so that no machine has it."""

pytestmark = pytest.mark.xdist_group("serving")


class Clients:
    """What clients see of a front end at a port."""

    def __init__(self, port: int, http: httpx.Client) -> None:
        self.port = port
        self._http = http

    def health(self) -> tuple[int, Any]:
        answer = self._http.get("/health")
        return answer.status_code, answer.json()

    def generate(self, text: str = "hello") -> tuple[int, Any]:
        answer = self._http.post("/generate", json={"text": text})
        return answer.status_code, answer.json()


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Give clients of a port at which no front end listens yet."""
    port = free_port()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as http:
        yield Clients(port, http)


def engine(shell: Shell, number: int, url: str) -> psutil.Popen:
    """Start an engine, and wait until it is ready."""
    running = shell.start([*EXAMPLE, "engine", "--number", str(number), "--url", url])
    with open_store_from_config(url) as store:
        store.wait_for_key(f"engine:{number}/ready", SECONDS)
    return running


def front_end(shell: Shell, port: int, url: str, patience: float = 60.0) -> psutil.Popen:
    """Start a front end, and wait until it listens."""
    running = shell.start([*EXAMPLE, "front", "--port", str(port), "--url", url, "--patience", str(patience)])
    assert running.stdout.readline() == f"waiting for 2 engines: http://127.0.0.1:{port}/health\n"
    return running


def told_to_stop(running: psutil.Popen, how: signal.Signals) -> None:
    running.send_signal(how)
    _, err = running.communicate(timeout=SECONDS)
    assert (running.returncode, err) == (0, "")


def keys(etcd: EtcdServer, namespace: str) -> list[str]:
    return etcd.ctl("get", "--prefix", f"{namespace}/", "--keys-only").split()


def test_the_command_of_the_page_serves_and_leaves_no_process(
    shell: Shell, shown: Callable[[str], Shown], clients: Clients
) -> None:
    page = shown(PAGE)
    running = shell.start([*page.command, "--port", str(clients.port)])
    said = [running.stdout.readline().replace(str(clients.port), "8000") for _ in page.output]
    assert [line.partition(" at ")[0].strip() for line in said] == [line.partition(" at ")[0] for line in page.output]
    status, seen = clients.health()
    assert status == 200
    assert said[-1].endswith(f" at {', '.join(seen['engines'])}\n")
    assert clients.generate("one") == (200, {"text": "ONE", "engine": "engine:0"})
    assert clients.generate("two") == (200, {"text": "TWO", "engine": "engine:1"})
    assert clients.generate("three") == (200, {"text": "THREE", "engine": "engine:0"})

    below = running.children(recursive=True)
    (front,) = [each for each in running.children() if "examples/serving.py" in each.cmdline()]
    front.terminate()
    _, err = running.communicate(timeout=SECONDS)
    assert (running.returncode, err) == (0, "")
    assert psutil.wait_procs(below, timeout=SECONDS)[1] == []


def test_clients_are_told_who_is_missing_until_all_are_ready(etcd: EtcdServer, shell: Shell, clients: Clients) -> None:
    url = f"etcd://{etcd.endpoint}/gradual/engine?lease_ttl=10"
    front = front_end(shell, clients.port, url)
    assert clients.health() == (503, {"missing": ["engine:0", "engine:1"]})
    second = engine(shell, 1, url)
    assert clients.health() == (503, {"missing": ["engine:0"]})
    assert clients.generate()[0] == 503
    first = engine(shell, 0, url)
    assert front.stdout.readline().startswith("all are ready, at ")
    assert clients.health()[0] == 200
    assert [clients.generate()[1]["engine"] for _ in range(4)] == ["engine:0", "engine:1"] * 2

    told_to_stop(second, signal.SIGTERM)
    assert keys(etcd, "gradual") == ["gradual/engine/engine:0/address", "gradual/engine/engine:0/ready"]
    answers = [clients.generate() for _ in range(2)]
    assert answers[0] == (200, {"text": "HELLO", "engine": "engine:0"})
    assert (answers[1][0], answers[1][1]["detail"][:23]) == (502, "engine:1 did not answer")

    told_to_stop(first, signal.SIGINT)
    told_to_stop(front, signal.SIGTERM)
    assert keys(etcd, "gradual") == []


def test_a_front_end_whose_engine_does_not_come_ends_and_names_it(etcd: EtcdServer, shell: Shell) -> None:
    url = f"etcd://{etcd.endpoint}/lacking/engine"
    engine(shell, 0, url)
    front = front_end(shell, free_port(), url, patience=3.0)
    _, err = front.communicate(timeout=SECONDS)
    assert front.returncode == 1
    assert err.startswith("serving failed: timed out waiting for 2 keys matching 'engine:*/ready'")
    assert "engine:1/ready" in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_front_end_that_still_waits_can_be_told_to_stop(
    etcd: EtcdServer, shell: Shell, clients: Clients, how: signal.Signals
) -> None:
    front = front_end(shell, clients.port, f"etcd://{etcd.endpoint}/idle/engine", patience=3600.0)
    assert clients.health()[0] == 503
    told_to_stop(front, how)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--engines", "0"], "--engines is a number of at least 1"),
        (["front", "--engines", "-1"], "--engines is a number of at least 1"),
        (["front", "--patience", "-1"], "--patience is a number of seconds that is not negative"),
        (["front", "--host", ELSEWHERE], f"{ELSEWHERE}.* --host is an address of this machine"),
        (["engine", "--host", ELSEWHERE], f"{ELSEWHERE}.* --host is an address of this machine"),
    ],
)
def test_what_cannot_be_meant_ends_with_a_line_that_says_so(shell: Shell, arguments: list[str], reason: str) -> None:
    ran = shell.run([*EXAMPLE, *arguments, "--port", str(free_port()), "--url", "memory:///refused/engine"])
    assert ran.returncode != 0
    assert re.search(reason, ran.stderr.splitlines()[-1])
    assert "Traceback" not in ran.stderr
