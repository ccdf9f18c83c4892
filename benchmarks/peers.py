"""The other Python clients, each by the calls that its own documentation shows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from etcd_server import free_port
from etha_kvstore_etcd.etcd3_compat import import_etcd3
from harness import Block, repeat, repeat_async

__all__ = ["ETCD_CLIENTS", "EtcdPeers", "LockedDict", "PyKeyValue", "jax_service", "raw_tcpstore", "tooz_group"]

ETCD_CLIENTS = ("etcd3", "aetcd", "etcd3gw", "etcd-client-py")


class EtcdPeers:
    """The four Python clients of etcd, connected, and the blocks that they can do.

    Parameters
    ----------
    endpoint : str
        The server, ``host:port``.
    """

    def __init__(self, endpoint: str) -> None:
        import aetcd
        import etcd3gw
        import etcd_client

        host, _, port = endpoint.rpartition(":")
        self._open = ExitStack()
        self._loop = asyncio.new_event_loop()
        self._open.callback(self._loop.close)
        self._etcd3 = self._open.enter_context(import_etcd3().client(host=host, port=int(port), timeout=10))
        self._gateway = etcd3gw.Etcd3Client(host=host, port=int(port), timeout=10, api_path="/v3/")
        self._aetcd = aetcd.Client(host=host, port=int(port), timeout=10)
        self._run(self._aetcd.connect)
        self._open.callback(self._run, self._aetcd.close)
        client = etcd_client.Client([f"http://{endpoint}"])
        self._rust = self._run(client.__aenter__)  # it has to be called where a loop runs
        self._open.callback(self._run, lambda: client.__aexit__(None, None, None))

    def get(self, key: str) -> dict[str, Block]:
        """Give the blocks that read a key."""
        raw = key.encode()
        return {
            "etcd3": repeat(lambda: self._etcd3.get(key)),
            "aetcd": repeat_async(self._loop, lambda: self._aetcd.get(raw)),
            "etcd3gw": repeat(lambda: self._gateway.get(key)),
            "etcd-client-py": repeat_async(self._loop, lambda: self._rust.get(raw)),
        }

    def set(self, key: str, value: str) -> dict[str, Block]:
        """Give the blocks that write a key."""
        raw, data = key.encode(), value.encode()
        return {
            "etcd3": repeat(lambda: self._etcd3.put(key, value)),
            "aetcd": repeat_async(self._loop, lambda: self._aetcd.put(raw, data)),
            "etcd3gw": repeat(lambda: self._gateway.put(key, value)),
            "etcd-client-py": repeat_async(self._loop, lambda: self._rust.put(raw, data)),
        }

    def close(self) -> None:
        """Close them all."""
        self._open.close()

    def _run(self, call: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return await call()

        return self._loop.run_until_complete(run())


class PyKeyValue:
    """The memory store of ``py-key-value-aio``, in a loop of its own."""

    def __init__(self) -> None:
        from key_value.aio.stores.memory import MemoryStore

        self._loop = asyncio.new_event_loop()
        self._store = MemoryStore()

    def get(self, key: str, collection: str, batch: int) -> Block:
        """Give the block that reads a key."""
        return repeat_async(self._loop, lambda: self._store.get(key=key, collection=collection), batch)

    def set(self, key: str, value: str, collection: str, batch: int) -> Block:
        """Give the block that writes a key."""
        item = {"value": value}
        return repeat_async(self._loop, lambda: self._store.put(key=key, value=item, collection=collection), batch)

    def close(self) -> None:
        """Close the loop."""
        self._loop.close()


class LockedDict:
    """What a user would write who needs no more than this process: a dict under a lock."""

    def __init__(self, namespace: str, component: str) -> None:
        self._namespace = namespace
        self._component = component
        self._lock = threading.Lock()
        self._values: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """Read a key."""
        with self._lock:
            return self._values.get(f"{self._namespace}/{self._component}/{key}")

    def set(self, key: str, value: str) -> None:
        """Write a key."""
        with self._lock:
            self._values[f"{self._namespace}/{self._component}/{key}"] = value


@contextmanager
def jax_service() -> Iterator[Any]:
    """Run JAX's distributed coordination service in another process, and give a client of it."""
    from jax._src.lib import _jax

    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, str(Path(__file__).with_name("jax_service.py")), address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        client = _jax.get_distributed_runtime_client(address, 0, init_timeout=30, use_compression=False)
        client.connect()
        try:
            yield client
        finally:
            client.shutdown()
            process.stdin.close()


def raw_tcpstore(endpoint: str) -> Any:
    """Connect to a TCPStore server with torch's own client."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, _, port = endpoint.rpartition(":")
    return TCPStore(host, int(port), is_master=False, wait_for_workers=False, timeout=timedelta(seconds=30))


def tooz_group(endpoint: str, size: int) -> Callable[[], Any]:
    """Join so many members to a group by ``tooz``, and give a function that reads them.

    Members whose heartbeat nobody runs leave after their timeout, so it is given a length that outlasts the benchmark.
    They end with the process: each ``stop`` would take a second.
    """
    from tooz import coordination

    url = f"etcd3+http://{endpoint}?api_version=v3&membership_timeout=3600"
    group = b"benchmark"
    reader = coordination.get_coordinator(url, b"reader")
    reader.start()
    reader.create_group(group).get()
    for number in range(size):
        member = coordination.get_coordinator(url, f"rank:{number}".encode())
        member.start()
        member.join_group(group).get()
    return lambda: reader.get_members(group).get()
