"""One client's connection: h11 over a stream that is written without waiting where it can be.

All reading is done by one task at a time, and all writing too. The exchange that is under way decides which.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Final, cast, final

import h11
import trio

from ...transport.frames import Buffer
from ...transport.http1 import BadRequest, HeadRules, broken_rule, check_version
from .client_stream import READ_SIZE, ClientGone, ClientStream
from .kept_bytes import KeptBytes
from .response import Head, Whole
from .settings import HttpLimits

_PIPELINED: Final = 65_536
"""While a request is served, nothing more is read once more bytes than this are behind it.

So one client makes the server keep this and one read more at most."""
_UPGRADE_OFFERED: Final = h11.MIGHT_SWITCH_PROTOCOL  # type: ignore[attr-defined]  # documented, but not in its `__all__`
_READ_STATES: Final = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, _UPGRADE_OFFERED)
"""The states of h11 behind a request's body. The last one is that of a client that offers an upgrade, which is not taken."""
_KEEP_ALIVE: Final = b"keep-alive"


class BrokenBody(Exception):
    """The request's body breaks a rule of HTTP, so its end cannot be known. A response can still be sent."""


@final
class HttpConnection:
    """Requests in, responses out, one after the other."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        limits: HttpLimits,
        kept: KeptBytes,
        buffer: memoryview,
        address: str | None = None,
    ) -> None:
        self.stream = ClientStream(stream, buffer, limits)
        self._limits = limits
        self._buffer = buffer
        self.address = address
        """The address by which its requests are counted. None: they are not."""
        self._kept = kept
        self._kept_bytes = 0
        """The bytes that it keeps: those of a head that is not whole, and those behind the request that is served."""
        self._h11 = self._parser()
        self._rest = bytearray()
        """The bytes that were read and not given to h11 yet: the rest of a body, and the next requests."""
        self._is_head_request = False
        self._sends_body = True
        self._unsent: int | None = None
        """The bytes of the response's body that are to come, by its Content-Length. None: it has none."""
        self.is_ending = False
        """Whether the last bytes of the response are being written, or have been."""
        self.is_idle = False
        """Whether it waits for the first byte of a request."""
        self.is_last = False
        """Whether the response under way, or the next one, is the last: the client is told so."""
        self.is_cut = False
        """Whether a response was cut off, so that nothing may follow it."""
        self._is_chunked = False
        self._to_come: int | None = None
        """The bytes of the request's body that are to come, by its Content-Length. None: it has none."""
        self._is_past_h11 = False
        """Whether the rest of the request's body does not pass h11, because a body that is only counted needs no parser."""
        self._keeps_alive = False
        """Whether the client wants the connection to go on behind the response."""
        self._is_answered = False
        """Whether a whole response was sent, past h11."""
        self._is_free = False
        """Whether the response was written while the task waited, so that what comes is the next request."""
        self.unwritten: list[memoryview] = []
        """The rest of a response that the stream did not take at once."""
        self._waiting = trio.CancelScope()
        """The scope in which it waits for a request, while it is idle."""
        self.is_over = False
        """Whether it was idle for too long, or the server drains: no request is waited for."""
        self._has_odd_end = False
        """Whether other parsers may see the end of the request's body elsewhere."""
        self._piece = b""
        """The bytes that h11 got last, and in `_before` the last ones of those before."""
        self._before = b""

    # --- reading

    async def next_request(self) -> h11.Request | None:
        """Wait for the next request; None when the client wants no more.

        Raises BadRequest for a head that cannot be served, and trio.TooSlowError for one that came too slowly.
        If cancelled: the connection can only be closed.
        """
        if self.is_over or self._h11.our_state is h11.MUST_CLOSE or self._h11.our_state is h11.ERROR:
            return None
        if self._is_answered or self._h11.our_state is h11.DONE:
            if self._h11.their_state is not h11.DONE and not self._is_past_h11:
                return None
            idle = self._limits.idle_seconds
        else:
            idle = self._limits.head_seconds
        # Bytes that came behind the request before are checked as all others, so a new parser reads them.
        if behind := self._h11.trailing_data[0]:
            self._rest[:0] = behind
        self._h11 = self._parser()
        self._keep(len(self._rest))
        self._is_head_request = self._is_chunked = self._has_odd_end = self._is_answered = self.is_ending = False
        self._is_past_h11, self._to_come, self._is_free = False, None, False
        rules = HeadRules(self._limits.head_bytes)
        begun = bool(self._rest)
        self.is_idle = not begun
        request, in_head = self._parse_rest(rules)
        # Nearly always a request that is here is whole, and needs no deadline.
        if request is not None:
            await (
                trio.lowlevel.checkpoint()
            )  # a client may pipeline thousands, and others have their turns between them
            return request
        with trio.move_on_after(self._limits.head_seconds if begun else idle) as self._waiting:
            while True:
                # Each client is bounded by `head_bytes`, and all of them together by this.
                if in_head and not self._keep(in_head):
                    # Its bytes are dropped at once, because it may take its time to read the answer.
                    self._h11 = self._parser()
                    self._keep(0)
                    raise BadRequest(503, "the server holds as many heads as it may: try again later")
                data = await self.stream.read()
                if not data:
                    if begun:
                        raise BadRequest(400, "the request ended within its head")
                    return None
                self._rest += data
                if not begun:
                    begun, self.is_idle = True, False
                    self._waiting.deadline = trio.current_time() + self._limits.head_seconds
                request, more = self._parse_rest(rules)
                if request is not None:
                    return request
                in_head += more
        if begun:
            raise trio.TooSlowError("the head of the request came too slowly")
        return None

    def _parse_rest(self, rules: HeadRules) -> tuple[h11.Request | None, int]:
        """Parse what has come. Return the request once its head is whole, and how many bytes of a head were taken."""
        taken = 0
        while self._rest:
            data = self._take_head()
            if (request := self._parse(rules, data)) is not None:
                self._keep(len(self._rest))
                return request, 0
            taken += len(data)
        return None, taken

    def end_idle(self) -> None:
        """End the connection if it waits for the first byte of a request."""
        if self.is_idle:
            self._waiting.cancel(reason="the server is closing")

    def _parser(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes + 1)

    def _take_head(self) -> bytes:
        """Take the bytes that came, up to the end of a head if there is one. What is behind it is not copied."""
        end = self._rest.find(b"\r\n\r\n") + 4
        return self._take(end if end >= 4 else len(self._rest))

    def _take(self, size: int) -> bytes:
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data

    def _parse(self, rules: HeadRules, data: bytes) -> h11.Request | None:
        """Take the next bytes of a head, and return the request once the head is whole. Raises BadRequest."""
        if not (checked := rules.check(data)):
            return None
        self._feed(checked)
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise broken_rule(error) from None
        if not isinstance(event, h11.Request):
            return None
        version, names = check_version(event), dict(event.headers)
        if b"transfer-encoding" in names:
            # RFC 9112 section 6.1: both are a smuggler's request, and HTTP/1.0 has no chunks.
            if b"content-length" in names:
                raise BadRequest(400, "a request may have a Content-Length or a Transfer-Encoding, and not both")
            if version == "1.0":
                raise BadRequest(400, "a request of HTTP/1.0 has no Transfer-Encoding")
        self._keeps_alive = version == "1.1" and all(
            value.lower() == _KEEP_ALIVE for name, value in event.headers if name == b"connection"
        )
        self._is_head_request = event.method == b"HEAD"
        self._is_chunked = b"transfer-encoding" in names
        # h11 has checked it.
        if b"content-length" in names:
            self._to_come = int(names[b"content-length"])
        if not _has_body(event):
            self._h11.next_event()  # its end, so that the connection is known to be free for another
        return event

    async def next_chunk(self) -> bytes | None:
        """Wait for the next piece of the request's body; None at its end. Trailers are dropped.

        Raises ClientGone and BrokenBody. If cancelled: nothing is lost.
        """
        while not self.body_is_read:
            if self._is_past_h11:
                return await self._next_counted()
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                if self._h11.trailing_data[1]:
                    raise ClientGone("the client left") from error
                raise BrokenBody(
                    "the body is not chunked as RFC 9112 section 7.1 says: the length of a chunk in hexadecimal digits, "
                    "CR LF, its bytes, CR LF"
                ) from error
            if isinstance(event, h11.Data):
                if self._to_come is not None:
                    self._to_come -= len(event.data)
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                self._check_end()
                return None
            if event is not h11.NEED_DATA:
                raise ClientGone("the client left")
            # h11 has nothing of the body now. What comes would be copied three times on its way through it.
            self._is_past_h11 = self._to_come is not None
            if self._rest:
                if not self._is_past_h11:
                    self._feed(self._take(READ_SIZE))
                    self._keep(len(self._rest))
                continue
            if self._h11.they_are_waiting_for_100_continue and self._h11.our_state is h11.SEND_RESPONSE:
                await self.stream.write([self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b""])
            if not self._is_past_h11:
                self._feed(await self._receive_body(READ_SIZE))
        return None

    async def _next_counted(self) -> bytes:
        """Wait for the next piece of a body with a Content-Length, of which h11 has nothing. Raises ClientGone."""
        assert self._to_come is not None
        # Larger pieces than those of a head, because each of them wakes tasks.
        size = min(len(self._buffer), self._to_come)
        if self._rest:
            chunk = self._take(size)
            self._keep(len(self._rest))
        else:
            chunk = await self._receive_body(size)
            if not chunk:
                raise ClientGone("the client left")
        self._to_come -= len(chunk)
        return chunk

    async def _receive_body(self, size: int) -> bytes:
        """Wait for at most so many bytes of a body. Raises ClientGone, also for a client that sends nothing for too long."""
        with trio.move_on_after(self._limits.body_seconds):
            return await self.stream.receive(size)
        # A silent client must not keep its handler for ever.
        raise ClientGone(f"the client sent nothing of its body for {self._limits.body_seconds:g} s")

    def _feed(self, data: bytes) -> None:
        """Give bytes of a request to h11, and keep the last four of those before."""
        self._before = self._piece[-4:] if len(self._piece) >= 4 else (self._before + self._piece)[-4:]
        self._piece = data
        self._h11.receive_data(data)

    def _check_end(self) -> None:
        """Raise BrokenBody unless a chunked body ends with an empty line, and both of its last lines with CR LF.

        h11 takes a bare LF for the end of a trailer. A proxy that does not would see a longer body, and the next request
        elsewhere. Both agree where the first empty line is one of CR LF.
        """
        if not self._is_chunked:
            return
        ended_at = len(self._piece) - len(self._h11.trailing_data[0])
        if (self._before + self._piece[max(0, ended_at - 4) : ended_at])[-4:] != b"\r\n\r\n":
            self._has_odd_end = True
            raise BrokenBody("a line behind the last chunk ends with LF alone: end each line with CR LF")

    async def wait_gone(self) -> None:
        """Return once the client has left, while its request is served. Bytes that come meanwhile are its next request.

        Once `answer_now` has answered, those bytes end the wait too.
        """
        # With the body, h11 may have got the begin of what is behind it.
        in_h11 = len(self._h11.trailing_data[0])
        while self._keep(behind := in_h11 + len(self._rest)) and behind <= _PIPELINED:
            try:
                data = await self.stream.receive()
            except ClientGone:
                return
            if not data:
                return
            self._rest += data
            # It was answered meanwhile, and has sent its next request.
            if self._is_free:
                return
        await trio.sleep_forever()  # it sends on: it is there

    # --- writing

    async def send_head(self, head: Head, *, close: bool = False) -> None:
        """Write the head of a response whose body follows. Raises ClientGone."""
        self._sends_body = self.has_body and head.has_body
        parts = [self._head(head, close=close)]
        length = head.value("content-length") or ""
        self._unsent = int(length) if self._sends_body and length.isascii() and length.isdigit() else None
        # The client of a response without a body has all of it by the head.
        self.is_ending = not self._sends_body or self._unsent == 0
        await self.stream.write(parts)

    async def send_pieces(self, pieces: Sequence[Buffer]) -> None:
        """Write pieces of the body at once, without copying them. A response that has no body (to HEAD, 304) drops them.

        Raises ClientGone, and h11.LocalProtocolError for more bytes than the head declared.
        """
        whole = cast(bytes, _Pieces(pieces))
        if not len(whole) or not self._sends_body:
            return
        # h11 frames anything that has a length, and gives it back between its frames.
        parts: list[Buffer] = []
        for part in self._h11.send_with_data_passthrough(h11.Data(data=whole)) or []:
            if part is whole:
                parts += pieces
            else:
                parts.append(part)
        # A client that counts needs no more than these bytes, though the end of the handler's channel is still to come.
        if self._unsent is not None:
            self._unsent -= len(whole)
            self.is_ending = self._unsent <= 0
        await self.stream.write(parts)

    async def finish(self) -> None:
        """Write the end of the body.

        Raises ClientGone, and h11.LocalProtocolError for fewer bytes than the head declared.
        """
        parts = self._h11.send_with_data_passthrough(h11.EndOfMessage()) or []
        self.is_ending = True
        await self.stream.write(parts)

    async def send_whole(self, whole: Whole, *, close: bool = False) -> None:
        """Write a complete response at once. Raises ClientGone."""
        head = whole.head
        if head.has_body and head.value("content-length") is None:
            head = head.plus(("content-length", str(len(whole.body))))
            if self._is_plain(close=close):
                self._is_answered = self.is_ending = True
                await self.stream.write([_plain_head(head), whole.body] if whole.body else [_plain_head(head)])
                return
        parts = [self._head(head, close=close)]
        if whole.body and self.has_body:
            parts += self._h11.send_with_data_passthrough(h11.Data(data=whole.body)) or []
        parts += self._h11.send_with_data_passthrough(h11.EndOfMessage()) or []
        self.is_ending = True
        await self.stream.write(parts)

    def answer_now(self, whole: Whole, waiting: trio.CancelScope) -> bool:
        """Write a complete response while the task waits in `wait_gone`. Return False if that cannot be; nothing is changed.

        The task stays there, in the scope `waiting`, and waits for the next request. So a small request wakes it once. A
        rest that the stream did not take is in `unwritten`. Never waits.
        """
        # A next request that is here already, and a response under way, need the task.
        if (
            not self.stream.may_write_now
            or self._rest
            or self._h11.trailing_data[0]
            or not whole.head.has_body
            or whole.head.value("content-length") is not None
            or not self._is_plain(close=False)
        ):
            return False
        head = _plain_head(whole.head.plus(("content-length", str(len(whole.body)))))
        parts = [memoryview(part) for part in (head, whole.body) if part]
        rest = self.stream.write_now(parts)
        if rest is None:
            return False
        self._is_answered = self.is_ending = self._is_free = True
        self.unwritten = rest
        if not self.unwritten:
            self.is_idle, self._waiting = True, waiting
            waiting.deadline = trio.current_time() + self._limits.idle_seconds
        return True

    async def write_rest(self) -> None:
        """Write what `answer_now` has left. Raises ClientGone."""
        rest, self.unwritten = self.unwritten, []
        if rest:
            await self.stream.write(rest)

    @property
    def has_body(self) -> bool:
        """Whether the response to this request may have a body: all but HEAD's."""
        return not self._is_head_request

    @property
    def is_within_counted(self) -> bool:
        """Whether more bytes are to come of a body that has a Content-Length and does not pass h11."""
        return self._is_past_h11 and bool(self._to_come)

    @property
    def body_is_read(self) -> bool:
        """Whether the request's body has been read to its end, so that another request may follow."""
        if self._is_past_h11:
            return not self._to_come
        return self._h11.their_state in _READ_STATES and not self._has_odd_end

    # --- the end

    def cut(self) -> None:
        """End the connection so that the client sees that the response is not whole.

        A chunked or counted body lacks its end. A body that only the connection's end delimits (HTTP/1.0) is cut by a reset.
        """
        self.is_cut = True
        self.stream.reset()

    async def close(self) -> None:
        """Close the stream now, and keep nothing."""
        self._keep(0)
        await self.stream.close()

    # --- inside

    def _is_plain(self, *, close: bool) -> bool:
        """Return whether a response needs nothing of h11: a client of HTTP/1.1 sends its next request behind it.

        Its checks and states took a tenth of the work for a small request.
        """
        return (
            self._keeps_alive
            and not (close or self.is_last or self._is_head_request)
            and self._h11.our_state is h11.SEND_RESPONSE
            and (self._h11.their_state is h11.DONE or (self._is_past_h11 and not self._to_come))
        )

    def _head(self, head: Head, *, close: bool) -> bytes:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers]
        # RFC 9110 section 8.6: a 204 has no length, not even one of 0.
        if head.status in (204, 205):
            headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
        # Section 15.3.6: a 205 has no body. Clients learn that from its length only, other than for a 204.
        if head.status == 205:
            headers.append((b"content-length", b"0"))
        headers.append((b"date", _date(int(time.time()))))
        if close or self.is_last:
            headers.append((b"connection", b"close"))
        return self._h11.send(h11.Response(status_code=head.status, headers=headers)) or b""

    def _keep(self, size: int) -> bool:
        """Keep so many bytes from now on. Return whether there is room for them."""
        if size == self._kept_bytes:
            return True
        self._kept.add(size - self._kept_bytes)
        self._kept_bytes = size
        return self._kept.has_room(self._limits.json_total_bytes, size)


def _plain_head(head: Head) -> bytes:
    """Return the bytes of a head, as h11 writes them. All names and values have been checked."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in head.headers])
    return b"HTTP/1.1 %d \r\n%bdate: %b\r\n\r\n" % (head.status, lines.encode("latin-1"), _date(int(time.time())))


class _Pieces:
    """Pieces of a body, as h11 sees them."""

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        self._length = sum(map(len, pieces))

    def __len__(self) -> int:
        return self._length


@functools.lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    """Return the value of the `Date` header. All responses of one second have the same."""
    return formatdate(second, usegmt=True).encode()


def _has_body(request: h11.Request) -> bool:
    lengths = {name: value for name, value in request.headers if name in (b"content-length", b"transfer-encoding")}
    return b"transfer-encoding" in lengths or lengths.get(b"content-length", b"0") != b"0"
