"""One end of a channel over a socket: fill the pipe, or drain it."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Final

import trio

from ..compat.message_splitter import MessageSplitter, TextTooLarge
from ..compat.sdk_limits import ABORT_FRAME, reads_small_messages
from ..core.channel import ChannelEvent
from ..core.session import WorkerSession
from ..errors import FrameError
from ..transport.frames import BatchScanner, CloseFrame, FrameBatch
from ..transport.http1 import Head
from ..transport.link import EndReason
from ..transport.pipe import as_batch
from ..transport.websocket import READ_BYTES, Lost, WebSocket, choose_read_size
from ..wire import CLEAN_CLOSES, CLOSE_OF, Close, Outcome, join_reason, split_reason
from .attached_channel import AttachedChannel
from .policy import ListenerPolicy
from .shell import Shell

_MESSAGES_AT_ONCE: Final = 768  # a quarter to half a millisecond before others have their turn
_READ_AHEAD_BYTES: Final = 192 * 1024
"""While less than this waits beside a full pipe, the reading goes on, and finds a ping or a Close (clauses C3.2, C3.4).

It is less than one whole read, so that with the rest of a message that a slow reader was sent the bound of C3.2 holds."""
_LEAST_READ_BYTES: Final = 4096
_MASK_BYTES: Final = 4
_READ_ON_BYTES: Final = _READ_AHEAD_BYTES // 2
"""A read-ahead that was used up is filled again from here on: a fast writer is read in large pieces."""


def serve_writer(
    shell: Shell,
    stream: trio.abc.Stream,
    head: Head,
    attached: AttachedChannel,
    holder: WorkerSession | None,
    policy: ListenerPolicy,
) -> Awaitable[object]:
    """Return a coroutine that takes the frames of a writer until it, or the channel, has ended.

    If cancelled: the connection is dropped, and the channel ends as `writer_lost`.
    """
    end = _WriterSocket(shell, attached, holder, policy)
    attached.writer = end
    end.websocket = _websocket(shell, stream, end, policy)
    return end.websocket.serve(head)


def serve_reader(
    shell: Shell,
    stream: trio.abc.Stream,
    head: Head,
    attached: AttachedChannel,
    holder: WorkerSession | None,
    policy: ListenerPolicy,
) -> Awaitable[object]:
    """Return a coroutine that writes the pipe's content to a reader until it, or the channel, has ended.

    If cancelled: the connection is dropped, and the channel ends as `reader_lost`.
    """
    # A relay holds the ends of its workers, and says which of them are not aware.
    aware = holder is not None and head.headers.get("iii-aware") != "no"
    small = not aware and reads_small_messages(head.headers.get("user-agent", ""))
    splitter = MessageSplitter() if small else None
    end = _ReaderSocket(shell, attached, holder, policy, splitter, aware=aware)
    attached.reader = end
    end.websocket = _websocket(shell, stream, end, policy)
    return end.websocket.serve(head)


def _websocket(
    shell: Shell, stream: trio.abc.Stream, end: _WriterSocket | _ReaderSocket, policy: ListenerPolicy
) -> WebSocket:
    return WebSocket(
        stream,
        end,
        buffer=shell.buffer,
        lost_connections=shell.lost_connections,
        goodbye_seconds=shell.config.timeouts.goodbye_seconds,
    )


def _named(end: str, holder: WorkerSession | None) -> str:
    """Describe an end and its holder in few words, because a Close has room for 123 bytes."""
    return f"the {end}" if holder is None else f"the {end}, {holder.short_label},"


class _WriterSocket:
    """A writer's socket. Its frames go into the pipe.

    What finds the pipe full waits here, ahead of it. The reading goes on, because a ping, a Close or an abort may follow.
    Once the read-ahead is used up the reading stops, and TCP tells the writer.
    """

    websocket: WebSocket

    def __init__(
        self, shell: Shell, attached: AttachedChannel, holder: WorkerSession | None, policy: ListenerPolicy
    ) -> None:
        self._shell = shell
        self._attached = attached
        self._holder = holder
        self._scanner = BatchScanner(policy.message_bytes(shell.config.limits))
        self._ahead: FrameBatch | None = None  # read, and not in the pipe yet: the read-ahead of clause C3.2
        self._ahead_bytes = 0  # as they came: a socket's frames are masked
        self._memory = attached.memory.charge()
        self._has_room = trio.lowlevel.ParkingLot()
        self._finished: EndReason | None = None
        attached.pipe.when_room(self._move_ahead)

    def on_open(self, websocket: WebSocket) -> None:
        if self._finished is not None:  # while the handshake was under way
            self._say(self._finished)

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        batch, controls = self._scanner.scan(data)
        if batch is not None and not self.websocket.discarding:
            ahead = self._attached.pipe.push(batch) if self._ahead is None else self._ahead.followed_by(batch)
            if self._finished is None:  # the writing may have led to the channel's end
                self.websocket.input.read_size = choose_read_size(len(data), batch.items, _MESSAGES_AT_ONCE)
            if ahead is not None:
                self._set_ahead(ahead)
            self._shell.touch(self._attached)
        return controls, self._scanner.error or self._scanner.closed

    def _set_ahead(self, ahead: FrameBatch | None) -> None:
        """Keep this ahead of the pipe, and read at most what the read-ahead has room for."""
        if self._finished is not None:  # counting it has led to the channel's end
            ahead = None
        self._ahead = ahead
        self._ahead_bytes = 0 if ahead is None else ahead.size + _MASK_BYTES * ahead.items
        if self._finished is not None:
            self.websocket.input.read_size = (
                READ_BYTES  # what comes after the channel's end is thrown away in large pieces
            )
        elif ahead is not None:
            room = max(_READ_AHEAD_BYTES - self._ahead_bytes, _LEAST_READ_BYTES)
            self.websocket.input.read_size = min(self.websocket.input.read_size, room)
        self._memory.set(self._ahead_bytes)

    def _move_ahead(self) -> None:
        """Move the read-ahead into the pipe, as far as there is room."""
        if self._ahead is not None and not self._attached.pipe.full:
            self._set_ahead(self._attached.pipe.push(self._ahead))
            if self._ahead_bytes <= _READ_ON_BYTES:
                self._has_room.unpark_all()

    async def wait_ready(self) -> None:
        if self._ahead_bytes >= _READ_AHEAD_BYTES:
            await self._has_room.park()

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        shell, channel = self._shell, self._attached.channel_id
        match how:
            case CloseFrame() if how.code in CLEAN_CLOSES and not self._scanner.within_message:
                if self._ahead is not None:
                    self._attached.pipe.push_all(self._ahead)
                    self._set_ahead(None)
                shell.channel_event(channel, ChannelEvent.WRITER_CLOSED)
            case CloseFrame() if how.code in CLEAN_CLOSES:
                shell.channel_event(channel, ChannelEvent.WRITER_ABORTED, "the writer closed within a message")
            case CloseFrame():
                reason, code = split_reason(how.reason)
                if how.code != Close.ABORTED:
                    reason = f"the writer closed with {how.code}" + (f" ({how.reason})" if how.reason else "")
                shell.channel_event(channel, ChannelEvent.WRITER_ABORTED, reason, code)
            case FrameError():
                shell.channel_event(
                    channel,
                    ChannelEvent.WRITER_LOST,
                    f"{_named('writer', self._holder)} broke the protocol: {how.reason}",
                )
            case Lost():
                shell.channel_event(
                    channel, ChannelEvent.WRITER_LOST, f"{_named('writer', self._holder)} is gone: {how.cause}"
                )

    def finish(self, end: EndReason) -> None:
        self._finished = end
        self._set_ahead(None)
        if self._has_room:
            self._has_room.unpark_all()
        if not self.websocket.shaking:
            self._say(end)

    def flush(self) -> None:
        """Do nothing, because a writer is told by its connection's task."""

    def _say(self, end: EndReason) -> None:
        if end.outcome is not None and end.outcome is not Outcome.COMPLETED:
            self.websocket.close(CLOSE_OF[end.outcome], join_reason(end.reason, end.code))


