"""What a failed gRPC call means: the one place where grpcio's exceptions become this project's.

Two things are told apart, because the retry rules hang on them: whether the request can have taken effect, and whether
trying again can help. The codes and texts are those of etcd's ``api/v3/rpctypes/error.go``, which its Go client
matches too.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, NamedTuple

import grpc

from etha.kvstore.errors import (
    AuthenticationError,
    KVStoreError,
    OperationTimeoutError,
    StoreClosedError,
    StoreFullError,
    StoreUnavailableError,
    ValueTooLargeError,
)
from etha_kvstore_etcd._proto import etcd_pb2 as pb

__all__ = ["CompactedError", "Failure", "LeaseLostError", "Verdict", "forget_frames", "judge", "name_keys", "refusal"]


class Verdict(Enum):
    """What may be done after a failed call."""

    NEVER_LEFT = auto()
    """There was no connection: anything may be sent again."""
    NOT_TAKEN = auto()
    """The server was too busy to take it: anything may be sent again, later."""
    TOKEN = auto()
    """The server did not accept the token, and did nothing: authenticate, then send again."""
    UNKNOWN = auto()
    """The reply was lost or never came: a read may be sent again, a write may have taken effect."""
    FINAL = auto()
    """The server refused, and would again."""


class Failure(NamedTuple):
    """A failed call: what may be done, and the error that says what happened."""

    verdict: Verdict
    error: KVStoreError


class CompactedError(KVStoreError):
    """The revision that was asked for is compacted away, or another history's. Never leaves this plugin."""


class LeaseLostError(KVStoreError):
    """The lease that was named does not exist, or not any more; nothing was done. Never leaves this plugin."""


_NOT_TAKEN = ("etcdserver: too many requests",)
_TOKEN = ("invalid auth token", "revision of auth store is old", "user name is empty")
_REFUSED = (
    "permission denied",
    "authentication failed",
    "authentication is not enabled",
    "user name not found",
    "root user does not have root role",
)
_CERTIFICATE = (
    "CERTIFICATE_VERIFY_FAILED",
    "Peer name",
    "verification check failed",
    "TLSV1_ALERT",
    "TLSV13_ALERT",
    "SSLV3_ALERT",
)
_HANDSHAKE = (
    "TSI_DATA_CORRUPTED",  # with TLS 1.3 the server refuses the client's certificate after the handshake, by an alert
    "Failed to create security handshaker",  # a key that is none, or another certificate's
)
_CLOSED = ("Channel closed", "Locally cancelled")
_NEVER_CONNECTED = ("failed to connect to all addresses", "errors resolving ", "DNS resolution failed")


def judge(error: Exception, address: str) -> Failure:
    """Say what a failed call means.

    Parameters
    ----------
    error : Exception
        What grpcio raised: an `grpc.RpcError`, or the `ValueError` of a channel that is closed.
    address : str
        The endpoint, for the text.

    Returns
    -------
    Failure
        The verdict, and the error with grpcio's as its cause.
    """
    forget_frames(error)
    if not isinstance(error, grpc.RpcError):
        return _failure(Verdict.FINAL, StoreClosedError("the store was closed during the call"), error)
    code, said = error.code(), error.details() or ""
    text = f"etcd at {address}: {said or code.name}"
    if code is grpc.StatusCode.CANCELLED and any(mark in said for mark in _CLOSED):
        return _failure(Verdict.FINAL, StoreClosedError("the store was closed during the call"), error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        silent = OperationTimeoutError(f"etcd at {address} did not answer in time")
        return _failure(Verdict.UNKNOWN, silent, error)
    never_connected = code is grpc.StatusCode.UNAVAILABLE and said.startswith(_NEVER_CONNECTED)
    marks = (*_CERTIFICATE, *_HANDSHAKE) if never_connected else _CERTIFICATE
    if code is grpc.StatusCode.UNAVAILABLE and any(mark in said for mark in marks):
        return _failure(Verdict.FINAL, AuthenticationError(f"{text}; TLS was refused, check the certificates"), error)
    if never_connected:
        return _failure(Verdict.NEVER_LEFT, StoreUnavailableError(text), error)
    if any(mark in said for mark in _NOT_TAKEN):
        return _failure(Verdict.NOT_TAKEN, StoreUnavailableError(text), error)
    if any(mark in said for mark in _TOKEN):
        return _failure(Verdict.TOKEN, AuthenticationError(text), error)
    if "requested lease not found" in said:
        return _failure(Verdict.FINAL, LeaseLostError(text), error)
    if "revision has been compacted" in said or "future revision" in said:
        return _failure(Verdict.FINAL, CompactedError(text), error)
    if "database space exceeded" in said:
        full = StoreFullError(f"{text}; compact and defragment it, then disarm the alarm (etcdctl alarm disarm)")
        return _failure(Verdict.FINAL, full, error)
    if "corrupt cluster" in said:
        differing = f"{text}: its members' data differ; etcdctl endpoint hashkv --cluster shows which, see etcd's docs"
        return _failure(Verdict.FINAL, StoreUnavailableError(differing), error)
    if "request is too large" in said or "larger than max" in said:
        return _failure(Verdict.FINAL, ValueTooLargeError(f"{text}; see the option max_request_bytes"), error)
    if (refused := refusal(said, address)) is not None:
        return _failure(Verdict.FINAL, refused, error)
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED):
        return _failure(Verdict.FINAL, KVStoreError(f"{text} ({code.name})"), error)
    return _failure(Verdict.UNKNOWN, StoreUnavailableError(text), error)


def forget_frames(error: Exception) -> None:
    """Take an error's traceback away.

    With grpcio, the error of a failed stream is the call itself, and the frames of its traceback hold it, so that it
    lives until the garbage collector comes by. It takes a lock when it is destroyed. If that is when the interpreter
    ends, a thread of grpcio's that was stopped may hold that lock, and the process never ends.

    Parameters
    ----------
    error : Exception
        What grpcio raised.
    """
    error.__traceback__ = None


def name_keys(error: AuthenticationError, request: Any) -> AuthenticationError:
    """Say what keys a user was denied, where that is what happened.

    Parameters
    ----------
    error : AuthenticationError
        The refusal.
    request : message
        What was asked for.

    Returns
    -------
    AuthenticationError
        The refusal, with the keys and what to do, and with the same cause.
    """
    about = request.compare[0] if isinstance(request, pb.TxnRequest) else request
    if "permission denied" not in str(error) or not hasattr(about, "key"):
        return error
    what = "keys that begin with" if getattr(about, "range_end", b"") else "key"
    right = "read" if isinstance(request, pb.RangeRequest) else "read and write"
    told = AuthenticationError(
        f"{error}: {what} {about.key.decode(errors='replace')!r}; give a role of the user the right to {right} it "
        "(etcdctl role grant-permission)"
    )
    told.__cause__ = error.__cause__
    return told


def refusal(said: str, address: str) -> AuthenticationError | None:
    """Make the error for a text with which etcd refuses a user, or `None` where it is no such text."""
    if any(mark in said for mark in (*_REFUSED, *_TOKEN)):
        return AuthenticationError(f"etcd at {address}: {said}")
    return None


def _failure(verdict: Verdict, error: KVStoreError, cause: Exception) -> Failure:
    error.__cause__ = cause
    return Failure(verdict, error)
