"""The example of an inference front end: what clients are told before, while and after its engines come."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from etcd_server import EtcdServer, free_port

if TYPE_CHECKING:
    from tests.examples.conftest import Shell, Shown

PAGE = "serve-when-engines-are-ready.md"
EXAMPLE = ["python", "examples/serving.py"]
SECONDS = 30.0
"""How long anything may take on a busy machine."""

pytestmark = pytest.mark.xdist_group("serving")


class Clients:
    """What a client of a front end sees."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def health(self) -> tuple[int, Any]:
        answer = httpx.get(f"{self.url}/health")
        return answer.status_code, answer.json()

    def generate(self, text: str = "hello") -> tuple[int, Any]:
        answer = httpx.post(f"{self.url}/generate", json={"text": text})
        return answer.status_code, answer.json()

    def until_health(self, status: int, **facts: object) -> Any:
        """Ask until the answer is this one, and give its body."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                found = self.health()
            except httpx.ConnectError:
                found = (0, {})  # it does not listen yet
            if found[0] == status and facts.items() <= found[1].items():
                return found[1]
            assert time.monotonic() < deadline, f"the last answer was {found}"


def engine(shell: Shell, number: int, url: str) -> psutil.Popen:
    return shell.start([*EXAMPLE, "engine", "--number", str(number), "--url", url])


def front_end(shell: Shell, port: int, url: str, patience: float = 60.0) -> psutil.Popen:
    return shell.start([*EXAMPLE, "front", "--port", str(port), "--url", url, "--patience", str(patience)])


def told_to_stop(running: psutil.Popen, how: signal.Signals) -> None:
    running.send_signal(how)
    _, err = running.communicate(timeout=SECONDS)
    assert (running.returncode, err) == (0, "")


def keys(etcd: EtcdServer, namespace: str) -> list[str]:
    return etcd.ctl("get", "--prefix", f"{namespace}/", "--keys-only").split()


def test_the_command_of_the_page_serves_and_leaves_no_process(shell: Shell, shown: Callable[[str], Shown]) -> None:
    page = shown(PAGE)
    port = free_port()
    running = shell.start([*page.command, "--port", str(port)])
    clients = Clients(port)
    addresses = clients.until_health(200)["engines"]
    assert clients.generate("one") == (200, {"text": "ONE", "engine": "engine:0"})
    assert clients.generate("two") == (200, {"text": "TWO", "engine": "engine:1"})
    assert clients.generate("three") == (200, {"text": "THREE", "engine": "engine:0"})

    below = running.children(recursive=True)
    (front,) = [each for each in running.children() if "examples/serving.py" in each.cmdline()]
    front.terminate()
    out, err = running.communicate(timeout=SECONDS)
    assert (running.returncode, err) == (0, "")
    assert psutil.wait_procs(below, timeout=SECONDS)[1] == []
    said = out.replace(str(port), "8000").splitlines()
    assert [line.partition(" at ")[0] for line in said] == [line.partition(" at ")[0] for line in page.output]
    assert said[-1].endswith(", ".join(addresses))


def test_clients_are_told_who_is_missing_until_all_are_ready(etcd: EtcdServer, shell: Shell) -> None:
    url, port = f"etcd://{etcd.endpoint}/gradual/engine?lease_ttl=10", free_port()
    clients = Clients(port)
    front = front_end(shell, port, url)
    clients.until_health(503, missing=["engine:0", "engine:1"])
    second = engine(shell, 1, url)
    clients.until_health(503, missing=["engine:0"])
    assert clients.generate()[0] == 503
    first = engine(shell, 0, url)
    clients.until_health(200)
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
def test_a_front_end_that_still_waits_can_be_told_to_stop(etcd: EtcdServer, shell: Shell, how: signal.Signals) -> None:
    port = free_port()
    front = front_end(shell, port, f"etcd://{etcd.endpoint}/idle/engine", patience=3600.0)
    Clients(port).until_health(503, missing=["engine:0", "engine:1"])
    told_to_stop(front, how)
