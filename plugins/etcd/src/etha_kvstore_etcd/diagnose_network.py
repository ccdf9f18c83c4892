"""What a diagnosis finds on the way to a member, before any word of etcd's is spoken: its name, its port, its TLS."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from ipaddress import ip_address
from time import time
from typing import NamedTuple, cast

from etha_kvstore_etcd.address import Tls
from etha_kvstore_etcd.finding import Finding, TroubleError, doubtful

__all__ = ["PATIENCE", "SILENT", "Way"]

PATIENCE = 1.5
"""Seconds that one step may take. After 2 s gRPC ends an attempt to connect, and silence looks like a refusal then."""

SILENT = f"it takes connections and says nothing within {PATIENCE:g} s"

EXPIRY_SECONDS = 14 * 86_400.0


class Way(NamedTuple):
    """The way to a member.

    Parameters
    ----------
    host, port : str and int
        Where it listens.
    tls : Tls, optional
        The files of TLS; without them it is spoken to in the clear.
    """

    host: str
    port: int
    tls: Tls | None

    def reach(self) -> str:
        """Connect, and give the address that was reached."""
        try:
            with self._connect() as connection:
                return str(connection.getpeername()[0])
        except socket.gaierror:
            what, cure = f"the name {self.host!r} does not resolve", "correct the endpoint, or the name service"
        except UnicodeError:
            what, cure = f"{self.host[:80]!r} is no host name", "correct the endpoint"
        except ConnectionRefusedError:
            what, cure = "nobody listens there", "start etcd, or correct the endpoint or its --listen-client-urls"
        except TimeoutError:
            what, cure = f"no connection within {PATIENCE:g} s", "is the machine up? Does a firewall drop the packets?"
        except OSError as error:
            what, cure = f"no connection: {error.strerror or error}", "correct the endpoint, or the network"
        raise TroubleError(what, cure)

    def context(self) -> ssl.SSLContext:
        """Make what Python's own TLS needs, from the same files that gRPC is given."""
        assert self.tls is not None
        context = ssl.create_default_context(cafile=self.tls.ca_cert)
        if self.tls.cert_cert is not None:
            # OpenSSL would ask the terminal for a password.
            context.load_cert_chain(self.tls.cert_cert, self.tls.cert_key, password=b"")
        return context

    def explain_tls(self, *, refused: bool) -> TroubleError:
        """Make the handshake that gRPC could not, with a library that says exactly what it minds.

        Parameters
        ----------
        refused : bool
            Whether the server refused the client.

        Returns
        -------
        TroubleError
            Why it could not.
        """
        try:
            context = self.context()
        except OSError as error:  # ssl.SSLError included
            why = getattr(error, "reason", None) or "no PEM"
            what = f"TLS can't begin with these files ({why})"
            return TroubleError(what, "check ca_cert, and that cert_key belongs to cert_cert")
        try:
            with self._connect() as plain, context.wrap_socket(plain, server_hostname=self.host):
                pass
        except ssl.SSLCertVerificationError as error:
            return self._explain_certificate(error)
        except TimeoutError:
            return TroubleError(SILENT, "is the process frozen, or what listens there no etcd?")
        except OSError as error:  # ssl.SSLError included
            if "ALERT" in (reason := str(getattr(error, "reason", ""))):
                what = f"it refused TLS ({reason})"
                return TroubleError(what, "a server with --client-cert-auth wants cert_cert and cert_key")
            what = "it makes no TLS handshake, as one that speaks in the clear"
            return TroubleError(what, "leave https:// and the certificates away, or give the server TLS")
        if refused:
            what = "it refused this client's certificate"
            return TroubleError(what, "give cert_cert and cert_key that its authority has signed")
        return TroubleError("it makes a TLS handshake, and does not answer as etcd does", "correct the endpoint")

    def speaks_tls(self) -> bool:
        """Tell whether a server that is spoken to in the clear speaks TLS."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with self._connect(PATIENCE / 4) as plain, context.wrap_socket(plain):
                return True
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False

    def judge_secrecy(self, peer: str, *, has_password: bool) -> Finding | None:
        """Tell of a certificate that ends soon, and of what others could read where there is none.

        Parameters
        ----------
        peer : str
            The address that was reached.
        has_password : bool
            Whether a password is sent.

        Returns
        -------
        (str, str) or None
            Level and message.
        """
        if self.tls is not None:
            return self._judge_expiry()
        address = ip_address(peer.partition("%")[0])
        if address.is_loopback or (address.is_private and not has_password):
            return None
        what = "the password crosses" if has_password else "keys and values cross"
        return doubtful(f"speaks in the clear: {what} the network for all to read", "give the servers TLS")

    def _connect(self, patience: float = PATIENCE) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=patience)

    def _judge_expiry(self) -> Finding | None:
        with suppress(OSError), self._connect() as plain:
            with self.context().wrap_socket(plain, server_hostname=self.host) as secured:
                certificate = cast("dict[str, str]", secured.getpeercert() or {})
            left = ssl.cert_time_to_seconds(certificate["notAfter"]) - time()
            if left < EXPIRY_SECONDS:
                return doubtful(f"has a certificate that expires in {left / 86_400:.1f} days", "renew it")
        return None

    def _explain_certificate(self, error: ssl.SSLCertVerificationError) -> TroubleError:
        """Say what is wrong with a server's certificate; the numbers are OpenSSL's ``X509_V_ERR_...``."""
        match error.verify_code:
            case 9:
                what, cure = "its certificate is not yet valid", "is a clock wrong, here or where it was made?"
            case 10:
                what, cure = "its certificate has expired", "renew it, or correct the clock of this machine"
            case 62 | 64:
                what = f"its certificate is for another name than {self.host!r}"
                cure = "connect by a name that the certificate holds"
            case _:
                what = f"its certificate is of an authority that is not trusted here ({error.verify_message})"
                cure = "give that authority's file as ca_cert"
        return TroubleError(what, cure)
