"""A client that is none of ours: it says and sees bytes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from iii_trio.transport.frames import BINARY, CLOSE, CONTINUATION, TEXT, close_payload, frame

MASK: Final = b"\x11\x22\x33\x44"


@attrs.define(eq=False)
class RawPeer:
    """A client that is none of ours: it says and sees bytes."""

    stream: trio.abc.Stream
    status: int
    headers: dict[str, str]
    body: bytes = b""
    received: bytearray = attrs.field(factory=bytearray)
    """What came after the head of the answer."""
    at_end: str = ""
    """`fin` or `reset`, once the stream has ended."""

    @classmethod
    async def connect(
        cls, stream: trio.abc.Stream, target: str, headers: Sequence[tuple[str, str]] = (), key: bytes = b"0" * 16
    ) -> RawPeer:
        fields = {
            "Host": "sim",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(key).decode(),
            **dict(headers),
        }
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        await stream.send_all("\r\n".join(lines).encode())
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            more = await stream.receive_some()
            assert more, f"the engine answered nothing but {bytes(data)!r}"
            data += more
        first, *rest = data[:end].decode().split("\r\n")
        got = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        peer = cls(stream, int(first.split(" ")[1]), got, received=data[end + 4 :])
        if peer.status != 101:
            await peer.read_to_the_end()
            peer.body = bytes(peer.received)
            await trio.aclose_forcefully(stream)
        return peer

    async def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        await self.stream.send_all(frame(opcode, payload, fin=fin, mask=MASK))

    async def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Say Close, and no more."""
        await self.send(CLOSE, close_payload(code, reason) if code is not None else b"")

    async def read_some(self) -> None:
        """Take what comes next."""
        assert not self.at_end, f"the engine ended the stream ({self.at_end}) after {bytes(self.received[-40:])!r}"
        try:
            more = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            self.at_end = "reset"
            return
        self.received += more
        if not more:
            self.at_end = "fin"

    async def read_to_the_end(self) -> None:
        while not self.at_end:
            await self.read_some()

    async def read_frames(self, n: int) -> list[tuple[int, bool, bytes]]:
        """Read until `n` frames have come in all (or the stream has ended); all frames so far."""
        while len(self.frames()) < n and not self.at_end:
            await self.read_some()
        return self.frames()

    def frames(self) -> list[tuple[int, bool, bytes]]:
        """Every whole frame that came: opcode, FIN, payload."""
        found, at, data = [], 0, bytes(self.received)
        while at + 2 <= len(data):
            assert not data[at + 1] & 0x80, "an engine's frames are not masked"
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if start + length > len(data):
                break
            found.append((data[at] & 15, data[at] >= 0x80, data[start : start + length]))
            at = start + length
        return found

    def messages(self) -> list[tuple[int, bytes]]:
        """The whole data messages that came."""
        whole: list[tuple[int, bytes]] = []
        kind, so_far = 0, b""
        for opcode, fin, payload in self.frames():
            if opcode not in (CONTINUATION, TEXT, BINARY):
                continue
            assert (opcode == CONTINUATION) == bool(kind), "messages overlap"
            kind, so_far = kind or opcode, so_far + payload
            if fin:
                whole.append((kind, so_far))
                kind, so_far = 0, b""
        return whole

    def closes(self) -> list[tuple[int, str]]:
        """The Close frames that came: code (1005 without one), reason."""
        return [
            (int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (1005, "")
            for opcode, _, payload in self.frames()
            if opcode == CLOSE
        ]

    async def drop(self) -> None:
        """End the connection without a word."""
        await trio.aclose_forcefully(self.stream)
