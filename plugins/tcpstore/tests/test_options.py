"""What the options mean, which of them contradict each other, and what the backend says of itself without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]  # public, but not by torch's types

from etha.kvstore.errors import ConfigError
from etha_kvstore_tcpstore import TCPKVStore
from etha_kvstore_tcpstore.address import Address, choose_address
from etha_kvstore_tcpstore.plugin import SPEC, capabilities_with


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_USE_AGENT_STORE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "torchrun.*host and port.*is_master=True.*store"),
        ({"host": "127.0.0.1"}, "host and also needs port"),
        ({"port": 29400}, "port and also needs host"),
        ({"is_master": True}, "is_master and also needs host and port"),
        ({"is_master": True, "port": 0}, "is_master and also needs host"),
        ({"is_master": True, "host": "127.0.0.1"}, "is_master and also needs port"),
        ({"host": "", "port": 29400}, "needs host"),
        ({"host": "127.0.0.1", "port": 0}, "from 1 to 65535, not 0"),
        ({"host": "127.0.0.1", "port": 65536}, "not 65536"),
        ({"host": "127.0.0.1", "port": -1, "is_master": True}, "from 0 to 65535, not -1"),
        ({"host": "no." + "h" * 64, "port": 29400}, "is no host"),
        ({"store": HashStore(), "host": "127.0.0.1"}, "not both"),
        ({"store": HashStore(), "port": 29400}, "not both"),
        ({"store": HashStore(), "is_master": True}, "not both"),
        ({"store": {}}, "a torch.distributed.Store, not dict"),
    ],
)
def test_options_that_contradict_each_other_or_say_too_little_are_refused_by_name(
    options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        TCPKVStore("job-42", "trainer", **options)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_connect_timeout_is_a_positive_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ConfigError, match="connect_timeout"):
        TCPKVStore("job-42", "trainer", store=HashStore(), connect_timeout=seconds)


def test_a_connect_timeout_may_be_infinite() -> None:
    TCPKVStore("job-42", "trainer", host="127.0.0.1", port=0, is_master=True, connect_timeout=float("inf")).close()


def test_without_options_the_agents_store_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29400")
    with pytest.raises(ConfigError, match="torchrun"):
        choose_address(None, None, is_master=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert choose_address(None, None, is_master=False) == ("10.0.0.1", 29400)
    with pytest.raises(ConfigError, match="needs host and port"):
        choose_address(None, None, is_master=True)


@pytest.mark.parametrize("port", [None, "", "no number"])
def test_an_agent_that_does_not_say_where_its_store_is_is_named(
    monkeypatch: pytest.MonkeyPatch, port: str | None
) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    if port is not None:
        monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(ConfigError, match="MASTER_PORT"):
        choose_address(None, None, is_master=False)


def test_an_address_reads_as_one_writes_it() -> None:
    assert [str(Address(host, 29400)) for host in ("node-1", "::1")] == ["node-1:29400", "[::1]:29400"]


@pytest.mark.parametrize(
    ("version", "lists"),
    [
        (None, False),
        ("unknown", False),
        ("2.2.0", False),
        ("2.9.1+cu128", False),
        ("2.10.0a0+git1234567", False),
        ("2.10.0.dev20251101", False),
        ("2.10.0", True),
        ("2.10.1+cpu", True),
        ("2.13.0+cpu", True),
        ("2.14.0a0+git1234567", True),
        ("3.0.0", True),
    ],
)
def test_list_keys_is_declared_for_the_versions_of_torch_that_have_it(version: str | None, lists: bool) -> None:
    assert ("list_keys" in capabilities_with(version)) is lists


def test_what_is_declared_is_what_the_installed_torch_has() -> None:
    assert ("list_keys" in SPEC.capabilities) is hasattr(HashStore, "list_keys")


def test_the_plugin_and_its_package_load_without_torch() -> None:
    program = "import sys, etha_kvstore_tcpstore.plugin; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False"]
