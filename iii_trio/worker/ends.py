"""A channel's ends in a worker's hands: `ChannelWriter` and `ChannelReader`.

An end is attached when it is first used (clause C1.1). A task of the worker attaches it, and then holds it for as long as it
lives. So a first `send` or `receive` that is cancelled loses nothing.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar, cast, final

import trio

from ..errors import ChannelBroken, IIIError, MisuseError, OutcomeName
from ..records import frozen
from ..state_machine import StateMachine
from ..text import sendable
from ..transport.frames import Buffer
from ..transport.link import EndReason, PutsNow, ReadingEnd, TakesPieces, WritingEnd
from ..wire import Direction, ErrorCode, Ref
from .channel_end import CHANNEL_END, ChannelEndEvent, ChannelEndState
from .failures import describe
from .streams import ReaderStream, WriterStream, only_bytes

E = TypeVar("E", WritingEnd, ReadingEnd)


class EndOwner(Protocol):
    """The parts of a worker that an end uses."""

    def hold(self, end: ChannelWriter | ChannelReader) -> None:
        """Start the task that attaches and holds this end."""

    async def wait_outcome(self, channel_id: str) -> ChannelResult:
        """Wait until a channel has ended for both of its ends."""


@final
@frozen(repr=False)
class ChannelResult:
    """How a channel ended for both of its ends."""

    outcome: OutcomeName
    """`completed` after the clean end. Other names tell which side ended it (clauses C4.7 and C4.8)."""
    reason: str
    """The text that came with it."""

    def __repr__(self) -> str:
        return f"ChannelResult({self.outcome!r}, {self.reason!r})"


class _ChannelEnd(Generic[E]):
    """The common part of writers and readers."""

    _direction: Direction
    _doing: str

    def __init__(self, owner: EndOwner, ref: Ref, invocation_id: str | None = None) -> None:
        if ref.direction is not self._direction:
            raise MisuseError(f"this ref is for the other end of the channel: its direction is {ref.direction}")
        self._owner = owner
        self._ref = ref
        self._invocation_id = invocation_id
        self._state = StateMachine(CHANNEL_END, ChannelEndState.FRESH)
        self._end: E | None = None
        self._failure: IIIError | trio.BrokenResourceError | None = None
        self._settled = trio.Event()  # attached, or known not to be
        self._busy = False  # whether a task uses it: at most one may
        self._forced: tuple[str, str | None] | None = None
        """The reason and code with which this side ended it by force."""
        self._detached = False
        self._in_block = False
        """Whether a task is within this end's own block."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._ref.channel_id} {self._state.current.name.lower()}>"

    @property
    def channel_id(self) -> str:
        """The channel's id, the same for both ends."""
        return self._ref.channel_id

    @property
    def ref(self) -> Ref:
        """The ref, to be passed on in a payload. Its receiver is then the one to use this end (clause C5.4)."""
        if self._state.can(ChannelEndEvent.PASS_ON):
            self._state.advance(ChannelEndEvent.PASS_ON)
        return self._ref

    def detach(self) -> Self:
        """Take this end out of the hands of its call or block, so that it lives until it is closed. Return itself."""
        self._detached = True
        return self

    async def wait_outcome(self) -> ChannelResult:
        """Wait until the channel has ended for both, and return the outcome (clause C5.3).

        Raises MisuseError if the engine does not tell (it has not announced iii-trio.v1), ConnectionFailed if the link
        to it is lost meanwhile. If cancelled: nothing changes.
        """
        return await self._owner.wait_outcome(self._ref.channel_id)

    async def __aenter__(self) -> Self:
        self._in_block = True
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            self._in_block = False
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in_block = False
        if exc is None:
            await self.aclose()
        else:
            self._end_by_force(*describe(exc))
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        raise NotImplementedError

    # --- for the worker

    @property
    def _used(self) -> bool:
        """Whether it was used here."""
        return self._state.current in (ChannelEndState.USED, ChannelEndState.CLOSED)

    @property
    def _is_left_to_its_call(self) -> bool:
        """Whether the call or block that received it ends it. Detached ends and those passed on unused are not ended."""
        return not self._detached and self._state.current is not ChannelEndState.LENT

    def _end_by_force(self, reason: str, code: str | None = None) -> None:
        """End the channel from this side, without waiting. Harmless once this side has ended it."""
        if self._state.can(ChannelEndEvent.CLOSE):
            self._force(reason, code)

    def _force(self, reason: str, code: str | None) -> None:
        """End the channel from this side, also while a clean close waits."""
        reason, code = sendable(reason), None if code is None else sendable(code)
        self._forced = (reason, code)
        if self._state.can(ChannelEndEvent.CLOSE):
            if not self._used:
                self._owner.hold(self)  # type: ignore[arg-type]  # attach it, so that the other end is told
            self._state.advance(ChannelEndEvent.CLOSE)
        if self._end is not None:
            self._force_end(self._end, reason, code)

    def _force_end(self, end: E, reason: str, code: str | None) -> None:
        raise NotImplementedError

    # --- attaching

    def _started(self, end: E) -> None:
        self._end = end
        self._settled.set()
        # The end was aborted while it was being attached, and its peer has yet to hear of it.
        if self._forced is not None:
            self._force_end(end, *self._forced)

    def _on_channel_end(self, end: EndReason) -> None:
        """Take note of the channel's end, told by the worker's link. It may come before the end's own socket tells."""
        if self._end is not None:
            self._end.told(end)

    def _not_attached(self, error: IIIError | trio.BrokenResourceError) -> None:
        """Have all uses raise this error, because the end could not be attached."""
        self._failure = error
        self._settled.set()

    def _use(self) -> None:
        """Attach it, unless that was done."""
        self._check_open()
        if self._state.current is not ChannelEndState.USED:
            self._state.advance(ChannelEndEvent.USE)
            self._owner.hold(self)  # type: ignore[arg-type]

    async def _attached(self) -> E:
        self._use()
        if not self._settled.is_set():
            await self._settled.wait()
        self._check_open()
        return self._get()

    def _check_open(self) -> None:
        if self._state.current is ChannelEndState.CLOSED:
            raise trio.ClosedResourceError("this end of the channel was already closed")

    def _claim(self) -> None:
        """Take this end for one task, until it sets `_busy` to False. Raises trio.BusyResourceError, ClosedResourceError."""
        if self._busy:
            raise trio.BusyResourceError(f"another task is {self._doing} this end of the channel")
        if self._state.current is ChannelEndState.CLOSED:
            self._check_open()
        self._busy = True

    def _get(self) -> E:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        assert self._end is not None
        return self._end


