"""The ends of a channel that a worker in this process attaches. They use the pipe itself, without sockets or copies."""

from __future__ import annotations

from collections import deque
from typing import final

import trio

from ..core.channel import ChannelEvent
from ..errors import ChannelBroken
from ..transport.frames import BINARY, CONTINUATION, TEXT, Buffer, FrameBatch, MessageScanner, pieces_of
from ..transport.link import EndReason
from ..transport.pipe import Chunk
from ..wire import Outcome
from .attached_channel import AttachedChannel
from .shell import Shell


def broken(end: EndReason) -> ChannelBroken:
    """Return the error that says how a channel ended."""
    return ChannelBroken(str(end.outcome or Outcome.ABORTED), end.reason, code=end.code)


class _LocalEnd:
    def __init__(self, shell: Shell, attached: AttachedChannel, who: str) -> None:
        self._shell = shell
        self._attached = attached
        self._who = who
        self._end: EndReason | None = None
        self._over = trio.Event()

    @property
    def ended(self) -> EndReason | None:
        return self._end

    async def wait_ended(self) -> EndReason:
        await self._over.wait()
        assert self._end is not None
        return self._end

    def told(self, end: EndReason) -> None:
        """Do nothing, because the pipe has told already."""

    def finish(self, end: EndReason) -> None:
        if self._end is None:
            self._end = end
            self._over.set()

    def flush(self) -> None:
        """Do nothing, because nothing is written in this process."""


@final
class LocalWriter(_LocalEnd):
    """A `WritingEnd` in the engine's own process."""

    async def put(self, item: bytes | str) -> None:
        pipe = self._attached.pipe
        # One checkpoint: `wait_room` is the other one. After it nothing waits, so a cancelled item was not sent (C5.1).
        if pipe.full:
            await self.wait_room()
        else:
            await trio.lowlevel.checkpoint()
            if pipe.full or pipe.broken is not None or self._end is not None:
                await self.wait_room()
        self._push(item)

    def put_now(self, item: bytes) -> bool:
        """As `PutsNow` says."""
        pipe = self._attached.pipe
        if pipe.full or pipe.broken is not None or self._end is not None:
            return False
        self._push(item)
        return True

    def _push(self, item: bytes | str) -> None:
        self._attached.pipe.push_item(item)
        if self._attached.reader is None:
            self._shell.touch(self._attached)

    async def wait_room(self) -> None:
        pipe = self._attached.pipe
        if pipe.full and pipe.broken is None:
            await pipe.wait_room()
        else:
            await trio.lowlevel.checkpoint()
            await pipe.wait_room()
        if pipe.broken is not None:
            raise broken(pipe.broken)
        if self._end is not None:
            raise trio.ClosedResourceError("this writer was already closed")

    async def close(self) -> None:
        self.close_now()
        await trio.lowlevel.cancel_shielded_checkpoint()
        if self._attached.pipe.broken is not None:
            raise broken(self._attached.pipe.broken)

    def close_now(self) -> None:
        if self._end is None:
            self._shell.channel_event(self._attached.channel_id, ChannelEvent.WRITER_CLOSED)
            self.finish(EndReason(Outcome.COMPLETED))

    def abort(self, reason: str, code: str | None = None) -> None:
        if self._end is None:
            self._shell.channel_event(self._attached.channel_id, ChannelEvent.WRITER_ABORTED, reason, code)
            self.finish(EndReason(Outcome.ABORTED, reason, code))

    def lost(self) -> None:
        """Note that the task which held this end is gone."""
        if self._end is None:
            self._shell.channel_event(
                self._attached.channel_id, ChannelEvent.WRITER_LOST, f"the writer ({self._who}) is gone"
            )


@final
class LocalReader(_LocalEnd):
    """A `ReadingEnd` in the engine's own process."""

    def __init__(self, shell: Shell, attached: AttachedChannel, who: str) -> None:
        super().__init__(shell, attached, who)
        self._items: deque[bytes | str] = deque()  # of a chunk that was taken whole
        self._chunk: FrameBatch | None = None  # the one that they are of
        self._scanner = MessageScanner(shell.config.limits.message_bytes, masked=False)
        self._memory = attached.memory.charge()  # of a message that has come in part
        self._kind = BINARY  # of the message whose pieces come
        self._text = bytearray()  # of a text that has come in part, where pieces are taken

    async def take(self) -> bytes | str:
        pipe = self._attached.pipe
        if self._items:
            await trio.lowlevel.checkpoint()
            if pipe.broken is not None:
                raise broken(pipe.broken)
        while not self._items:
            chunk = await self._next_chunk()
            if not isinstance(chunk, FrameBatch):
                self._done(chunk)
                return chunk
            self._open(chunk)
        item = self._items.popleft()
        if not self._items and self._chunk is not None:
            chunk, self._chunk = self._chunk, None
            self._done(chunk)
        return item

    async def take_pieces(self) -> list[Buffer | str]:
        """As `TakesPieces` says."""
        found: list[Buffer | str] = []
        while not found:
            chunk = await self._next_chunk()
            if not isinstance(chunk, FrameBatch):
                found.append(chunk)
            else:
                for opcode, fin, piece in pieces_of(chunk):
                    if opcode != CONTINUATION:
                        self._kind = opcode
                    if self._kind == TEXT:
                        self._text += piece
                        if fin:
                            found.append(self._text.decode())
                            self._text.clear()
                    # An empty piece says something only where it is a whole item.
                    elif piece or opcode != CONTINUATION:
                        found.append(piece)
                self._memory.set(len(self._text))
            self._done(chunk)
        return found

    async def _next_chunk(self) -> Chunk:
        """Wait for the next chunk of the pipe: one checkpoint. Raises trio.EndOfChannel and ChannelBroken."""
        pipe = self._attached.pipe
        try:
            return await pipe.take()
        except trio.EndOfChannel:
            if pipe.broken is not None:
                raise broken(pipe.broken) from None
            self._shell.channel_event(self._attached.channel_id, ChannelEvent.READER_FINISHED)
            raise trio.EndOfChannel from None

    def finish(self, end: EndReason) -> None:
        super().finish(end)
        self._text.clear()
        self._scanner.discard()
        self._memory.set(0)

    def cancel(self, reason: str, code: str | None = None) -> None:
        if self._end is None:
            drained = self._attached.pipe.drained and not self._items
            cue = ChannelEvent.READER_FINISHED if drained else ChannelEvent.READER_CANCELLED
            self._shell.channel_event(self._attached.channel_id, cue, reason, code)
            self.finish(EndReason(Outcome.COMPLETED if drained else Outcome.READER_CANCELLED, reason, code))

    def lost(self) -> None:
        """Note that the task which held this end is gone."""
        if self._end is None:
            self._shell.channel_event(
                self._attached.channel_id, ChannelEvent.READER_LOST, f"the reader ({self._who}) is gone"
            )

    def _open(self, chunk: FrameBatch) -> None:
        messages, _ = self._scanner.scan(memoryview(b"".join(chunk.parts)))
        self._memory.set(self._scanner.held_bytes)
        self._items.extend(bytes(data).decode() if kind == TEXT else bytes(data) for kind, data in messages)
        if self._items:
            self._chunk = chunk
        else:  # part of a message
            self._done(chunk)

    def _done(self, chunk: Chunk) -> None:
        """Note that a chunk has been handed out. The reader that took the last of a finished stream has everything."""
        pipe = self._attached.pipe
        pipe.done(chunk)
        if pipe.sealed and pipe.empty:
            self._shell.channel_event(self._attached.channel_id, ChannelEvent.READER_FINISHED)
