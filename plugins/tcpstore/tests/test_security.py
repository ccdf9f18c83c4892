"""A backend without authentication: it listens where it was told, and what strangers send there stays harmless."""

from __future__ import annotations

import os
import pickle
import socket
from typing import TYPE_CHECKING

import psutil
import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types

from etha.kvstore import open_store as open_by_name
from etha.kvstore.errors import ConfigError
from etha_kvstore_tcpstore import TCPKVStore
from secrecy import all_texts
from tcpstore_host import TorchHost

if TYPE_CHECKING:
    from plugins.tcpstore.tests.conftest import OpenStore

pytestmark = pytest.mark.security

CANARY = "canary-16180"


def listening(pid: int) -> set[tuple[str, int]]:
    """Where a process listens, as the kernel says."""
    found = psutil.Process(pid).net_connections(kind="inet")
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)}


@pytest.fixture
def torch_store(host: TorchHost) -> TCPStore:
    """Another program's connection."""
    return TCPStore("127.0.0.1", host.port, wait_for_workers=False)


# --- the port ---


def test_a_process_that_hosts_listens_on_one_address_and_a_client_on_none(
    host: TorchHost, open_store: OpenStore
) -> None:
    assert listening(host.pid) == {("127.0.0.1", host.port)}
    before = listening(os.getpid())
    store = open_store(host="127.0.0.1", port=host.port)
    store.set("key", "1")
    assert listening(os.getpid()) == before


@pytest.mark.parametrize("host", ["", None])
def test_no_address_never_means_every_address(open_store: OpenStore, host: str | None) -> None:
    before = listening(os.getpid())
    with pytest.raises(ConfigError, match="also needs host"):
        open_store(host=host, port=0, is_master=True)
    assert listening(os.getpid()) == before


def test_a_store_on_a_torch_store_of_the_callers_opens_no_port(torch_store: TCPStore, open_store: OpenStore) -> None:
    before = listening(os.getpid())
    store = open_store(store=torch_store)
    store.set("key", "1")
    assert listening(os.getpid()) == before


def test_a_login_is_refused_since_there_is_none_and_its_password_is_not_shown(host: TorchHost) -> None:
    login = {"user": "worker", "password": CANARY}
    with pytest.raises(ConfigError, match="has no option 'user'") as refusal:
        open_by_name("tcpstore", namespace="job", component="c", host="127.0.0.1", port=host.port, **login)
    assert CANARY not in all_texts(refusal.value)


# --- strangers ---


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\0" * 4096,
        b"\xff" * 4096,
        pickle.dumps(["set", "key", "2"]),
        b"",
    ],
    ids=["HTTP", "zeros", "ones", "a pickle", "nothing"],
)
def test_one_who_speaks_another_protocol_changes_nothing_and_harms_nobody(
    host: TorchHost, open_store: OpenStore, said: bytes
) -> None:
    store = open_store(host="127.0.0.1", port=host.port)
    store.set("key", "1")
    with socket.create_connection(("127.0.0.1", host.port), timeout=10.0) as stranger:
        stranger.sendall(said)
        assert store.get("key") == b"1"
    store.set("key", "2")
    assert open_store(host="127.0.0.1", port=host.port).get("key") == b"2"


def test_leaving_deletes_nobodys_keys(host: TorchHost, open_store: OpenStore, torch_store: TCPStore) -> None:
    store = open_store(host="127.0.0.1", port=host.port)
    prefix = f"{store.namespace}/{store.component}/"
    torch_store.set(prefix + "theirs", "1")
    store.set("ours", "1")
    store.close(cleanup=True)
    assert torch_store.get(prefix + "theirs") == torch_store.get(prefix + "ours") == b"1"


def test_no_name_of_a_key_reaches_out_of_its_namespace(host: TorchHost, torch_store: TCPStore) -> None:
    torch_store.set("secret", CANARY)
    torch_store.set("ns10/c/secret", CANARY)
    with TCPKVStore("ns1", "c", host="127.0.0.1", port=host.port) as store:
        for key in ("secret", "../secret", "../../secret", "/secret", "../../ns10/c/secret"):
            assert store.get(key) is None
            assert store.delete(key) is False
    assert torch_store.get("secret") == torch_store.get("ns10/c/secret") == CANARY.encode()
