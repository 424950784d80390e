"""The interface of a worker to its engine, for every kind of connection.

A *link* carries the worker protocol's messages both ways. A *writing end* and a *reading end* are one end of one channel
each. An *address* makes links and ends. There are two addresses: an engine behind a socket (`dial.py`), and an engine in
the same process, whose links are `MemoryLink` and whose ends are the engine's own pipe, without sockets or frames.

Everything here that has an owner's task behind it is opened with `nursery.start(...)`: the task belongs to the nursery's
owner, lives as long as the link or end does, and returns when that is over. Cancelling it ends the link or end at once
(a writing end then is aborted, never closed cleanly).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import trio

from ..wire import Outcome, Ref
from .frames import Buffer


class EndReason(msgspec.Struct, frozen=True):
    """How an end of a channel, or a link, came to its end. A value: expected ends are not exceptions.

    `outcome` is None for a link. `code` is the error code that the other side gave, or of a link that of its Close, if it
    gave one.
    """

    outcome: Outcome | None
    reason: str = ""
    code: str | None = None


class Identity(msgspec.Struct, frozen=True):
    """The session that becomes the holder of an end, and the call that it is used in (clause C8.2)."""

    worker_id: str
    channel_secret: str
    invocation_id: str | None = None


class Reads(Protocol):
    """Brackets the messages of each read of a link."""

    def begin(self) -> None:
        """Prepare for the messages of a read, before the first one is heard."""

    def end(self) -> None:
        """Finish, once the last one has been heard."""


class Link(Protocol):
    """Carries messages to and from an engine."""

    async def receive(self) -> bytes | None:
        """Wait for the next message; None once the link is over (`ended` then says why).

        If cancelled: no message is lost.
        """

    async def listen(self, on_message: Callable[[bytes], object]) -> None:
        """Have every further message given to `on_message` as it comes, until the link is over. `on_message` must not wait.

        If cancelled: what comes from then on waits to be received.
        """

    def send(self, message: bytes) -> None:
        """Put a message on its way, whole, without waiting.

        On a link that is over this does nothing: the receiving side learns of the end.
        """

    def send_later(self, message: bytes) -> None:
        """Do as `send`, but let the message wait for the next `send` or `flush_output`. The caller has to see to that."""

    def bracket(self, reads: Reads) -> None:
        """Call `begin` before a listener hears the messages of a read that came together, and `end` behind them."""

    def hold_output(self) -> None:
        """Keep further output until `flush_output`, so that it goes together. The caller has to call that."""

    def flush_output(self) -> None:
        """Write the output now that would have waited for more."""

    @property
    def is_checked(self) -> bool:
        """Whether messages were checked in this process before they come, so that they need no second check."""

    @property
    def has_room(self) -> bool:
        """Whether `wait_room` would not wait."""

    async def wait_room(self) -> None:
        """Wait until the output that is not yet taken is under the link's bound, or the link is over."""

    def close(self, reason: str = "") -> None:
        """Say goodbye and end the link. Earlier messages are still delivered. Does not wait."""

    @property
    def ended(self) -> EndReason | None:
        """Why the link is over, or None while it is not."""


class WritingEnd(Protocol):
    """The end of a channel into which items go."""

    async def put(self, item: bytes | str) -> None:
        """Put one item on its way, waiting for room first (not for its delivery).

        Raises ChannelBroken once the channel has ended otherwise. If cancelled: the item is not sent.
        """

    async def wait_room(self) -> None:
        """Wait until `put` would not wait. Raises as `put` does. If cancelled: nothing changes."""

    async def close(self) -> None:
        """End cleanly; returns when the engine has everything.

        Raises ChannelBroken if the channel ended otherwise before. If cancelled: the channel is aborted.
        """

    def abort(self, reason: str, code: str | None = None) -> None:
        """End by force, now, without waiting. Items on their way may be dropped. Harmless once ended."""

    def told(self, end: EndReason) -> None:
        """Take the engine's word of how the channel ended, which came by the session's link (clause C8.3)."""

    @property
    def ended(self) -> EndReason | None:
        """How the channel ended as far as this end has been told, or None."""

    async def wait_ended(self) -> EndReason:
        """Wait until this end is over, and say how."""


class ReadingEnd(Protocol):
    """The end of a channel from which items come."""

    async def take(self) -> bytes | str:
        """Wait for the next item, whole.

        Raises trio.EndOfChannel after the clean end, ChannelBroken after any other. If cancelled: nothing is lost.
        """

    def cancel(self, reason: str, code: str | None = None) -> None:
        """Want no more, now, without waiting. After the clean end, or a second time, this does nothing."""

    def told(self, end: EndReason) -> None:
        """Take the engine's word of how the channel ended, which came by the session's link (clause C8.3)."""

    @property
    def ended(self) -> EndReason | None:
        """How the channel ended as far as this end has been told, or None."""

    async def wait_ended(self) -> EndReason:
        """Wait until this end is over, and say how."""


class TakesPieces(Protocol):
    """A `ReadingEnd` that can give bytes as they came, without putting their items together."""

    async def take_pieces(self) -> list[Buffer | str]:
        """Wait for what comes next: texts whole, and bytes in pieces of any size. An end is taken in one of both ways only.

        Raises as `ReadingEnd.take`. If cancelled: nothing is lost.
        """


class PutsNow(Protocol):
    """A `WritingEnd` that can take an item without waiting, and without a turn of the loop."""

    def put_now(self, item: bytes) -> bool:
        """Put one item on its way if there is room. Return False, also for a channel that has ended: then `put` says why."""


class Address(Protocol):
    """Where an engine is, and how to reach it."""

    async def connect(self, *, task_status: trio.TaskStatus[Link]) -> None:
        """Open a link (`nursery.start`). Raises ConnectionFailed, naming the address and the cause."""

    async def attach_writer(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[WritingEnd]
    ) -> None:
        """Attach the writing end that `ref` names (`nursery.start`).

        Raises AttachRefused, ChannelBroken if the channel has already ended, ConnectionFailed.
        """

    async def attach_reader(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[ReadingEnd]
    ) -> None:
        """Attach the reading end that `ref` names (`nursery.start`). Raises as `attach_writer` does."""

    def __str__(self) -> str:
        """Return the address as a person would write it, without secrets."""


class WatchesChannels(Protocol):
    """An address that can tell of a channel's use by others, which an engine in the same process can."""

    def watch_channel(self, channel_id: str, changed: Callable[[], object] | None) -> None:
        """Call back once, when an end of the channel is attached or closed, or the channel has ended. None: never mind.

        The callback must not wait, and must not call the engine.
        """
