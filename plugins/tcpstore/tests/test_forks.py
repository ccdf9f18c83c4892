"""A forked child of a process that hosts a server: it ends quickly and cleanly, and the server lives on."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, time
from etha.kvstore.errors import ForkedStoreError
from etha_kvstore_tcpstore import TCPKVStore

with (
    TCPKVStore("job", "host", host="127.0.0.1", port=0, is_master=True) as host,
    TCPKVStore("job", "client", host="127.0.0.1", port=host.port) as client,
):
    client.set("key", "1")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            client.get("key")
        except ForkedStoreError:
            client.close()
            host.close()
            {end}
        os._exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, time.monotonic() - began < 20.0, client.get("key"), client.delete("key"), host.list_keys())
"""


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "sys.exit(0)",
        "del client, host; import gc; gc.collect(); sys.exit(0)",
        "TCPKVStore('job', 'client', host='127.0.0.1', port=host.port).close(); sys.exit(0)",
    ],
)
def test_the_child_ends_cleanly_and_the_parents_server_lives_on(end: str) -> None:
    program = PROGRAM.replace("{end}", end)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "0 True b'1' True []\n"
