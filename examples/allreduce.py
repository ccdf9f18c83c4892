"""The ranks of a torch.distributed job exchange the address of their process group through a store, and add up.

One command starts two ranks on this machine, and a TCPStore for them to meet in::

    python examples/allreduce.py

A URL, here or in `ETHA_KVSTORE_URL`, names another store. Ranks that something else starts, on one machine or on many,
are told who they are as torch tells them::

    RANK=0 WORLD_SIZE=2 python examples/allreduce.py --url etcd://10.0.0.9:2379/job-42/trainer --host 10.0.0.1
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not by torch's types
from torch.multiprocessing.spawn import ProcessException, spawn

from etha.kvstore import KVStore, open_store_from_config
from etha.kvstore.config import ENVIRONMENT_VARIABLE
from etha.kvstore.errors import KVStoreError
from etha.kvstore.patterns import expand
from etha_kvstore_tcpstore import TCPKVStore


def take_part(rank: int, ranks: int, options: argparse.Namespace) -> None:
    """Do all that a rank does, from opening the store to closing it."""
    try:
        with open_store_from_config(options.url) as store:
            group = meet(store, rank, ranks, options)
            seconds = timedelta(seconds=options.patience)
            distributed.init_process_group("gloo", store=group, rank=rank, world_size=ranks, timeout=seconds)
            add_up(rank, ranks)
            distributed.destroy_process_group()
            leave(store, rank, ranks, options.patience)
    except KVStoreError as error:
        sys.exit(f"rank {rank}: {error}")
    except OSError as error:
        sys.exit(f"rank {rank}: {error}; --host is an address of this machine")
    except RuntimeError as error:  # torch's
        sys.exit(f"rank {rank}: a rank that was here has died, or cannot be reached at its --host: {error}")


def meet(store: KVStore, rank: int, ranks: int, options: argparse.Namespace) -> TCPStore:
    """Exchange the address of the process group, which rank 0 serves, and see that everybody is here."""
    seconds = timedelta(seconds=options.patience)
    if rank == 0:
        # The port is taken before it is published; one that was only found free may be somebody else's by then.
        listener = socket.create_server((options.host, 0))
        port = listener.getsockname()[1]
        group = TCPStore(options.host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
        store.set("group/address", f"{options.host}:{port}")
    arrive(store, "here", rank, ranks, options.patience)
    if rank != 0:
        address = store.wait_for_key("group/address", options.patience).decode()
        say(rank, f"the process group is at {address}")
        host, _, number = address.rpartition(":")
        group = TCPStore(host, int(number), timeout=seconds)
    return group


def arrive(store: KVStore, point: str, rank: int, ranks: int, patience: float) -> None:
    """Say that this rank has come to a point, and wait until all have; where one has not, the error names it."""
    everyone = expand(f"rank:*/{point}", range(ranks))
    store.set(f"rank:{rank}/{point}", "1")
    store.wait_for_keys(f"rank:*/{point}", ranks, timeout=patience, candidate_keys=everyone)


def add_up(rank: int, ranks: int) -> None:
    """Add one number of each rank, and check the sum."""
    number = torch.tensor([rank + 1.0])
    distributed.all_reduce(number)
    expected = sum(range(1, ranks + 1))
    if number.item() != expected:
        sys.exit(f"rank {rank}: the sum over {ranks} ranks is {number.item():g}, and it should be {expected}")
    say(rank, f"the sum over {ranks} ranks is {number.item():g}, as it should be")


def say(rank: int, text: str) -> None:
    """Print a line in one piece: the ranks share the terminal, and a line end of its own may come too late."""
    print(f"rank {rank}: {text}\n", end="", flush=True)


def leave(store: KVStore, rank: int, ranks: int, patience: float) -> None:
    """Leave in order: rank 0, which serves the process group, goes last, and takes away what the others wrote."""
    if rank != 0:
        store.set(f"rank:{rank}/left", "1")
        store.close(cleanup=False)  # cleaning up would delete that before rank 0 has seen it
        return
    arrive(store, "left", rank, ranks, patience)
    for other in range(1, ranks):
        store.delete(f"rank:{other}/here")
        store.delete(f"rank:{other}/left")


def start_both(options: argparse.Namespace) -> None:
    """Start two ranks on this machine; if one fails, the other is ended."""
    try:
        spawn(take_part, args=(2, options), nprocs=2)  # type: ignore[no-untyped-call]
    except ProcessException as error:
        sys.exit(f"allreduce failed: {error}")


def main() -> None:
    """Be the rank that the environment names, or start both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default=os.environ.get(ENVIRONMENT_VARIABLE), help="the store to meet in")
    parser.add_argument("--host", default="127.0.0.1", help="an address of this machine that the other ranks can reach")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds that a rank waits for the others")
    options = parser.parse_args()
    if not 0 < options.patience < float("inf"):
        parser.error("--patience is a positive number of seconds")
    if "RANK" in os.environ:
        rank, ranks = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
        if not (rank.isdecimal() and ranks.isdecimal() and int(rank) < int(ranks)):
            parser.error(f"RANK and WORLD_SIZE are two numbers, such as 0 and 2, and not {rank!r} and {ranks!r}")
        take_part(int(rank), int(ranks), options)
    elif options.url:
        start_both(options)
    else:
        # The store's server lives here, in neither rank, so that it is there before both and goes after both.
        with TCPKVStore("allreduce", "trainer", host="127.0.0.1", port=0, is_master=True) as served:
            options.url = f"tcpstore://127.0.0.1:{served.port}/allreduce/trainer"
            start_both(options)


if __name__ == "__main__":
    main()
