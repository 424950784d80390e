"""The ways to channels at other engines. Ends that come here for such a channel are passed through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from ..wire import Ref
from .link import ReadingEnd, WritingEnd


class Passage(Protocol):
    """The way to the engine that has a channel. All methods raise ConnectionFailed, and ChannelBroken if it is gone."""

    async def open(self, ref: Ref, headers: Sequence[tuple[bytes, bytes]]) -> trio.abc.Stream:
        """Connect, and send the upgrade of an end with these headers. The answer is still to be read.

        The caller closes the stream. If cancelled: there is none.
        """

    async def attach_writer(self, ref: Ref, *, task_status: trio.TaskStatus[WritingEnd]) -> None:
        """As `Address.attach_writer`, for a worker in this process."""

    async def attach_reader(self, ref: Ref, *, task_status: trio.TaskStatus[ReadingEnd]) -> None:
        """As `Address.attach_reader`, for a worker in this process."""


class ChannelRoutes(Protocol):
    """Finds the way to a channel by its id."""

    home: str
    """The name that this engine puts into the ids of its channels."""

    def find(self, channel_id: str) -> Passage | None:
        """Return the way to the engine that has this channel. None: it is not at another engine."""
