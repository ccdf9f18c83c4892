"""``etha-kv doctor`` on a TCPStore that serves, on one that does not, and on what is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor_run import Diagnosis, run_doctor
from etcd_server import free_port
from laboratory import Stranger
from tcpstore_host import TorchHost

pytestmark = pytest.mark.xdist_group("doctor-tcpstore")


@pytest.fixture(scope="module")
def host() -> Iterator[TorchHost]:
    with TorchHost() as process:
        yield process


def examine(address: str, **environment: str) -> Diagnosis:
    return run_doctor("--url", f"tcpstore://{address}/job/trainer", environment=environment)


def test_a_healthy_store_is_good(host: TorchHost) -> None:
    found = examine(host.endpoint)
    assert found.code == 0
    assert found.of("bad", "doubtful") == []
    told = found.of("good")
    assert any(f"tcpstore at {host.endpoint}: a TCPStore answers in" in text for text in told)
    assert any("torch 2." in text for text in told)
    for what in ("read", "list", "write", "read back", "delete"):
        assert any(text.startswith(f"{what}: works") for text in told), what


def test_a_port_where_nobody_listens_ends_with_3() -> None:
    found = examine(f"127.0.0.1:{free_port()}")
    assert found.code == 3
    assert any("nobody listens -> start the process that hosts" in text for text in found.of("bad"))


def test_a_name_that_does_not_resolve_ends_with_3() -> None:
    found = examine("trainer-0.invalid:29500")
    assert found.code == 3
    assert any("'trainer-0.invalid' does not resolve -> correct the option host" in text for text in found.of("bad"))


def test_a_web_server_is_told_from_a_tcpstore() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    stranger = Stranger(endpoint)
    try:
        found = examine(endpoint)
    finally:
        stranger.leave()
    assert found.code == 3
    assert any("is a web server and no TCPStore -> correct host and port" in text for text in found.of("bad"))


def test_a_frozen_host_ends_with_3() -> None:
    with TorchHost() as frozen:
        frozen.freeze()
        found = examine(frozen.endpoint)
    assert found.code == 3
    assert any("says nothing within 1.5 s -> is the process that hosts frozen?" in text for text in found.of("bad"))


def test_an_older_torch_than_the_backend_is_made_for_is_named(host: TorchHost, tmp_path: Path) -> None:
    metadata = tmp_path / "torch-2.7.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.7.1\n")
    found = examine(host.endpoint, PYTHONPATH=str(tmp_path))
    assert any(
        "torch 2.7.1 is older" in text and "-> pip install 'torch>=2.8'" in text for text in found.of("doubtful")
    )


def test_neither_address_nor_torchrun_ends_with_2() -> None:
    found = run_doctor("--backend", "tcpstore", "--namespace", "job", "--component", "trainer")
    assert found.code == 2
    assert any("no torchrun whose agent hosts one" in text for text in found.of("bad"))


def test_the_master_is_not_played_but_its_port_is_tried(host: TorchHost) -> None:
    where = ("--backend", "tcpstore", "--namespace", "job", "--component", "trainer", "-o", "is_master=true")
    free = run_doctor(*where, "-o", "host=127.0.0.1", "-o", f"port={free_port()}")
    assert free.code == 0
    assert any("the port is free" in text for text in free.of("good"))
    assert any("is not opened here" in text for text in free.of("good"))
    taken = run_doctor(*where, "-o", "host=127.0.0.1", "-o", f"port={host.port}")
    assert taken.code == 1
    assert any("the port is taken -> choose another" in text for text in taken.of("bad"))
