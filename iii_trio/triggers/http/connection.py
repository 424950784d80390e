"""One client's connection: h11 over a stream that is written without waiting where it can be.

All reading is done by one task at a time, and all writing too. The exchange that is under way decides which.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from typing import Final, final

import h11
import trio

from ...transport.socket import Socket, WritesNow, drop, writes_now
from ...transport.tls import TlsStream
from .response import Head, Whole
from .settings import HttpLimits

_READ: Final = 65_536
_PIPELINED: Final = 65_536
"""Bytes that may come behind a request while it is served. Nothing more is read then until it has been answered."""
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 1024 * 1024


class ClientGone(Exception):
    """The client left, stalled, or broke the protocol within a body. The connection is of no more use."""


@final
class HttpConnection:
    """Requests in, responses out, one after the other."""

    def __init__(self, stream: trio.abc.Stream, limits: HttpLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._now = writes_now(stream)
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._behind = 0
        self._is_head_request = False
        self._sends_body = True
        self.is_idle = False
        """Whether it waits for the first byte of a request."""
        self.is_last = False
        """Whether the response under way, or the next one, is the last: the client is told so."""
        self._writing = trio.Lock()  # a 100 (Continue) may meet the response

    # --- reading

    async def next_request(self) -> h11.Request | None:
        """Wait for the next request; None when the client wants no more.

        Raises h11.RemoteProtocolError for a head that cannot be served, and trio.TooSlowError for one that came too slowly.
        If cancelled: the connection can only be closed.
        """
        if self._h11.our_state is h11.MUST_CLOSE or self._h11.our_state is h11.ERROR:
            return None
        if self._h11.our_state is h11.DONE:
            if self._h11.their_state is not h11.DONE:
                return None
            self._h11.start_next_cycle()
            idle = self._limits.idle_seconds
        else:
            idle = self._limits.head_seconds
        self._behind = 0
        begun = bool(self._h11.trailing_data[0])
        self.is_idle = not begun
        with trio.move_on_after(self._limits.head_seconds if begun else idle) as scope:
            while True:
                event = self._h11.next_event()
                if isinstance(event, h11.Request):
                    size = len(event.target) + sum(len(name) + len(value) for name, value in event.headers)
                    if size > self._limits.head_bytes:  # it came in one read, so h11 did not see it incomplete
                        limit = self._limits.head_bytes
                        raise h11.RemoteProtocolError(f"the head has more than {limit} bytes", error_status_hint=431)
                    self._is_head_request = event.method == b"HEAD"
                    if not _has_body(event):
                        self._h11.next_event()  # its end, so that the connection is known to be free for another
                    return event
                if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                    return None
                if event is h11.NEED_DATA:
                    data = await self._stream.receive_some(_READ)
                    if data and not begun:
                        begun, self.is_idle = True, False
                        scope.deadline = trio.current_time() + self._limits.head_seconds
                    self._h11.receive_data(bytes(data))
        if begun:
            raise trio.TooSlowError("the head of the request came too slowly")
        return None

    async def next_chunk(self) -> bytes | None:
        """Wait for the next piece of the request's body; None at its end. Trailers are dropped.

        Raises ClientGone. If cancelled: nothing is lost.
        """
        while not self.body_is_read:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise ClientGone(f"the body broke HTTP's rules: {error}") from error
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return None
            if event is not h11.NEED_DATA:
                raise ClientGone("the client left")
            if self._h11.they_are_waiting_for_100_continue and self._h11.our_state is h11.SEND_RESPONSE:
                await self._write([self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b""])
            with trio.move_on_after(self._limits.body_seconds) as scope:
                data = await self._receive()
            # A silent client must not keep its handler for ever.
            if scope.cancelled_caught:
                raise ClientGone(f"the client sent nothing of its body for {self._limits.body_seconds:g} s")
            self._h11.receive_data(data)
        return None

    async def wait_gone(self) -> None:
        """Return once the client has left, while its request is served. Bytes that come meanwhile are its next request."""
        while self._behind <= _PIPELINED:
            try:
                data = await self._receive()
            except ClientGone:
                return
            if not data:
                return
            self._behind += len(data)
            self._h11.receive_data(data)
        await trio.sleep_forever()  # it sends on: it is there

    # --- writing

    async def send_head(self, head: Head, *, close: bool = False) -> None:
        """Write the head of a response whose body follows. Raises ClientGone."""
        self._sends_body = self.has_body and head.has_body
        await self._write([self._head(head, close=close)])

    async def send_chunk(self, data: bytes) -> None:
        """Write a piece of the body, without copying it. A response that has no body (to HEAD, 304) drops it.

        Raises ClientGone, and h11.LocalProtocolError for more bytes than the head declared.
        """
        if data and self._sends_body:
            parts = self._h11.send_with_data_passthrough(h11.Data(data=data)) or []
            await self._write(parts)

    async def finish(self) -> None:
        """Write the end of the body.

        Raises ClientGone, and h11.LocalProtocolError for fewer bytes than the head declared.
        """
        await self._write(self._h11.send_with_data_passthrough(h11.EndOfMessage()) or [])

    async def send_whole(self, whole: Whole, *, close: bool = False) -> None:
        """Write a complete response at once. Raises ClientGone."""
        head = whole.head
        if head.has_body and head.value("content-length") is None:
            head = Head(head.status, (*head.headers, ("content-length", str(len(whole.body)))))
        parts = [self._head(head, close=close)]
        if whole.body and self.has_body:
            parts += self._h11.send_with_data_passthrough(h11.Data(data=whole.body)) or []
        parts += self._h11.send_with_data_passthrough(h11.EndOfMessage()) or []
        await self._write(parts)

    @property
    def has_body(self) -> bool:
        """Whether the response to this request may have a body: all but HEAD's."""
        return not self._is_head_request

    @property
    def body_is_read(self) -> bool:
        """Whether the request's body has been read to its end."""
        return self._h11.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    # --- the end

    def cut(self) -> None:
        """End the connection so that the client sees that the response is not whole.

        A chunked or counted body lacks its end. A body that only the connection's end delimits (HTTP/1.0) is cut by a reset.
        """
        transport = self._stream.transport if isinstance(self._stream, TlsStream) else self._stream
        if isinstance(transport, Socket):
            transport.reset()

    async def linger(self) -> None:
        """Let the client take the response before the connection goes: closing with unread input would reset it."""
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            return
        with trio.move_on_after(_LINGER_SECONDS):
            try:
                await self._stream.send_eof()
                left = _LINGER_BYTES
                while left > 0 and (data := await self._stream.receive_some(_READ)):
                    left -= len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def close(self) -> None:
        """Close the stream now."""
        await drop(self._stream)

    # --- inside

    def _head(self, head: Head, *, close: bool) -> bytes:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers]
        headers.append((b"date", formatdate(usegmt=True).encode()))
        if close or self.is_last:
            headers.append((b"connection", b"close"))
        return self._h11.send(h11.Response(status_code=head.status, headers=headers)) or b""

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_READ))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone("the client left") from error

    async def _write(self, parts: Sequence[bytes]) -> None:
        try:
            self._writing.acquire_nowait()
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            if self._now is not None:
                await self._write_at_once(self._now, [memoryview(part) for part in parts if part])
                return
            for part in parts:
                with trio.move_on_after(self._limits.stalled_seconds) as scope:
                    await self._stream.send_all(part)
                self._stalled(scope)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone("the client left") from error
        finally:
            self._writing.release()

    async def _write_at_once(self, now: WritesNow, rest: list[memoryview]) -> None:
        """Write without waiting where the stream takes it, and wait for room otherwise."""
        await trio.lowlevel.checkpoint()
        while True:
            if rest:
                rest = _behind(rest, now.write_now(rest))
            if not rest and not getattr(now, "unsent", 0):
                return
            with trio.move_on_after(self._limits.stalled_seconds) as scope:
                await self._stream.wait_send_all_might_not_block()
            self._stalled(scope)

    def _stalled(self, scope: trio.CancelScope) -> None:
        if scope.cancelled_caught:
            raise ClientGone(f"the client took nothing for {self._limits.stalled_seconds:g} s")


def _has_body(request: h11.Request) -> bool:
    lengths = {name: value for name, value in request.headers if name in (b"content-length", b"transfer-encoding")}
    return b"transfer-encoding" in lengths or lengths.get(b"content-length", b"0") != b"0"


def _behind(parts: list[memoryview], took: int) -> list[memoryview]:
    """Return the rest of some parts behind their first `took` bytes."""
    for number, part in enumerate(parts):
        if took < len(part):
            return [part[took:], *parts[number + 1 :]]
        took -= len(part)
    return []
