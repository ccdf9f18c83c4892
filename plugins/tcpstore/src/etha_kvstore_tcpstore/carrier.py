"""What carries a store's requests: what `Link` and `Worker` have in common, and how each says that no answer came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Carrier", "CarrierEndedError", "TorchStore", "UnansweredError"]

Answer = TypeVar("Answer")


class UnansweredError(Exception):
    """The deadline came before the answer.

    Parameters
    ----------
    begun : bool
        Whether the request may have been sent. One that had not begun never will be.
    """

    def __init__(self, *, begun: bool) -> None:
        super().__init__("no answer in time" if begun else "not sent: earlier requests are still unanswered")
        self.begun = begun


class CarrierEndedError(Exception):
    """The carrier was ended before the answer came."""


class TorchStore(Protocol):
    """The part of `torch.distributed.Store` that is used, with the types that it really takes."""

    def set(self, key: str, value: bytes, /) -> None: ...
    def compare_set(self, key: str, expected: bytes, desired: bytes, /) -> bytes: ...
    def check(self, keys: list[str], /) -> bool: ...
    def delete_key(self, key: str, /) -> bool: ...


class Carrier(Protocol):
    """Makes requests for many threads, one after another, none beyond its deadline."""

    def call(self, deadline: float, function: Callable[[TorchStore], Answer]) -> Answer:
        """Have a function called with the torch store when it is this thread's turn.

        Parameters
        ----------
        deadline : float
            How long to wait, on the monotonic clock, in seconds.
        function : callable
            Is given the torch store.

        Returns
        -------
        object
            What the function returns.

        Raises
        ------
        UnansweredError
            If the deadline came first.
        CarrierEndedError
            If the carrier was ended before or during the call.
        Exception
            Whatever the function raises; a `RuntimeError` or an `OSError` where the server is gone.
        """

    def end(self, deadline: float, goodbye: Callable[[TorchStore], Answer]) -> Answer:
        """End every call that waits with `CarrierEndedError`, make one last call, and let go of the torch store.

        Parameters
        ----------
        deadline : float
            How long that may take, on the monotonic clock, in seconds.
        goodbye : callable
            The last call; it is given the torch store.

        Returns
        -------
        object
            What `goodbye` returns.

        Raises
        ------
        UnansweredError
            If the deadline came first.
        Exception
            Whatever `goodbye` raises.
        """
