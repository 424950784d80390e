"""One end of a simulated connection, a byte stream that behaves as TCP does, in virtual time and from a seed.

Theory of operation. Written bytes go into the end's send buffer, from there in segments onto the way, and arrive in
the other end's inbox, which is bounded too. With no delay all of that happens within the write, so that virtual time need
not move. A segment on the way is a small object. A reset can shorten unread segments (a seeded suffix is
lost), and a black hole keeps them back until it heals.

It behaves like a kernel and `transport.socket.Socket`. Data and then a reset are both read, in that order. Closing with
unread input resets. The first write to an end that is gone succeeds, and is answered with a reset. Errors are sticky.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from random import Random
from typing import Protocol, TypedDict, final

import trio

from ..records import define, frozen
from ..transport.socket import Buffer


@frozen
class Conditions:
    """The conditions of a connection. The default is perfect, with no delay, no bound on its rate and no faults.

    `split` is the probability that a segment is cut at a random place, `merge` that segments which wait together are read
    together, `short_writes` that a write takes only a part of what would fit, `lost_by_reset` that a reset takes a random
    suffix of what the peer has not read with it.
    """

    delay_seconds: float = 0.0
    jitter_seconds: float = 0.0
    bytes_per_second: float = math.inf
    segment_bytes: int = 65_536
    split: float = 0.0
    merge: float = 1.0
    short_writes: float = 0.0
    lost_by_reset: float = 0.0
    send_buffer_bytes: int = 65_536
    receive_buffer_bytes: int = 65_536
    dead_peer_seconds: float = 150.0
    """A connection whose packets have vanished for so long is broken, at both ends."""


class ConditionOptions(TypedDict, total=False):
    """The conditions that one connection has otherwise than its network: the fields of `Conditions`."""

    delay_seconds: float
    jitter_seconds: float
    bytes_per_second: float
    segment_bytes: int
    split: float
    merge: float
    short_writes: float
    lost_by_reset: float
    send_buffer_bytes: int
    receive_buffer_bytes: int
    dead_peer_seconds: float


class Timeline(Protocol):
    """The clock of a simulated connection."""

    random: Random

    def at(self, when: float, happen: Callable[[], None]) -> None:
        """Call `happen` at this time, or at once if it has passed, in the order of times and then of calls."""


class _Kind(Enum):
    DATA = auto()
    FIN = auto()
    RESET = auto()


@define(eq=False)
class _Segment:
    kind: _Kind
    data: bytes = b""


@final
class SimStream(trio.abc.HalfCloseableStream):
    """One end of a simulated connection, made in pairs by `Network.pair` or `SimStream.pair`.

    Implements `transport.socket.WritesNow` and `ReadsNow`, too.
    """

    peer: SimStream

    def __init__(self, name: str, conditions: Conditions, timeline: Timeline) -> None:
        self.name = name
        self.conditions = conditions
        self._timeline = timeline
        self._closed = self._eof_put = False
        self._error: str | None = None  # what the peer did; not yet told
        self._broken: str | None = None  # told to somebody: from then on to everybody
        self._sending = self._receiving = False
        self._may_send, self._may_receive = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        # outwards
        self._unsent = bytearray()
        self._fin_owed = False
        self._on_the_way: deque[_Segment] = deque()
        self._unread_by_peer = 0
        self._line_free_at = self._last_arrival = -math.inf
        self._waits_for_line = False
        # inwards
        self._inbox: deque[bytes] = deque()
        self._at_end = False
        # a black hole
        self._vanishing = False
        self._held: list[_Segment] = []
        self._unacknowledged = 0
        self._holes = 0
        self._reset_vanished = False

    @classmethod
    def pair(cls, name: str, conditions: Conditions, timeline: Timeline) -> tuple[SimStream, SimStream]:
        """Two joined ends."""
        near, far = cls(f"{name}>", conditions, timeline), cls(f"{name}<", conditions, timeline)
        near.peer, far.peer = far, near
        return near, far

    def __repr__(self) -> str:
        return f"<SimStream {self.name}>"

    @property
    def closed(self) -> bool:
        """Return whether this side closed it."""
        return self._closed

    # --- without waiting

    def write_now(self, parts: Sequence[Buffer]) -> int:
        """Write a prefix of `parts` and return its length, 0 if full. Raises as `send_all` does."""
        self._check_sendable()
        room = self.conditions.send_buffer_bytes - len(self._unsent)
        # A kernel may take less than fits, and callers must cope with it.
        if room and self._chance(self.conditions.short_writes):
            room = self._timeline.random.randint(0, min(room, sum(map(len, parts))))
        took = 0
        for part in parts:
            if took == room:
                break
            piece = memoryview(part)[: room - took]
            self._unsent += piece
            took += len(piece)
        self._pump()
        return took

    def read_now(self, into: memoryview) -> int | None:
        """Read the available bytes and return their number, 0 at the end of the stream, None if nothing has come yet."""
        data = self._read(len(into))
        if data is None:
            return None
        into[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close now. Written data still goes out, then FIN, or a reset if input was left unread."""
        if self._closed:
            return
        # As in TCP, closing with unread input tells the peer by a reset that it was not read.
        if self._inbox and self._error is None:
            self.reset()
            return
        self._closed = True
        self._fin_owed = self._fin_owed or not self._eof_put
        self._pump()
        self._wake()

    def reset(self) -> None:
        """Close now with a reset. Unsent bytes are lost, and perhaps unread ones."""
        if self._closed:
            return
        self._closed = True
        # After a reset by the peer there is no connection left that could carry another one.
        if self._error is None:
            self._lose_a_suffix()
            self._send_reset()
        self._wake()

    def nothing_unread(self) -> bool:
        """Return whether a close now would be orderly."""
        return not self._inbox

    # --- Trio's stream contract

    async def send_all(self, data: Buffer) -> None:
        """As trio.abc.SendStream. If cancelled: a prefix of `data` may have been sent."""
        with self._alone_in_sending():
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            with memoryview(data) as left:
                sent = 0
                while sent < len(left):
                    took = self.write_now([left[sent:]])
                    sent += took
                    # Only a full buffer is worth a wait, because a short write may go on at once.
                    if not took:
                        await self._wait_writable()

    async def wait_send_all_might_not_block(self) -> None:
        """As trio.abc.SendStream."""
        with self._alone_in_sending():
            await trio.lowlevel.checkpoint()
            await self._wait_writable()

    async def send_eof(self) -> None:
        """As trio.abc.HalfCloseableStream."""
        with self._alone_in_sending():
            await trio.lowlevel.checkpoint()
            self.end_writing()

    def end_writing(self) -> None:
        """Send FIN behind the written data, without waiting. A second call is harmless."""
        self._check()
        # A dead connection cannot carry a FIN, and the caller has to learn of it.
        if self._error is not None:
            raise self._break()
        if not self._eof_put:
            self._eof_put = self._fin_owed = True
            self._pump()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As trio.abc.ReceiveStream. If cancelled: nothing was read."""
        most = 65_536 if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._alone_in_receiving():
            await trio.lowlevel.checkpoint()
            while (data := self._read(most)) is None:
                await self._may_receive.park()
            return data

    async def wait_readable(self) -> None:
        """Wait until `read_now` would not answer None."""
        with self._alone_in_receiving():
            await trio.lowlevel.checkpoint()
            self._check()
            # The stream may have been closed by another task during the wait.
            while not (self._inbox or self._at_end or self._error is not None):
                await self._may_receive.park()
                self._check()

    async def aclose(self) -> None:
        """Close. This always succeeds."""
        self.close()
        await trio.lowlevel.checkpoint()

    # --- faults

    def vanish(self) -> None:
        """Turn the way from this end into a black hole. Nothing that it sends arrives, not even an acknowledgement."""
        if not self._vanishing:
            self._vanishing = True
            self._holes += 1
            hole = self._holes
            patience = self.conditions.dead_peer_seconds
            # An infinite patience is a kernel without keepalive, which never gives its peer up.
            if patience < math.inf:
                self._timeline.at(trio.current_time() + patience, lambda: self._give_up(hole))

    def heal(self) -> None:
        """Let vanished data arrive, as if it was sent again.

        A reset is sent once only. The peer of a lost reset notices it by its kernel's keepalive, within
        `dead_peer_seconds`.
        """
        if self._vanishing:
            self._vanishing = False
            held, self._held = self._held, []
            for segment in held:
                self._arrive(segment)
            read, self._unacknowledged = self._unacknowledged, 0
            self.peer._acknowledged(read)
            if self._reset_vanished and self.conditions.dead_peer_seconds < math.inf:
                self._timeline.at(trio.current_time() + self.conditions.dead_peer_seconds, self._asked_after)

    def _asked_after(self) -> None:
        # A keepalive that is lost as well finds nothing out.
        if not self._vanishing:
            self.peer._hear_reset("connection reset by peer")

    def _give_up(self, hole: int) -> None:
        # A later hole has a patience of its own, so the number tells the two deadlines apart.
        if self._vanishing and hole == self._holes:
            for end in (self, self.peer):
                end._hear_reset(f"the peer has been silent for {self.conditions.dead_peer_seconds:g} s")

    # --- outwards

    def _pump(self) -> None:
        """Send what the peer's buffer and the line have room for."""
        conditions, timeline = self.conditions, self._timeline
        while self._unsent and not self._waits_for_line:
            room = conditions.receive_buffer_bytes - self._unread_by_peer
            if self.peer._closed:
                room = len(self._unsent)  # no matter how much: it will be answered with a reset
            # The reader's acknowledgement calls this again, as TCP's window update does.
            if room <= 0:
                return
            if conditions.bytes_per_second < math.inf and trio.current_time() < self._line_free_at:
                self._waits_for_line = True
                timeline.at(self._line_free_at, self._line_is_free)
                return
            size = min(room, len(self._unsent), conditions.segment_bytes)
            # TCP keeps no boundaries, so a reader must cope with any cut.
            if size > 1 and self._chance(conditions.split):
                size = timeline.random.randint(1, size - 1)
            data = bytes(memoryview(self._unsent)[:size])
            del self._unsent[:size]
            self._unread_by_peer += size
            self._send(_Segment(_Kind.DATA, data))
        # A FIN stands behind all data, so it waits until that is out.
        if self._fin_owed and not self._unsent:
            self._fin_owed = False
            self._send(_Segment(_Kind.FIN))
        self._may_send.unpark_all()

    def _line_is_free(self) -> None:
        self._waits_for_line = False
        self._pump()

    def _send(self, segment: _Segment) -> None:
        conditions, now = self.conditions, trio.current_time()
        departure = now
        if conditions.bytes_per_second < math.inf:
            departure = max(now, self._line_free_at) + len(segment.data) / conditions.bytes_per_second
            self._line_free_at = departure
        arrival = departure + conditions.delay_seconds
        if conditions.jitter_seconds:
            arrival += self._timeline.random.random() * conditions.jitter_seconds
        self._last_arrival = max(arrival, self._last_arrival)
        self._on_the_way.append(segment)
        self._timeline.at(self._last_arrival, self._landed)

    def _landed(self) -> None:
        segment = self._on_the_way.popleft()
        if not self._vanishing:
            self._arrive(segment)
        # Kernels repeat data until it is acknowledged, but send a reset only once.
        elif segment.kind is _Kind.RESET:
            self._reset_vanished = True
        else:
            self._held.append(segment)

    def _arrive(self, segment: _Segment) -> None:
        peer = self.peer
        match segment.kind:
            case _Kind.RESET:
                peer._hear_reset("connection reset by peer")
            # A kernel answers data for a socket that is gone with a reset.
            case _Kind.DATA if peer._closed:
                if segment.data:
                    peer._send_reset()
            case _Kind.DATA:
                if segment.data and peer._error is None:
                    peer._inbox.append(segment.data)
            case _Kind.FIN:
                if peer._error is None:
                    peer._at_end = True
        peer._may_receive.unpark_all()

    def _acknowledged(self, n: int) -> None:
        self._unread_by_peer -= n
        self._pump()

    def _lose_a_suffix(self) -> None:
        waiting = self.peer._inbox
        unread = sum(map(len, waiting)) + sum(len(segment.data) for segment in (*self._held, *self._on_the_way))
        # A peer that has read everything loses nothing, so there is no choice to draw.
        if not unread or not self._chance(self.conditions.lost_by_reset):
            return
        kept = self._timeline.random.randint(0, unread)
        for _ in range(len(waiting)):  # once around
            piece = waiting.popleft()[:kept]
            kept -= len(piece)
            if piece:
                waiting.append(piece)
        for segment in (*self._held, *self._on_the_way):
            segment.data = segment.data[:kept]
            kept -= len(segment.data)

    def _send_reset(self) -> None:
        self._unsent.clear()
        self._fin_owed = False
        self._send(_Segment(_Kind.RESET))

    # --- inwards

    def _read(self, most: int) -> bytes | None:
        self._check()
        if not self._inbox:
            # Bytes and then an end are read in that order, so this counts only when the inbox is empty.
            if self._at_end:
                return b""
            if self._error is not None:
                raise self._break()
            return None
        data = self._inbox.popleft()
        while self._inbox and len(data) < most and self._chance(self.conditions.merge):
            data += self._inbox.popleft()
        if len(data) > most:
            self._inbox.appendleft(data[most:])
            data = data[:most]
        # In a black hole acknowledgements vanish too, and the peer's window stays full.
        if self._vanishing:
            self._unacknowledged += len(data)
        else:
            self.peer._acknowledged(len(data))
        return data

    def _hear_reset(self, cause: str) -> None:
        self._unsent.clear()
        self._fin_owed = False
        # The first cause is the true one, and a closed end has no reader to tell it to.
        if self._error is None and not self._closed:
            self._error = cause
        self._wake()

    # --- both

    async def _wait_writable(self) -> None:
        self._check_sendable()
        # Another task may fill the buffer, or the peer reset, before this one runs.
        while len(self._unsent) >= self.conditions.send_buffer_bytes:
            await self._may_send.park()
            self._check_sendable()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was already closed")
        if self._broken is not None:
            raise trio.BrokenResourceError(self._broken)

    def _check_sendable(self) -> None:
        self._check()
        if self._eof_put:
            raise trio.ClosedResourceError("this stream's sending side was already ended")
        if self._error is not None:
            raise self._break()

    def _break(self) -> trio.BrokenResourceError:
        self._broken = self._error or "broken"
        return trio.BrokenResourceError(self._broken)

    def _wake(self) -> None:
        self._may_send.unpark_all()
        self._may_receive.unpark_all()

    def _chance(self, probability: float) -> bool:
        """Draw by chance, without a draw where there is no choice."""
        return probability > 0 and (probability >= 1 or self._timeline.random.random() < probability)

    @contextmanager
    def _alone_in_sending(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    @contextmanager
    def _alone_in_receiving(self) -> Iterator[None]:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            yield
        finally:
            self._receiving = False