@final
class ChannelWriter(_ChannelEnd[WritingEnd], trio.abc.SendChannel[bytes | str]):
    """The writing end of a channel.

    As an async context manager it closes cleanly, or aborts if the block is left by an exception or a cancellation.
    """

    _direction = Direction.WRITE
    _doing = "sending to"
    _sending = False
    _waiting: trio.CancelScope | None = None

    async def send(self, value: bytes | str) -> None:
        """Send one item, waiting while the channel is full. Text arrives as text, bytes as bytes.

        Raises ChannelBroken once the channel has ended otherwise, trio.ClosedResourceError after one's own close,
        trio.BusyResourceError if another task is sending, AttachRefused or ConnectionFailed if the end cannot be attached.
        If cancelled: the item was not sent (clause C5.1).
        """
        if type(value) is not bytes:
            value = _an_item(value)
        self._claim()
        self._sending = True
        try:
            end = self._end or await self._attached()
            await end.put(value)
        except ChannelBroken:
            self._check_open()  # it was closed here meanwhile: that says more
            raise
        finally:
            self._sending = self._busy = False

    def _send_now(self, item: bytes) -> bool:
        """As `iii_trio.lowlevel.send_now`."""
        end = self._end
        # An isinstance check of a protocol would take 10 µs.
        if end is None or self._busy or self._state.current is ChannelEndState.CLOSED or not hasattr(end, "put_now"):
            return False
        return cast(PutsNow, end).put_now(item)

    async def wait_room(self) -> None:
        """Wait until `send` would not wait. Raises as `send` does. If cancelled: nothing changes."""
        self._claim()
        try:
            end = self._end or await self._attached()
            with trio.CancelScope() as self._waiting:  # cancelled by a close, which leaves no waiter behind
                await end.wait_room()
        except ChannelBroken:
            self._check_open()
            raise
        finally:
            self._busy = False
        self._check_open()

    async def aclose(self) -> None:
        """End the stream cleanly, and return when the engine has everything (clause C5.3). A second time is harmless.

        A writer that was never used delivers an empty stream. Raises ChannelBroken if the channel ended otherwise before.
        A stream is not whole if another task still waits in `send` (clause C4.2). It is aborted then, that `send` raises
        trio.ClosedResourceError, and this raises trio.BusyResourceError.
        If cancelled: the channel is aborted, so that the stream does not look complete.
        """
        if self._state.current is ChannelEndState.CLOSED:
            await trio.lowlevel.checkpoint()
            return
        # A clean end behind a lost item would make the stream look whole.
        if self._sending:
            self._force("the writer was closed while an item was still being sent", None)
            await trio.lowlevel.checkpoint()
            raise trio.BusyResourceError("another task is sending to this end of the channel: the stream was aborted")
        try:
            await trio.lowlevel.checkpoint()
            end = await self._attached()
            self._state.advance(ChannelEndEvent.CLOSE)
            if self._waiting is not None:
                self._waiting.cancel(reason="this end was closed")
            await end.close()
        except trio.Cancelled:
            self._force("the writer was cancelled while closing", ErrorCode.INVOCATION_CANCELLED)
            raise
        except BaseException:
            if self._state.can(ChannelEndEvent.CLOSE):
                self._state.advance(ChannelEndEvent.CLOSE)
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise

    def abort(self, reason: str, code: str | None = None) -> None:
        """End the stream by force, now. The reader gets an error with this reason and code. Harmless once ended.

        Items that are still on their way may be dropped (clause C4.3). Never waits.
        """
        self._end_by_force(reason, code)

    def _force_end(self, end: WritingEnd, reason: str, code: str | None) -> None:
        end.abort(reason, code)

    @property
    def stream(self) -> WriterStream:
        """A byte stream into this channel (`trio.abc.SendStream`)."""
        return WriterStream(self)


