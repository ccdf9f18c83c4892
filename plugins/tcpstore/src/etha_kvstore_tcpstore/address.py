"""Where the server is: what the options say, and what ``torchrun`` says where they say nothing."""

from __future__ import annotations

import os
from typing import NamedTuple

from etha.kvstore.errors import ConfigError

__all__ = ["Address", "choose_address"]


class Address(NamedTuple):
    """The address of a server.

    Parameters
    ----------
    host : str
        A host name, or an IPv4 or IPv6 address.
    port : int
        The port.

    Examples
    --------
    >>> str(Address("::1", 29400))
    '[::1]:29400'
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def choose_address(host: str | None, port: int | None, *, is_master: bool) -> Address:
    """Check that the options fit together, and return the address that they mean.

    Parameters
    ----------
    host, port : str and int, optional
        The options; without them, the store that ``torchrun``'s agent hosts is meant.
    is_master : bool
        Whether the server is to be hosted.

    Returns
    -------
    Address
        Where the server is, or is to be; the port is 0 where it is to be found.

    Raises
    ------
    ConfigError
        If the options contradict each other or don't say enough.

    Examples
    --------
    >>> choose_address("10.0.0.1", 29400, is_master=False)
    Address(host='10.0.0.1', port=29400)
    """
    if host is None and port is None and not is_master:
        return _agents_address()
    if not host or port is None:  # an empty host would mean every interface
        missing = " and ".join(name for name, value in (("host", host), ("port", port)) if value in (None, ""))
        given = "is_master" if is_master else "port" if host is None else "host"
        raise ConfigError(f"backend 'tcpstore' was given {given} and also needs {missing}")
    lowest = 0 if is_master else 1
    if not lowest <= port <= 65_535:
        raise ConfigError(
            f"a port is a number from {lowest} to 65535, not {port}; only a hosting store may find its own"
        )
    return Address(host, port)


def _agents_address() -> Address:
    """Read where the agent of ``torchrun`` hosts its store.

    Without an agent, ``MASTER_PORT`` is where `torch.distributed.init_process_group` will host: nobody may sit there.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise ConfigError(
            "backend 'tcpstore' was not told where its server is, and there is no torchrun whose agent hosts one "
            "(TORCHELASTIC_USE_AGENT_STORE is not True); give host and port in every process, and is_master=True in "
            "exactly one of them, or store with a torch store that you have"
        )
    try:
        return Address(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    except (KeyError, ValueError) as error:
        raise ConfigError(
            "TORCHELASTIC_USE_AGENT_STORE is True, but MASTER_ADDR and MASTER_PORT don't say where the agent's store is"
        ) from error
