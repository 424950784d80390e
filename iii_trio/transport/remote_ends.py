"""The ends of a channel over a socket, from the worker's side."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, final

import trio

from ..errors import ChannelBroken, FrameError
from ..wire import CLEAN_CLOSES, MAX_MESSAGE_BYTES, OUTCOME_OF, Close, Outcome, join_reason, split_reason
from .frames import BINARY, CONTINUATION, TEXT, CloseFrame, MessageScanner, ReservedOpcode, frame
from .link import EndReason
from .websocket import Lost, WebSocket

_BOUND: Final = 256 * 1024  # bytes sent and not yet taken before `put` waits
_SMALL: Final = 4096  # bytes; a write of more costs more than what it would be gathered with
_FRAGMENT: Final = 256 * 1024  # larger items go in pieces, so that an abort never waits behind a whole large one


def broken(end: EndReason) -> ChannelBroken:
    """Return the error that says how a channel ended."""
    return ChannelBroken(str(end.outcome), end.reason, code=end.code)


class _RemoteEnd:
    _websocket: WebSocket

    def __init__(self) -> None:
        self._scanner = MessageScanner(MAX_MESSAGE_BYTES, masked=False)
        self._end: EndReason | None = None
        self._over = trio.Event()

    @property
    def ended(self) -> EndReason | None:
        return self._end

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    async def wait_ended(self) -> EndReason:
        await self._over.wait()
        assert self._end is not None
        return self._end

    def on_open(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    def told(self, end: EndReason) -> None:
        """As `WritingEnd.told`: the news may come before our Close does, or while we do not read."""
        if end.outcome is not Outcome.COMPLETED:
            self._finish(end)

    def _finish(self, end: EndReason) -> None:
        if self._end is None:
            self._end = end
            self._over.set()


def _outcome_of_close(close: CloseFrame, otherwise: Outcome) -> EndReason:
    outcome = OUTCOME_OF.get(close.code)
    if outcome is None or outcome is Outcome.COMPLETED:
        said = f" ({close.reason})" if close.reason else ""
        return EndReason(otherwise, f"the engine closed with {close.code}{said}")
    return EndReason(outcome, *split_reason(close.reason))


@final
class RemoteWriter(_RemoteEnd):
    """A `WritingEnd` over a WebSocket, and the handler of its connection."""

    def __init__(self, new_mask: Callable[[], bytes]) -> None:
        super().__init__()
        self._new_mask = new_mask
        self._closing = False
        self._waiting: trio.CancelScope | None = None

    async def put(self, item: bytes | str) -> None:
        """As `WritingEnd.put`."""
        await self.wait_room()
        outbox = self._websocket.outbox
        opcode, data = (TEXT, item.encode()) if isinstance(item, str) else (BINARY, item)
        if len(data) <= _SMALL:
            outbox.put(frame(opcode, data, mask=self._new_mask()))
            outbox.gather()
            return
        if len(data) <= _FRAGMENT:
            outbox.put(frame(opcode, data, mask=self._new_mask()))
        else:
            view = memoryview(data)
            for at in range(0, len(view), _FRAGMENT):
                piece = view[at : at + _FRAGMENT]
                last = at + len(piece) == len(view)
                outbox.put(frame(opcode if at == 0 else CONTINUATION, piece, fin=last, mask=self._new_mask()))
        outbox.flush()

    async def wait_room(self) -> None:
        """As `WritingEnd.wait_room`."""
        await trio.lowlevel.checkpoint()
        outbox = self._websocket.outbox
        if outbox.waiting_bytes >= _BOUND and self._end is None:
            with trio.CancelScope() as self._waiting:  # cancelled by the end: an aborting writer waits for nobody
                await outbox.wait_empty()
        if self._end is not None and self._end.outcome is not Outcome.COMPLETED:
            raise broken(self._end)
        if self._closing or not self._websocket.talking:
            raise trio.ClosedResourceError("this writer was already closed")

    async def close(self) -> None:
        """As `WritingEnd.close`: the engine answers our Close once it has everything before it."""
        self._closing = True
        # No deadline: the engine reads on when its pipe has room, and that is the reader's pace.
        self._websocket.close(Close.NORMAL, timeout=math.inf)
        try:
            await trio.lowlevel.checkpoint()
            end = await self.wait_ended()
        except trio.Cancelled:
            self.abort("the writer was cancelled while closing")
            raise
        if end.outcome is not Outcome.COMPLETED:
            raise broken(end)

    def abort(self, reason: str, code: str | None = None) -> None:
        """As `WritingEnd.abort`."""
        if self._end is not None:
            return
        self._finish(EndReason(Outcome.ABORTED, reason, code))
        if self._closing:
            self._websocket.lost(reason)  # our Close may be on its way already: only the cut takes it back
        else:
            self._websocket.outbox.drop_unbegun()
            self._websocket.close(Close.ABORTED, join_reason(reason, code))

    def _finish(self, end: EndReason) -> None:
        super()._finish(end)
        if self._waiting is not None:
            self._waiting.cancel(reason="the channel has ended")

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        _, controls = self._scanner.scan(data)  # an engine sends a writer nothing but control frames
        return controls, self._scanner.error or self._scanner.closed

    async def wait_ready(self) -> None:
        """There is always room for nothing."""

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        match how:
            case CloseFrame() if self._closing and how.code in CLEAN_CLOSES:
                self._finish(EndReason(Outcome.COMPLETED))
            case CloseFrame():
                self._finish(_outcome_of_close(how, Outcome.READER_LOST))
            case FrameError():
                self._finish(EndReason(Outcome.WRITER_LOST, f"the engine broke the protocol: {how.reason}"))
            case Lost():
                self._finish(EndReason(Outcome.WRITER_LOST, f"the connection to the engine is gone: {how.cause}"))


@final
class RemoteReader(_RemoteEnd):
    """A `ReadingEnd` over a WebSocket, and the handler of its connection."""

    def __init__(self, *, knows_our_codes: bool) -> None:
        super().__init__()
        # Other engines end every stream with a Close without code; ours never does.
        self._clean = frozenset({Close.NORMAL}) if knows_our_codes else CLEAN_CLOSES
        self._items: deque[bytes | str] = deque()
        self._arrived = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()

    async def take(self) -> bytes | str:
        """As `ReadingEnd.take`."""
        await trio.lowlevel.checkpoint()
        while True:
            end = self._end
            if end is not None and end.outcome is not Outcome.COMPLETED:
                raise broken(end)
            if self._items:
                item = self._items.popleft()
                if not self._items:
                    self._taken.unpark_all()
                return item
            if end is not None:
                raise trio.EndOfChannel
            await self._arrived.park()

    def cancel(self, reason: str, code: str | None = None) -> None:
        """As `ReadingEnd.cancel`."""
        if self._end is None:
            self._finish(EndReason(Outcome.READER_CANCELLED, reason, code))
            self._websocket.close(Close.READER_CANCELLED, join_reason(reason, code))

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        messages, controls = self._scanner.scan(data)
        if messages and self._end is None:
            self._items.extend(
                bytes(payload).decode() if kind == TEXT else bytes(payload) for kind, payload in messages
            )
            self._arrived.unpark_all()
        return controls, self._scanner.error or self._scanner.closed

    async def wait_ready(self) -> None:
        while self._items and self._end is None:
            await self._taken.park()

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        match how:
            case CloseFrame() if how.code in self._clean and not self._scanner.within_message:
                self._finish(EndReason(Outcome.COMPLETED))
            case CloseFrame() if how.code in CLEAN_CLOSES:
                self._finish(EndReason(Outcome.ABORTED, f"the engine closed with {how.code}, which is not a clean end"))
            case CloseFrame():
                self._finish(_outcome_of_close(how, Outcome.READER_LOST))
            case ReservedOpcode():
                self._finish(EndReason(Outcome.ABORTED, "the stream was cut by the engine"))
            case FrameError():
                self._finish(EndReason(Outcome.READER_LOST, f"the engine broke the protocol: {how.reason}"))
            case Lost():
                self._finish(EndReason(Outcome.READER_LOST, f"the connection to the engine is gone: {how.cause}"))

    def _finish(self, end: EndReason) -> None:
        super()._finish(end)
        self._arrived.unpark_all()
        self._taken.unpark_all()
