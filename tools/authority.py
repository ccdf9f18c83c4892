"""A certificate authority whose certificates are files, for the tests of TLS."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import trustme

__all__ = ["Authority", "Pair"]


class Pair(NamedTuple):
    """Paths of a certificate and of its key."""

    certificate: str
    key: str

    @property
    def as_client(self) -> dict[str, str]:
        """The options of a store that shows this certificate."""
        return {"cert_cert": self.certificate, "cert_key": self.key}

    @property
    def as_server(self) -> tuple[str, ...]:
        """The arguments of an etcd that shows it."""
        return "--cert-file", self.certificate, "--key-file", self.key


class Authority:
    """An authority.

    Parameters
    ----------
    directory : Path
        Where the files are written.

    Attributes
    ----------
    ca : str
        The path of its own certificate.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.ca = str(directory / "ca.pem")
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, stem: str, identity: str, *, begins: float | None = None, ends: float | None = None) -> Pair:
        """Write a certificate.

        Parameters
        ----------
        stem : str
            The name of its files.
        identity : str
            The host or the person that it is for.
        begins, ends : float, optional
            When it becomes valid and when it expires, in days from now; yesterday is -1.

        Returns
        -------
        Pair
            Where it is.
        """
        issued = self._authority.issue_cert(identity, not_before=_in_days(begins), not_after=_in_days(ends))
        pair = Pair(str(self._directory / f"{stem}.pem"), str(self._directory / f"{stem}.key"))
        issued.cert_chain_pems[0].write_to_path(pair.certificate)
        issued.private_key_pem.write_to_path(pair.key)
        return pair


def _in_days(days: float | None) -> datetime | None:
    return None if days is None else datetime.now(timezone.utc) + timedelta(days=days)
