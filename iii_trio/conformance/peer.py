"""A peer that does not use iii_trio. It sends and reads bytes over a real socket."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import attrs
import trio

from ..errors import FrameError
from ..records import define, frozen
from ..transport.frames import BINARY, CLOSE, CONTINUATION, PONG, TEXT, close_payload, frame
from ..transport.frames.build import NO_STATUS_RCVD

_MASK: Final = b"\x11\x22\x33\x44"

Message: TypeAlias = bytes | str


class NotAnEngine(Exception):
    """The peer answered with neither HTTP nor WebSocket, or not at all. The text states the observation."""


@frozen
class Frame:
    """A frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True

    def __str__(self) -> str:
        if self.opcode == CLOSE:
            code, reason = close_of(self)
            return ("a Close without code" if code == NO_STATUS_RCVD else f"a Close with {code}") + (
                reason and f" ({reason})"
            )
        return f"a frame of opcode {self.opcode} with {len(self.payload)} bytes"


def close_of(close: Frame) -> tuple[int, str]:
    """Return the code and reason of a Close."""
    # A Close may come without a code, for which RFC 6455 reserves 1005.
    if len(close.payload) < 2:
        return NO_STATUS_RCVD, ""
    return int.from_bytes(close.payload[:2], "big"), close.payload[2:].decode(errors="replace")


@frozen
class Seen:
    """Everything that a peer saw until the end of its connection."""

    messages: tuple[Message, ...]
    others: tuple[Frame, ...]
    """Control frames and frames of unknown kinds, without the Close."""
    close: Frame | None
    end: str
    """`fin` or `reset`, or `open` if the engine had said Close and did not end the connection."""
    within_message: bool = False

    @property
    def code(self) -> int | None:
        """Return the code of the Close, 1005 for a Close without a code, None without a Close."""
        return None if self.close is None else close_of(self.close)[0]

    @property
    def loud(self) -> bool:
        """Return whether a frame came that no client takes for data."""
        return any(frame.opcode not in (CLOSE, PONG, 9) for frame in self.others)

    @property
    def looks_complete(self) -> bool:
        """Return whether a client would take this for the end of a whole stream."""
        return not self.loud and not self.within_message and self.code in (1000, 1001, NO_STATUS_RCVD)

    def __str__(self) -> str:
        said = [f"{len(self.messages)} messages", *map(str, self.others)]
        if self.within_message:
            said.append("a part of a message")
        if self.close is not None:
            said.append(str(self.close))
        return ", ".join(said) + f", then {'no end' if self.end == 'open' else 'the end by ' + self.end}"


