"""What only the TCPStore backend can tell of a trouble: torch, torchrun, the name, the port, and what listens there.

A message that is not good says after an arrow what to do next.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from queue import Empty, SimpleQueue
from statistics import median
from threading import Thread
from time import monotonic
from typing import Any, cast

import importlib_metadata

from etha.kvstore.errors import ConfigError
from etha.kvstore.options import check_options
from etha_kvstore_tcpstore.address import Address, choose_address
from etha_kvstore_tcpstore.carrier import UnansweredError
from etha_kvstore_tcpstore.link import Link
from etha_kvstore_tcpstore.plugin import SPEC, capabilities_with
from etha_kvstore_tcpstore.requests import PROBE_KEY, all_exist

__all__ = ["diagnose", "judge_torch"]

PATIENCE = 1.5
"""Seconds that one step may take."""

OLDEST = (2, 8)
"""The oldest torch that this backend asks for."""

ROUND_TRIPS = 9

Finding = tuple[str, str]
Ip = IPv4Address | IPv6Address


def diagnose(options: Mapping[str, object]) -> Iterable[Finding]:
    """Examine what a store with these options would use; nothing is written, and nothing is hosted.

    Parameters
    ----------
    options : mapping
        The options of a store.

    Returns
    -------
    iterable of (str, str)
        Level and message.

    Examples
    --------
    >>> [level for level, _ in diagnose({"host": "127.0.0.1", "port": 1})][1:]
    ['bad']
    """
    try:
        wanted = cast("dict[str, Any]", check_options(SPEC, options))
        if wanted.get("store") is not None:
            return [("good", "tcpstore: the caller's torch store is used as it is")]
        is_master = wanted.get("is_master", False)
        address = choose_address(wanted.get("host"), wanted.get("port"), is_master=is_master)
    except ConfigError as error:
        return [("bad", f"tcpstore: {error} -> correct the options")]
    return _diagnose(address, is_master, is_agents="host" not in wanted)


def judge_torch(version: str | None, *, is_master: bool) -> Finding:
    """Say whether a version of torch serves.

    Parameters
    ----------
    version : str, optional
        The version that is installed; `None` where none is.
    is_master : bool
        Whether it is to host the server, which only torch can do.

    Returns
    -------
    (str, str)
        Level and message.

    Examples
    --------
    >>> judge_torch("2.13.0", is_master=True)
    ('good', 'tcpstore: torch 2.13.0 is installed')
    """
    level = "bad" if is_master else "doubtful"
    cure = "pip install 'torch>=2.8', as etha-kvstore-tcpstore asks for"
    if version is None:
        return level, f"tcpstore: torch is not installed, and hosting a server takes it -> {cure}"
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        return level, f"tcpstore: torch {version} is older than this backend is made for -> {cure}"
    if "list_keys" not in capabilities_with(version):
        return (
            "doubtful",
            f"tcpstore: torch {version} can't list keys -> where list_keys() is used, install 2.10 or newer",
        )
    return "good", f"tcpstore: torch {version} is installed"


def _diagnose(address: Address, is_master: bool, is_agents: bool) -> Iterator[Finding]:
    try:
        version = importlib_metadata.version("torch")
    except importlib_metadata.PackageNotFoundError:
        version = None
    yield judge_torch(version, is_master=is_master)
    if is_agents:
        yield "good", f"tcpstore: torchrun's agent is said to host the store, at {address} (MASTER_ADDR, MASTER_PORT)"
    elif is_master:
        yield from _beside_torchrun(address)
    found, trouble = _resolve(address)
    if trouble:
        yield "bad", f"tcpstore at {address}: {trouble}"
        return
    yield from _judge_name(address, found)
    yield _host(address, found[0]) if is_master else _examine(address, found)
    yield from _judge_secrecy(address, found)


def _beside_torchrun(address: Address) -> Iterable[Finding]:
    """See whether a server that is to be hosted would collide with one that belongs to torch."""
    if os.environ.get("MASTER_PORT") != str(address.port):
        return
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        whose = "torchrun's agent hosts its store at this port (MASTER_PORT)"
        yield "bad", f"tcpstore: {whose} -> leave host, port and is_master away, and that one is used"
    else:
        whose = "torch.distributed.init_process_group will host its store at this port (MASTER_PORT)"
        yield "bad", f"tcpstore: {whose} -> choose another port"


# --- the name ---


def _resolve(address: Address) -> tuple[list[Ip], str]:
    """Look the host up, for no longer than `PATIENCE`: a name service that is away can take half a minute."""
    answers: SimpleQueue[list[Ip] | Exception] = SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
            answers.put([ip_address(str(where[0]).partition("%")[0]) for *_, where in found])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except Empty:
        return [], f"the name service says nothing about {address.host!r} -> give an address, or mend the name service"
    if isinstance(answer, UnicodeError):
        return [], f"{address.host[:80]!r} is no host name -> correct the option host"
    if isinstance(answer, Exception):
        return [], f"the name {address.host!r} does not resolve -> correct the option host, or give an address"
    return answer, ""


def _judge_name(address: Address, found: list[Ip]) -> Iterable[Finding]:
    """Tell where a name means this machine here, and something else elsewhere."""
    is_name = str(found[0]) != address.host
    if is_name and address.host != "localhost" and found[0].is_loopback:
        where = f"the name resolves to {found[0]}, which on every machine means that machine itself"
        cure = "give an address that the others reach; /etc/hosts is where the name is given this one"
        yield "doubtful", f"tcpstore at {address}: {where} -> {cure}"


# --- what listens there ---


def _host(address: Address, where: Ip) -> Finding:
    """See whether a server could be hosted, by listening for a moment."""
    family = socket.AF_INET6 if where.version == 6 else socket.AF_INET
    try:
        socket.create_server((str(where), address.port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "bad", f"tcpstore at {address}: the port is taken -> choose another; only one process is the master"
        why = "it is no address of this machine" if error.errno == errno.EADDRNOTAVAIL else error.strerror
        return "bad", f"tcpstore at {address}: no server can be hosted, {why} -> host it where the address belongs"
    return "good", f"tcpstore at {address}: the port is free, and a store that is opened with is_master would host here"


def _examine(address: Address, found: list[Ip]) -> Finding:
    """Connect to the first address that takes a connection, and see what answers."""
    trouble = ""
    for ip in found:
        try:
            socket.create_connection((str(ip), address.port), timeout=PATIENCE / len(found)).close()
        except ConnectionRefusedError:
            trouble = "nobody listens -> start the process that hosts (is_master), or correct host and port"
        except TimeoutError:
            trouble = f"no connection within {PATIENCE:g} s -> is the machine up, and does a firewall drop the packets?"
        except OSError as error:
            trouble = f"no connection: {error.strerror or error} -> correct host and port, or the network"
        else:
            return _ask(address, Address(str(ip), address.port))
    return "bad", f"tcpstore at {address}: {trouble}"


def _ask(address: Address, reached: Address) -> Finding:
    """Speak to what listens as to a TCPStore."""
    deadline = monotonic() + PATIENCE
    try:
        link = Link(reached, deadline)
        try:
            took = []
            for _ in range(ROUND_TRIPS):
                began = monotonic()
                link.call(deadline, partial(all_exist, [PROBE_KEY]))
                took.append(monotonic() - began)
            try:
                held = f"it holds {len(link.call(deadline, Link.list_keys))} keys"
            except (OSError, UnansweredError):
                cure = "where list_keys() is used, host with torch 2.10 or newer"
                return "doubtful", f"tcpstore at {address}: a TCPStore answers, and does not list its keys -> {cure}"
        finally:
            link.end(deadline, lambda _: None)
    except (OSError, UnansweredError) as error:
        return "bad", f"tcpstore at {address}: {_explain(error, reached)}"
    return "good", f"tcpstore at {address}: a TCPStore answers in {median(took) * 1000:.2f} ms; {held}, of all jobs"


def _explain(error: Exception, reached: Address) -> str:
    """Say why what takes connections does not answer as a TCPStore does."""
    if _speaks_http(reached):
        return "what listens there is a web server and no TCPStore -> correct host and port"
    if isinstance(error, UnansweredError) or "says nothing" in str(error):
        return f"it takes connections and says nothing within {PATIENCE:g} s -> is the process that hosts frozen?"
    return "what listens there does not answer as a TCPStore does -> correct host and port"


def _speaks_http(reached: Address) -> bool:
    try:
        with socket.create_connection(reached, timeout=PATIENCE / 4) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def _judge_secrecy(address: Address, found: list[Ip]) -> Iterable[Finding]:
    if all(ip.is_private for ip in found):  # loopback included
        return
    what = "there is neither authentication nor encryption, and the address is no private one"
    yield "doubtful", f"tcpstore at {address}: {what} -> use an address of the cluster's own network, or etcd with TLS"
