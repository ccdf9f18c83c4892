"""A process that sets keys in etcd or TCPStore by bare calls when it is told to, and says when it did.

Its arguments are the backend and the endpoint. It obeys two lines: ``set KEY SECONDS`` sleeps so long, sets the key
and prints the instants just before and just after, on the monotonic clock; ``many PREFIX COUNT`` sets so many keys one
after another and prints how long that took.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic, sleep

VALUE = b"1"


def main(backend: str, endpoint: str) -> None:
    """Obey."""
    put = _etcd(endpoint) if backend == "etcd" else _tcpstore(endpoint)
    print(0, flush=True)
    for line in sys.stdin:
        verb, key, number = line.split()
        start = monotonic()
        if verb == "set":
            sleep(float(number))
            start = monotonic()
            put(key)
            print(start, monotonic(), flush=True)
        else:
            for each in range(int(number)):
                put(f"{key}{each}")
            print(monotonic() - start, flush=True)


def _etcd(endpoint: str) -> Callable[[str], object]:
    from raw_etcd import RawEtcd

    raw = RawEtcd(endpoint)
    return lambda key: raw.set(key, VALUE)()


def _tcpstore(endpoint: str) -> Callable[[str], object]:
    from peers import raw_tcpstore

    raw = raw_tcpstore(endpoint)

    def put(key: str) -> None:
        raw.set(key, VALUE)
        raw.check([key])  # the server has answered for the write then

    return put


if __name__ == "__main__":
    main(*sys.argv[1:])
