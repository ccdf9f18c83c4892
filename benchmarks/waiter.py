"""A process that waits for many keys, so that its CPU time and its threads are those of the waiting and nothing else.

Its arguments are how it waits, the endpoint, the component and the number of keys. It prints a line when it is about
to wait, and its CPU time when it has what it waited for; to each line that it is sent it answers with its CPU time.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from time import process_time

NAMESPACE, PATTERN = "job-42", "rank:*"


def main(how: str, endpoint: str, component: str, count: int) -> None:
    """Wait."""
    wait = WAYS[how](endpoint, component, count)
    answering = threading.Thread(target=_answer)
    answering.start()
    print(0, flush=True)
    wait()
    print(process_time(), flush=True)
    answering.join()


def _answer() -> None:
    """Answer as long as anybody asks; nothing outlives whoever it was started for."""
    for _ in sys.stdin:
        print(process_time(), flush=True)
    os._exit(0)


def _etcd_keys(endpoint: str, component: str, count: int) -> Callable[[], object]:
    """Wait for all by one `wait_for_keys`."""
    from etha.kvstore import open_store
    from etha.kvstore.patterns import expand

    store = open_store("etcd", namespace=NAMESPACE, component=component, endpoints=[endpoint])
    keys = expand(PATTERN, range(count))
    return lambda: store.wait_for_keys(PATTERN, count, timeout=float("inf"), candidate_keys=keys)


def _etcd_raw(endpoint: str, component: str, count: int) -> Callable[[], object]:
    """Read and decode as many events of a bare watch stream, and do nothing with them."""
    from raw_etcd import RawEtcd

    raw = RawEtcd(endpoint)

    def read() -> None:
        seen = 0
        for response in raw.follow(f"{NAMESPACE}/{component}/"):
            for event in response.events:
                kv = event.kv
                _ = kv.key, kv.value, kv.mod_revision
                seen += 1
            if seen >= count:
                return

    return read


def _etcd_each(endpoint: str, component: str, count: int) -> Callable[[], object]:
    """Wait for each by a `wait_for_key` in a thread of its own."""
    from etha.kvstore import open_store

    store = open_store("etcd", namespace=NAMESPACE, component=component, endpoints=[endpoint])

    def wait_for_each() -> None:
        threading.stack_size(256 * 1024)
        waits = [
            threading.Thread(target=store.wait_for_key, args=(f"rank:{rank}", float("inf"))) for rank in range(count)
        ]
        for each in waits:
            each.start()
        for each in waits:
            each.join()

    return wait_for_each


def _tcpstore(share: float) -> Callable[[str, str, int], Callable[[], object]]:
    """Wait by one `wait_for_keys` for a share of the candidates."""

    def prepare(endpoint: str, component: str, count: int) -> Callable[[], object]:
        from etha.kvstore import open_store
        from etha.kvstore.patterns import expand

        host, _, port = endpoint.rpartition(":")
        store = open_store("tcpstore", namespace=NAMESPACE, component=component, host=host, port=int(port))
        keys = expand(PATTERN, range(count))
        expected = int(share * count)
        return lambda: store.wait_for_keys(PATTERN, expected, timeout=float("inf"), candidate_keys=keys)

    return prepare


WAYS: dict[str, Callable[[str, str, int], Callable[[], object]]] = {
    "etcd-keys": _etcd_keys,
    "etcd-raw": _etcd_raw,
    "etcd-each": _etcd_each,
    "tcpstore-all": _tcpstore(1.0),
    "tcpstore-half": _tcpstore(0.5),
}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