@define(eq=False)
class Peer:
    """One connection. `status` is the engine's answer to its request for an upgrade."""

    stream: trio.abc.Stream
    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    unread: bytearray = attrs.field(factory=bytearray)
    end: str = ""
    """`fin` or `reset`, once the connection has ended."""

    @classmethod
    async def connect(cls, url: str, target: str, headers: dict[str, str] | None = None) -> Peer:
        """Ask for an upgrade at `target`. Raises OSError without a listener, NotAnEngine for an answer that is not HTTP."""
        return await cls.over(await _dial(url), urlsplit(url).netloc, target, headers)

    @classmethod
    async def over(cls, stream: trio.abc.Stream, host: str, target: str, headers: dict[str, str] | None = None) -> Peer:
        """As `connect`, over a stream that is there already, a simulated one for example."""
        peer = cls(stream)
        try:
            await peer._ask(host, target, headers or {})
        # No caller has the peer yet, so the connection would be left open.
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return peer

    async def _ask(self, host: str, target: str, headers: dict[str, str]) -> None:
        fields = {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **headers,
        }
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        await self.stream.send_all("\r\n".join(lines).encode())
        while (end := self.unread.find(b"\r\n\r\n")) < 0:
            # A server of another protocol often answers in its own way and hangs up.
            if not await self._more():
                raise NotAnEngine(f"asked for an upgrade, the engine answered {bytes(self.unread[:60])!r} and ended")
        first, *rest = self.unread[:end].decode(errors="replace").split("\r\n")
        del self.unread[: end + 4]
        words = first.split(" ")
        # Something else may listen at this port, and the user should learn of it.
        if len(words) < 2 or not words[1].isdigit():
            raise NotAnEngine(f"the engine's answer begins with {first[:60]!r}")
        self.status = int(words[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        # A refusal carries the outcome in its body, which some checks read (clause C2.1).
        if self.status != 101:
            length = int(self.headers.get("content-length", "-1"))
            with trio.move_on_after(1):
                while (length < 0 or len(self.unread) < length) and await self._more():
                    pass
            self.body = bytes(self.unread)

    async def _more(self) -> bool:
        if self.end:
            return False
        try:
            data = await self.stream.receive_some(65536)
        # Checks tell a reset from a FIN, because clients treat the two differently.
        except trio.BrokenResourceError:
            self.end = "reset"
            return False
        except trio.ClosedResourceError:  # by ourselves
            self.end = "fin"
            return False
        self.unread += data
        if not data:
            self.end = "fin"
        return bool(data)

    # --- saying

    async def say(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Send one frame. Raises BrokenResourceError if the engine has gone."""
        await self.stream.send_all(frame(opcode, payload, fin=fin, mask=_MASK))

    async def send(self, *messages: Message) -> None:
        """Send messages, in one piece."""
        await self.stream.send_all(b"".join(map(as_frame, messages)))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def tell(self, **message: Any) -> None:
        """Send one message of a worker."""
        await self.say(TEXT, json.dumps(message).encode())

    async def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Say Close, and no more."""
        await self.say(CLOSE, b"" if code is None else close_payload(code, reason))

    async def fin(self) -> None:
        """End our side of the connection, without a Close."""
        # TLS has no half-close, so a full close is the nearest thing to it.
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
        else:
            await self.drop()

    async def reset(self) -> None:
        """Reset the connection."""
        beneath = self.stream.transport_stream if isinstance(self.stream, trio.SSLStream) else self.stream
        # Without lingering the kernel sends a reset where it would have sent a FIN.
        if isinstance(beneath, trio.SocketStream):
            beneath.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)

    async def drop(self) -> None:
        """Be gone."""
        await trio.aclose_forcefully(self.stream)

    # --- seeing

    async def next_frame(self) -> Frame | None:
        """Return the next frame, or None at the end of the connection."""
        while (whole := self._parse()) is None:
            if not await self._more():
                return None
        return whole

    def _parse(self) -> Frame | None:
        data = self.unread
        if len(data) < 2:
            return None
        length, begin = data[1] & 127, 2
        # RFC 6455 forbids a server to mask, and clients end the connection over it.
        if data[1] & 128:
            raise FrameError(1002, "the engine masks its frames")
        if length >= 126:
            begin = 4 if length == 126 else 10
            if len(data) < begin:
                return None
            length = int.from_bytes(data[2:begin], "big")
        if len(data) < begin + length:
            return None
        whole = Frame(data[0] & 15, bytes(data[begin : begin + length]), data[0] >= 128)
        del data[: begin + length]
        return whole

    async def next_message(self) -> Message | None:
        """Return the next whole message, or None for a Close, an unknown kind of frame or the end."""
        kind, pieces = 0, b""
        while (came := await self.next_frame()) is not None:
            if came.opcode in (TEXT, BINARY, CONTINUATION):
                kind = kind or came.opcode
                pieces += came.payload
                if came.fin:
                    return as_message(kind, pieces)
            elif came.opcode not in (9, PONG):
                return None
        return None

    async def take(self, n: int) -> list[Message]:
        """Return the next `n` messages, or fewer at the end."""
        messages: list[Message] = []
        while len(messages) < n and (message := await self.next_message()) is not None:
            messages.append(message)
        return messages

    async def watch(self, *, answer: bool = True, timeout: float = 2.0) -> Seen:
        """Return everything until the end. A Close is answered, and then the engine has `timeout` seconds to end."""
        messages: list[Message] = []
        others: list[Frame] = []
        close: Frame | None = None
        kind, pieces = 0, bytearray()
        while close is None and (came := await self.next_frame()) is not None:
            if came.opcode in (TEXT, BINARY, CONTINUATION):
                kind = kind or came.opcode
                pieces += came.payload
                if came.fin:
                    messages.append(as_message(kind, bytes(pieces)))
                    kind, pieces = 0, bytearray()
            elif came.opcode == CLOSE:
                close = came
            else:
                others.append(came)
        # A client answers a Close, and the engine then ends the connection (clause C4.1).
        if close is not None and answer:
            try:
                await self.say(CLOSE, close.payload[:2])
            # An engine need not wait for the answer, and may be gone already.
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            with trio.move_on_after(timeout):
                while await self._more():
                    pass
        return Seen(tuple(messages), tuple(others), close, self.end or "open", bool(kind))


def as_frame(message: Message) -> bytes:
    """Build one masked frame of a message."""
    if isinstance(message, str):
        return frame(TEXT, message.encode(), mask=_MASK)
    return frame(BINARY, message, mask=_MASK)


def as_message(kind: int, payload: bytes) -> Message:
    """Return a message of text as text, if it can be read as such."""
    return payload.decode(errors="replace") if kind == TEXT else payload


async def _dial(url: str) -> trio.abc.Stream:
    parts = urlsplit(url)
    if not parts.hostname:
        raise NotAnEngine(f"{url!r} is not an address; write for example ws://127.0.0.1:49134")
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    if secure:
        import ssl

        return await trio.open_ssl_over_tcp_stream(parts.hostname, port, ssl_context=ssl.create_default_context())
    return await trio.open_tcp_stream(parts.hostname, port)
