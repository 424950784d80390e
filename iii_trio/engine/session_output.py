"""The way of output: messages to a session, and what else is sent at the end of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Flushable(Protocol):
    """What has output for the end of a step."""

    def flush(self) -> None:
        """Send as much as can be sent without waiting."""


class SessionOutput(Protocol):
    """The way of messages to a session: a socket, or memory."""

    def put(self, message: bytes, *, bound: int) -> bool:
        """Queue a message for the next `flush`. Return False, and queue nothing, if more than `bound` bytes wait.

        One message may always wait, however large.
        """

    def flush(self) -> None:
        """Send as much as can be sent without waiting."""

    def input_waits(self) -> bool:
        """Return whether there is unread input, including the end of the stream."""

    def hang_up(self, code: int, reason: str) -> None:
        """Close the link behind the queued messages. A peer that does not take them is dropped soon."""

    def challenge(self, seconds: float, answered: Callable[[bool], object]) -> None:
        """As `Shell.challenge`."""
