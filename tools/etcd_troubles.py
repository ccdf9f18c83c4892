"""Troubles that a real etcd can get into, brought about as they come about, for the tests of what is said of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

from etcd_server import START_SECONDS, EtcdCluster, EtcdServer

__all__ = ["SMALL", "fill", "learner_beside", "make_data_differ"]

SMALL = ("--quota-backend-bytes", str(2 * 1024**2))
"""The arguments of a server that `fill` fills."""

CHECKING = ("--experimental-corrupt-check-time", "1s")


def fill(server: EtcdServer) -> None:
    """Write until the server has used its quota and raises the alarm NOSPACE."""
    with suppress(RuntimeError):
        while True:
            server.ctl("put", "job/trainer/large", reading="x" * 1_000_000)


@contextmanager
def make_data_differ() -> Iterator[EtcdCluster]:
    """Run a cluster one of whose members has other data on its disk, until the members have noticed: alarm CORRUPT."""
    with EtcdCluster(3, *CHECKING) as cluster:
        leader, tampered = cluster.leader, cluster.followers[0]
        leader.ctl("put", "job/trainer/ready", "true-value")
        tampered.stop()
        database = tampered.data / "member" / "snap" / "db"
        database.write_bytes(database.read_bytes().replace(b"true-value", b"tampered!!"))
        tampered.launch()  # whose health nobody can wait for: the alarm may be there first
        deadline = monotonic() + START_SECONDS
        while "CORRUPT" not in leader.ctl("alarm", "list"):
            if monotonic() > deadline:
                raise RuntimeError(f"the members have not noticed; the leader said:\n{leader.log[-2000:]}")
        yield cluster


@contextmanager
def learner_beside(voter: EtcdServer) -> Iterator[EtcdServer]:
    """Run a learner of a server's cluster; it is no member that votes, and is never healthy."""
    learner = EtcdServer("--initial-cluster-state", "existing", name="learner")
    learner.initial_cluster = f"{voter.as_peer},{learner.as_peer}"
    voter.ctl("member", "add", "learner", "--learner", "--peer-urls", learner.as_peer.partition("=")[2])
    learner.launch()
    try:
        learner.ctl("endpoint", "status", "--dial-timeout", f"{START_SECONDS:.0f}s")
        yield learner
    finally:
        learner.__exit__(None, None, None)
