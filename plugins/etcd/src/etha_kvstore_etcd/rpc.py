"""The calls of etcd's API that this plugin makes, on one gRPC channel.

The method paths are those of the public API; the messages are generated from a ``.proto`` of our own.
"""

from __future__ import annotations

from typing import Any

import grpc

from etha_kvstore_etcd._proto import etcd_pb2 as pb

__all__ = ["Rpc"]


class Rpc:
    """One channel and its calls.

    Parameters
    ----------
    channel : grpc.Channel
        Where to.
    address : str
        The address, for messages.
    owned : bool
        Whether `close` closes the channel.
    """

    def __init__(self, channel: grpc.Channel, address: str, *, owned: bool = True) -> None:
        self.address = address
        self._channel = channel
        self._owned = owned
        self.range = self._unary("KV/Range", pb.RangeRequest, pb.RangeResponse)
        self.delete_range = self._unary("KV/DeleteRange", pb.DeleteRangeRequest, pb.DeleteRangeResponse)
        self.txn = self._unary("KV/Txn", pb.TxnRequest, pb.TxnResponse)
        self.lease_revoke = self._unary("Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
        self.authenticate = self._unary("Auth/Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse)
        self.status = self._unary("Maintenance/Status", pb.StatusRequest, pb.StatusResponse)
        self.member_list = self._unary("Cluster/MemberList", pb.MemberListRequest, pb.MemberListResponse)
        self.cancellable = {
            "range": self._cancellable("KV/Range", pb.RangeRequest, pb.RangeResponse),
            "txn": self._cancellable("KV/Txn", pb.TxnRequest, pb.TxnResponse),
            "lease_grant": self._cancellable("Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse),
            # A stream in etcd's API as well, on which more requests could follow.
            "lease_keep_alive": self._cancellable(
                "Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse
            ),
        }
        """Calls that another thread can cancel; the reply is the one item of what they give."""
        self.watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch", pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString
        )

    def close(self) -> None:
        """End every call under way, and the channel."""
        if self._owned:
            self._channel.close()

    def _unary(self, path: str, request: Any, response: Any) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        return self._channel.unary_unary(f"/etcdserverpb.{path}", request.SerializeToString, response.FromString)

    def _cancellable(self, path: str, request: Any, response: Any) -> grpc.UnaryStreamMultiCallable[Any, Any]:
        """Make a call of one reply as a stream, which on the wire is no other than a plain call.

        A plain call's future would do, but it takes a thread of grpcio's, and a Ctrl-C while that is started leaves a
        channel whose later calls and whose `close` never end. A stream needs none where the channel was opened with
        ``SingleThreadedUnaryStream``.
        """
        return self._channel.unary_stream(f"/etcdserverpb.{path}", request.SerializeToString, response.FromString)
