"""What only the memory backend can tell of a trouble: that nobody else sees its keys."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

__all__ = ["diagnose"]

COUNTS = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
"""Variables by which torchrun, Slurm and Open MPI tell a process how many there are of it."""


def diagnose(options: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    """Say what the backend is for, and whether this process is one of many, who don't meet by it.

    Parameters
    ----------
    options : mapping
        The options of a store; none of them matters here.

    Returns
    -------
    iterable of (str, str)
        Level and message.

    Examples
    --------
    >>> [level for level, _ in diagnose({})]
    ['good']
    """
    keys = f"memory: the keys live in one process only, here in {os.getpid()}, and no other process sees them"
    many = [f"{name}={os.environ[name]}" for name in COUNTS if os.environ.get(name, "1") != "1"]
    if many:
        cure = "where they are to meet, choose etcd or tcpstore"
        return [("doubtful", f"{keys}; this job has several processes ({', '.join(many)}) -> {cure}")]
    return [("good", f"{keys}; two processes never meet by it, and a shell sees nothing of what a job keeps there")]
