"""A record of the messages between a worker and its engine, as decoded events, because bytes differ without meaning."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, cast, final

import trio

from ..records import define
from ..transport.frames import Buffer
from ..transport.link import Address, EndReason, Identity, Link, ReadingEnd, Reads, TakesPieces, WritingEnd
from ..wire import Ref, decode

Note: TypeAlias = Callable[..., None]
T = TypeVar("T")


@final
@define(eq=False)
class _Then:
    """A task status that passes the started value on."""

    then: Callable[[Any], None]

    def started(self, value: Any = None) -> None:
        self.then(value)


@final
@define(eq=False)
class RecordedAddress:
    """An `Address` that records its messages under a name. It adds no checkpoints, so that the schedule stays the same."""

    inner: Address
    name: str
    note: Note

    def __str__(self) -> str:
        return str(self.inner)

    async def connect(self, *, task_status: trio.TaskStatus[Link]) -> None:
        """As `Address.connect`."""

        def started(link: Link) -> None:
            self.note(self.name, "connected")
            task_status.started(_RecordedLink(link, self.name, self.note))

        try:
            await self.inner.connect(task_status=_Then(started))
        # The end belongs in the record also when the worker was cancelled or refused.
        finally:
            self.note(self.name, "disconnected")

    async def attach_writer(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[WritingEnd]
    ) -> None:
        """As `Address.attach_writer`."""

        def started(end: WritingEnd) -> None:
            self.note(self.name, "attached the writer of", ref.channel_id)
            task_status.started(_RecordedWriter(end, self.name, ref.channel_id, self.note))

        await self.inner.attach_writer(ref, identity, task_status=_Then(started))

    async def attach_reader(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[ReadingEnd]
    ) -> None:
        """As `Address.attach_reader`."""

        def started(end: ReadingEnd) -> None:
            self.note(self.name, "attached the reader of", ref.channel_id)
            task_status.started(_RecordedReader(end, self.name, ref.channel_id, self.note))

        await self.inner.attach_reader(ref, identity, task_status=_Then(started))


def _shown(message: bytes) -> str:
    decoded = decode(message)
    about = (getattr(decoded, field, None) for field in ("function_id", "invocation_id", "channel_id", "outcome"))
    return " ".join([type(decoded).__name__, *(str(value) for value in about if value is not None)])


def _size(item: bytes | str) -> str:
    return f"{len(item)} {'characters' if isinstance(item, str) else 'bytes'}"


@final
@define(eq=False)
class _RecordedLink:
    inner: Link
    name: str
    note: Note

    async def receive(self) -> bytes | None:
        message = await self.inner.receive()
        self.note(self.name, "heard", _shown(message) if message is not None else "the end")
        return message

    async def listen(self, on_message: Callable[[bytes], object]) -> None:
        def heard(message: bytes) -> None:
            self.note(self.name, "heard", _shown(message))
            on_message(message)

        await self.inner.listen(heard)
        self.note(self.name, "heard", "the end")

    def send(self, message: bytes) -> None:
        self.note(self.name, "said", _shown(message))
        self.inner.send(message)

    def send_later(self, message: bytes) -> None:
        self.note(self.name, "said", _shown(message))
        self.inner.send_later(message)

    def bracket(self, reads: Reads) -> None:
        self.inner.bracket(reads)

    def hold_output(self) -> None:
        self.inner.hold_output()

    def flush_output(self) -> None:
        self.inner.flush_output()

    @property
    def is_checked(self) -> bool:
        return self.inner.is_checked

    @property
    def has_room(self) -> bool:
        return self.inner.has_room

    async def wait_room(self) -> None:
        await self.inner.wait_room()

    def close(self, reason: str = "") -> None:
        self.inner.close(reason)

    @property
    def ended(self) -> EndReason | None:
        return self.inner.ended


@final
@define(eq=False)
class _RecordedWriter:
    inner: WritingEnd
    name: str
    channel_id: str
    note: Note

    async def put(self, item: bytes | str) -> None:
        await self.inner.put(item)
        self.note(self.name, "put", _size(item), "into", self.channel_id)

    async def wait_room(self) -> None:
        await self.inner.wait_room()

    async def close(self) -> None:
        self.note(self.name, "closes", self.channel_id)
        await self.inner.close()
        self.note(self.name, "has closed", self.channel_id)

    def abort(self, reason: str, code: str | None = None) -> None:
        self.note(self.name, "aborts", self.channel_id, reason)
        self.inner.abort(reason, code)

    def told(self, end: EndReason) -> None:
        self.inner.told(end)

    @property
    def ended(self) -> EndReason | None:
        return self.inner.ended

    async def wait_ended(self) -> EndReason:
        return await self.inner.wait_ended()


@final
@define(eq=False)
class _RecordedReader:
    inner: ReadingEnd
    name: str
    channel_id: str
    note: Note

    async def take(self) -> bytes | str:
        item = await self._noting_the_end(self.inner.take)
        self.note(self.name, "took", _size(item), "from", self.channel_id)
        return item

    async def take_pieces(self) -> list[Buffer | str]:
        """As `TakesPieces` says. An end that gives none gives whole items."""
        if not hasattr(self.inner, "take_pieces"):
            return [await self.take()]
        pieces = await self._noting_the_end(cast(TakesPieces, self.inner).take_pieces)
        self.note(self.name, "took", len(pieces), "pieces of", sum(map(len, pieces)), "from", self.channel_id)
        return pieces

    async def _noting_the_end(self, take: Callable[[], Awaitable[T]]) -> T:
        try:
            return await take()
        # The kind of end is a part of the history that two runs must agree on.
        except (trio.EndOfChannel, trio.BrokenResourceError) as error:
            self.note(self.name, "is told that", self.channel_id, "ended:", str(error) or "cleanly")
            raise

    def cancel(self, reason: str, code: str | None = None) -> None:
        self.note(self.name, "cancels", self.channel_id, reason)
        self.inner.cancel(reason, code)

    def told(self, end: EndReason) -> None:
        self.inner.told(end)

    @property
    def ended(self) -> EndReason | None:
        return self.inner.ended

    async def wait_ended(self) -> EndReason:
        return await self.inner.wait_ended()