@final
class ChannelReader(_ChannelEnd[ReadingEnd], trio.abc.ReceiveChannel[bytes | str]):
    """The reading end of a channel.

    Iterating over it gives its items until the clean end. Any other end raises ChannelBroken.
    """

    _direction = Direction.READ
    _doing = "receiving from"

    def __init__(self, owner: EndOwner, ref: Ref, invocation_id: str | None = None) -> None:
        super().__init__(owner, ref, invocation_id)
        self._put_back: deque[bytes | str] = deque()

    async def receive(self) -> bytes | str:
        """Receive the next item, whole.

        Raises trio.EndOfChannel after the clean end, ChannelBroken after any other end, trio.ClosedResourceError after
        one's own close, trio.BusyResourceError if another task is receiving, AttachRefused or ConnectionFailed if the end
        cannot be attached. If cancelled: nothing is lost (clause C5.1).
        """
        self._claim()
        try:
            # Items that were put back came before everything that still waits in the channel.
            if self._put_back:
                await trio.lowlevel.checkpoint()
                return self._put_back.popleft()
            end = self._end or await self._attached()
            return await end.take()
        except ChannelBroken:
            self._check_open()  # it was closed here meanwhile: that says more
            raise
        finally:
            self._busy = False

    async def _receive_pieces(self) -> list[Buffer | str]:
        """As `iii_trio.lowlevel.receive_pieces`."""
        self._claim()
        try:
            end = self._end or await self._attached()
            # An isinstance check of a protocol would take 10 µs.
            if hasattr(end, "take_pieces"):
                return await cast(TakesPieces, end).take_pieces()
            return [await end.take()]
        except ChannelBroken:
            self._check_open()
            raise
        finally:
            self._busy = False

    def put_back(self, item: bytes | str) -> None:
        """Make this the next item that `receive` gives."""
        self._put_back.appendleft(item)

    def chunks(self) -> _Chunks:
        """Return an async iterator over the items of a stream of bytes. A text item raises TypeError, and stays there."""
        return _Chunks(self)

    async def read_all(self) -> bytes:
        """Receive all bytes up to the clean end. Raises as `receive` and `chunks` do. If cancelled: the bytes are lost."""
        whole = bytearray()
        async for chunk in self.chunks():
            whole += chunk
        return bytes(whole)

    async def aclose(self) -> None:
        """Stop reading. The writer is told at once, unless everything was read. A second time is harmless."""
        self.cancel("the reader closed")
        await trio.lowlevel.checkpoint()

    def cancel(self, reason: str, code: str | None = None) -> None:
        """Stop reading, now. The writer gets an error with this reason and code. Harmless after the clean end."""
        self._end_by_force(reason, code)

    def _force_end(self, end: ReadingEnd, reason: str, code: str | None) -> None:
        end.cancel(reason, code)

    @property
    def stream(self) -> ReaderStream:
        """A byte stream out of this channel (`trio.abc.ReceiveStream`)."""
        return ReaderStream(self)


@final
class _Chunks:
    """An iterator over the byte items of a reader. No generator, because nothing is left suspended when it is dropped."""

    def __init__(self, reader: ChannelReader) -> None:
        self._reader = reader

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            return only_bytes(self._reader, await self._reader.receive())
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


def _an_item(value: object) -> bytes | str:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise TypeError(f"a channel carries bytes and str, not {type(value).__name__}")
    # Only text beyond ASCII can hold lone surrogates, and the check is costly for long text.
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"this text cannot be sent, it is not valid Unicode: {error}") from None
    return value
