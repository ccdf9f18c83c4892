"""Many ranks, forked from one process that has imported torch, meet again and again through one store.

Run by ``test_forked_ranks.py``; as a command: ``forked_ranks.py URL RANKS ROUNDS``, with ``{role}`` in a TCPStore's URL
standing for whether a rank hosts it.
"""

from __future__ import annotations

import os
import sys
import traceback

import torch  # noqa: F401 (imported before any fork, as a launcher does)

from etha.kvstore import open_store_from_config
from etha.kvstore.patterns import expand

TIMEOUT = 120.0


def meet(url: str, rank: int, ranks: int, rounds: int) -> None:
    """Be one rank: say in each round that it is there, and wait for all to say so."""
    role = "true" if rank == 0 else "false"
    with open_store_from_config(url.replace("{role}", role), connect_timeout=TIMEOUT, timeout=60.0) as store:
        everyone = range(ranks)
        for number in range(rounds):
            pattern = f"round:{number}/rank:*"
            store.set(f"round:{number}/rank:{rank}", "1")
            met = store.wait_for_keys(pattern, ranks, timeout=TIMEOUT, candidate_keys=expand(pattern, everyone))
            if len(met) != ranks:
                raise AssertionError(f"rank {rank} met {len(met)} of {ranks} in round {number}")
        # Nobody cleans up before all are through: each says that it is done, and rank 0 says when all have.
        store.set(f"done/rank:{rank}", "1")
        if rank == 0:
            store.wait_for_keys("done/rank:*", ranks, timeout=TIMEOUT, candidate_keys=expand("done/rank:*", everyone))
            store.set("all-done", "1")
        store.wait_for_key("all-done", TIMEOUT)
        store.close(cleanup=False)


def main(url: str, ranks: int, rounds: int) -> int:
    """Fork the ranks, and count those that were released every time."""
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            try:
                meet(url, rank, ranks, rounds)
            except BaseException:  # noqa: BLE001 (a fork must never return into its parent's code)
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    released = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)
    print(f"{released} of {ranks} ranks were released in all of {rounds} rounds")
    return int(released != ranks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
