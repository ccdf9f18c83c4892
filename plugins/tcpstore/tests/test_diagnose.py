"""What the diagnosis says of a TCPStore that serves, and of what keeps one from it: what it is, and what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
from ipaddress import ip_address
from threading import Event, Thread

import pytest

from doctor_run import said, the_one
from etcd_server import free_port
from etha_kvstore_tcpstore import diagnose as diagnosis
from etha_kvstore_tcpstore.address import Address
from etha_kvstore_tcpstore.diagnose import diagnose, judge_torch
from etha_kvstore_testkit.observe import takes
from laboratory import Stranger
from tcpstore_host import TorchHost


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_USE_AGENT_STORE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def at(port: int, **options: object) -> dict[str, object]:
    return {"host": "127.0.0.1", "port": port, **options}


# --- a server ---


def test_of_a_server_that_is_well_everything_is_good(host: TorchHost) -> None:
    found = list(diagnose(at(host.port)))
    assert {level for level, _ in found} == {"good"}
    assert any("a TCPStore answers in" in text and "it holds" in text for _, text in found)


def test_nothing_is_written(host: TorchHost) -> None:
    told = [next(text for text in said("good", diagnose(at(host.port))) if "it holds" in text) for _ in range(2)]
    assert told[0].partition("it holds")[2] == told[1].partition("it holds")[2]


def test_a_port_where_nobody_listens() -> None:
    assert "nobody listens -> start the process that hosts (is_master)" in the_one("bad", diagnose(at(free_port())))


def test_a_frozen_host(own_host: TorchHost) -> None:
    own_host.freeze()
    with takes(at_most=3 * diagnosis.PATIENCE + 1.0):
        told = the_one("bad", diagnose(at(own_host.port)))
    assert "takes connections and says nothing within 1.5 s -> is the process that hosts frozen?" in told


def test_a_web_server_is_told_from_a_tcpstore() -> None:
    port = free_port()
    stranger = Stranger(f"127.0.0.1:{port}")
    try:
        assert "is a web server and no TCPStore -> correct host and port" in the_one("bad", diagnose(at(port)))
    finally:
        stranger.leave()


def test_what_hangs_up_is_told_from_a_tcpstore() -> None:
    def hang_up(listener: socket.socket) -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=hang_up, args=(listener,), daemon=True).start()
        told = the_one("bad", diagnose(at(listener.getsockname()[1])))
        listener.shutdown(socket.SHUT_RDWR)
    assert "does not answer as a TCPStore does -> correct host and port" in told


# --- the name ---


def test_a_name_that_does_not_resolve() -> None:
    told = the_one("bad", diagnose({"host": "trainer-0.invalid", "port": 29500}))
    assert "'trainer-0.invalid' does not resolve -> correct the option host" in told


def test_what_is_no_name() -> None:
    assert "is no host name -> correct" in the_one("bad", diagnose({"host": "h" * 300, "port": 29500}))


def test_a_name_service_that_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    never = Event()

    def hang(*_: object, **__: object) -> None:
        never.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with takes(at_most=diagnosis.PATIENCE + 1.0):
        told = the_one("bad", diagnose({"host": "trainer-0", "port": 29500}))
    never.set()
    assert "the name service says nothing" in told


def test_a_name_that_means_each_machine_itself_is_doubtful(host: TorchHost, monkeypatch: pytest.MonkeyPatch) -> None:
    local = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", host.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: local)
    told = the_one("doubtful", diagnose({"host": "trainer-0", "port": host.port}))
    assert "resolves to 127.0.0.1, which on every machine means that machine itself -> give an address" in told


def test_an_address_that_all_the_world_can_reach_is_doubtful() -> None:
    address, public = Address("trainer-0", 29500), ip_address("8.8.8.8")
    ((level, told),) = diagnosis._judge_secrecy(address, [public])
    assert level == "doubtful"
    assert "neither authentication nor encryption" in told
    assert list(diagnosis._judge_secrecy(address, [ip_address("10.0.0.1")])) == []


# --- torch ---


@pytest.mark.parametrize(
    ("version", "is_master", "level", "told"),
    [
        (None, True, "bad", "torch is not installed"),
        (None, False, "doubtful", "torch is not installed"),
        ("2.7.1", True, "bad", "2.7.1 is older"),
        ("1.13.1+cu117", False, "doubtful", "1.13.1+cu117 is older"),
        ("unknown", False, "doubtful", "unknown is older"),
        ("2.9.1", False, "doubtful", "can't list keys -> where list_keys() is used, install 2.10"),
    ],
)
def test_a_torch_that_does_not_serve_is_named_with_what_to_install(
    version: str | None, is_master: bool, level: str, told: str
) -> None:
    judged = judge_torch(version, is_master=is_master)
    assert judged[0] == level
    assert told in judged[1]
    assert " -> " in judged[1]


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0"])
def test_nothing_is_said_against_other_versions(version: str) -> None:
    assert judge_torch(version, is_master=True)[0] == "good"


def test_the_diagnosis_loads_no_torch() -> None:
    program = """
import sys
from etha_kvstore_tcpstore.diagnose import diagnose
list(diagnose({"host": "127.0.0.1", "port": 1}))
print("torch" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False"]


# --- the master, and torchrun ---


def test_the_masters_port_is_tried_and_nothing_is_hosted() -> None:
    port = free_port()
    assert any("the port is free" in text for text in said("good", diagnose(at(port, is_master=True))))
    socket.create_server(("127.0.0.1", port)).close()


def test_a_port_that_is_taken(host: TorchHost) -> None:
    assert "the port is taken -> choose another" in the_one("bad", diagnose(at(host.port, is_master=True)))


def test_an_address_of_another_machine_can_host_nothing_here() -> None:
    told = the_one("bad", diagnose({"host": "203.0.113.1", "port": 29500, "is_master": True}))
    assert "it is no address of this machine -> host it where the address belongs" in told


def test_a_master_beside_torchruns_agent_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MASTER_PORT", str(port))
    assert "init_process_group will host its store" in the_one("bad", diagnose(at(port, is_master=True)))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert "-> leave host, port and is_master away" in the_one("bad", diagnose(at(port, is_master=True)))


def test_the_agents_store_is_examined(host: TorchHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(host.port))
    told = said("good", diagnose({}))
    assert any(f"torchrun's agent is said to host the store, at {host.endpoint}" in text for text in told)
    assert any("a TCPStore answers" in text for text in told)


# --- options that make no sense ---


@pytest.mark.parametrize(
    "options", [{}, {"host": "127.0.0.1"}, at(0), at(1, no_such_option=1), {"host": "127.0.0.1", "port": "many"}]
)
def test_options_that_make_no_sense_are_told_and_raise_nothing(options: dict[str, object]) -> None:
    assert " -> correct the options" in the_one("bad", diagnose(options))