class _ReaderSocket:
    """A reader's socket. The pipe's content is written to it, past an empty pipe at once."""

    websocket: WebSocket

    def __init__(
        self,
        shell: Shell,
        attached: AttachedChannel,
        holder: WorkerSession | None,
        policy: ListenerPolicy,
        splitter: MessageSplitter | None,
        *,
        aware: bool,
    ) -> None:
        self._aware = aware
        self._shell = shell
        self._attached = attached
        self._holder = holder
        self._splitter = splitter
        self._scanner = BatchScanner(policy.message_bytes(shell.config.limits))
        self._finished: EndReason | None = None
        self._draining = False

    def on_open(self, websocket: WebSocket) -> None:
        if self._finished is not None:
            self._say(self._finished)
        if self._splitter is None:
            self._attached.pipe.flow_directly(websocket.outbox.offer)
        self._attached.pipe.when_waiting(self._look)
        websocket.outbox.memory = self._attached.memory.charge()
        self._look()

    def _look(self) -> None:
        """Have written what waits in the pipe, by a task that lives no longer than it takes; or say the clean end."""
        pipe, websocket = self._attached.pipe, self.websocket
        if self._draining or pipe.broken is not None or not websocket.talking:
            return
        if not pipe.empty:
            self._draining = True
            websocket.start_soon(self._drain)
        elif pipe.sealed:
            # No deadline: a slow reader has what the kernel took of us still to read, and no timer decides an outcome.
            websocket.close(Close.NORMAL, timeout=math.inf)

    async def _drain(self) -> None:
        pipe, websocket, outbox = self._attached.pipe, self.websocket, self.websocket.outbox
        while (chunk := pipe.take_now()) is not None:
            rest: FrameBatch | None = as_batch(chunk)
            if self._splitter is not None and rest is not None:
                try:
                    rest = self._splitter.split(rest)
                except TextTooLarge as problem:
                    self._shell.end_channel(self._attached.channel_id, str(problem))
                    return
            while rest is not None and websocket.talking:
                rest = outbox.offer(rest)
                if rest is not None:
                    await outbox.wait_writable()
            if not outbox.empty:
                await outbox.wait_empty()
            pipe.done(chunk)
        self._draining = False
        self._look()

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        _, controls = self._scanner.scan(data)  # what a reader sends means nothing
        return controls, self._scanner.error or self._scanner.closed

    async def wait_ready(self) -> None:
        """There is always room for nothing."""

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        shell, channel = self._shell, self._attached.channel_id
        told_the_end = self._attached.pipe.drained and self.websocket.close_written
        # A relay that dies has not passed everything on. Only its reader's own Close says so.
        if self._holder is not None and self._holder.relays and isinstance(how, Lost):
            told_the_end = False
        match how:
            case CloseFrame() | Lost(by_fin=True) if told_the_end:
                shell.channel_event(channel, ChannelEvent.READER_FINISHED)
            case CloseFrame():
                reason, code = split_reason(how.reason)
                shell.channel_event(
                    channel, ChannelEvent.READER_CANCELLED, reason or f"the reader closed with {how.code}", code
                )
            case FrameError():
                shell.channel_event(
                    channel,
                    ChannelEvent.READER_LOST,
                    f"{_named('reader', self._holder)} broke the protocol: {how.reason}",
                )
            case Lost():
                shell.channel_event(
                    channel, ChannelEvent.READER_LOST, f"{_named('reader', self._holder)} is gone: {how.cause}"
                )

    def finish(self, end: EndReason) -> None:
        self._finished = end
        if not self.websocket.shaking:
            self._say(end)

    def flush(self) -> None:
        if not self.websocket.shaking:
            self.websocket.outbox.flush()

    def _say(self, end: EndReason) -> None:
        if end.outcome is None or end.outcome is Outcome.COMPLETED:
            return
        if self._aware:
            self.websocket.close(CLOSE_OF[end.outcome], join_reason(end.reason, end.code))
        else:
            self.websocket.cut(ABORT_FRAME)
