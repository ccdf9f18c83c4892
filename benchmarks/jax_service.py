"""JAX's distributed coordination service, until standard input ends; its argument is where it listens."""

from __future__ import annotations

import sys


def main(address: str) -> None:
    """Serve."""
    from jax._src.lib import _jax

    service = _jax.get_distributed_runtime_service(address, 1)
    print("ready", flush=True)
    sys.stdin.read()
    service.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
