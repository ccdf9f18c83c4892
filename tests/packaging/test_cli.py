"""The wheel of the command line in a clean environment, beside one backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etcd_server import EtcdServer

if TYPE_CHECKING:
    from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

ETHA_KV = ("-m", "etha_kvstore_cli")


def test_the_command_needs_one_backend_and_no_other(
    new_environment: Callable[[], Environment], wheel: Callable[[str], Path], etcd_server: EtcdServer
) -> None:
    environment = new_environment()
    environment.install(wheel("etha-kvstore"), wheel("etha-kvstore-cli"), wheel("etha-kvstore-etcd"))
    assert (environment.python.parent / "etha-kv").exists()
    code, listed = environment.ends(*ETHA_KV, "backends", "--json")
    assert (code, [each["name"] for each in json.loads(listed)]) == (0, ["etcd"])
    url = f"etcd://{etcd_server.endpoint}/job-42/trainer"
    code, _ = environment.ends(*ETHA_KV, "set", "--url", url, "rank:0/address", "10.0.0.1:29500")
    assert code == 0
    assert environment.ends(*ETHA_KV, "get", "--url", url, "rank:0/address") == (0, "10.0.0.1:29500")
