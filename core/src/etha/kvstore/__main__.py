"""``python -m etha.kvstore backends``: what is installed, and what is broken and why."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from etha.kvstore.registry import KNOWN_DISTRIBUTIONS, installed_backends


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; that of the process where it is not given.

    Returns
    -------
    int
        The exit code: 1 where a backend is broken, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m etha.kvstore", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("backends", help="list the backends that are installed")
    parser.parse_args(arguments)
    return _print_backends()


def _print_backends() -> int:
    backends = installed_backends()
    if not backends:
        print("No backends are installed. Install one with pip:")
        for distribution in KNOWN_DISTRIBUTIONS.values():
            print(f"  pip install {distribution}")
    for backend in backends:
        origin = f"{backend.distribution} {backend.version}".rstrip()
        print(f"{backend.name}  ({origin})")
        if backend.error is not None:
            print(f"  broken: {backend.error}")
        elif backend.spec is not None:
            print(f"  {backend.spec.summary}")
            print(f"  capabilities: {', '.join(sorted(backend.spec.capabilities)) or 'none'}")
            print(f"  options: {', '.join(option.name for option in backend.spec.options) or 'none'}")
    return int(any(backend.error for backend in backends))


if __name__ == "__main__":
    sys.exit(main())
