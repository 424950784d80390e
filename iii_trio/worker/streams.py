"""Byte streams over channels: Trio's own contracts, for whoever has code that speaks them."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

import trio

from ..errors import ChannelBroken
from ..wire import Outcome
from .ends import ChannelReader, ChannelWriter

_PIECE: Final = 65_536  # bytes of one item: what SDKs send, too


@final
class WriterStream(trio.abc.SendStream):
    """A byte stream into a channel. Its boundaries mean nothing; it is cut into items of at most 64 KiB."""

    def __init__(self, writer: ChannelWriter) -> None:
        self._writer = writer
        self._busy = False
        self._told = False
        """Whether sending has raised how the channel ended."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As trio.abc.SendStream. If cancelled: a prefix of `data`, in whole items, has been sent."""
        with self._one_at_a_time(), memoryview(data) as view:
            if not len(view):
                await self._writer.wait_room()
            for at in range(0, len(view), _PIECE):
                await self._writer.send(bytes(view[at : at + _PIECE]))

    async def wait_send_all_might_not_block(self) -> None:
        """As trio.abc.SendStream."""
        with self._one_at_a_time():
            await self._writer.wait_room()

    async def send_eof(self) -> None:
        """End the stream cleanly, as `ChannelWriter.aclose`; trio.BusyResourceError, and nothing else, if another task is
        sending. If cancelled: the channel is aborted."""
        with self._one_at_a_time():
            await self._writer.aclose()

    async def aclose(self) -> None:
        """End the stream cleanly, as `ChannelWriter.aclose`, but as Trio's contract wants it: closing is no error where
        the reader wanted no more, nor where sending has raised how the channel ended."""
        try:
            await self._writer.aclose()
        except ChannelBroken as error:
            if not self._told and error.outcome != Outcome.READER_CANCELLED:
                raise

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if self._busy:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._busy = True
        try:
            yield
        except ChannelBroken:
            self._told = True
            raise
        finally:
            self._busy = False


@final
class ReaderStream(trio.abc.ReceiveStream):
    """A byte stream out of a channel. Empty items are skipped; a text item raises TypeError and stays there."""

    def __init__(self, reader: ChannelReader) -> None:
        self._reader = reader
        self._ended = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As trio.abc.ReceiveStream: b"" after the clean end; a stream that was cut raises ChannelBroken.

        Raises TypeError at a text item, which `receive()` then gives. If cancelled: nothing is lost.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        while True:
            try:
                item = await self._reader.receive()
            except trio.EndOfChannel:
                return b""
            if isinstance(item, str):
                self._reader.put_back(item)
                raise TypeError("a text item came in a stream of bytes: take it with receive()")
            if max_bytes is not None and len(item) > max_bytes:
                self._reader.put_back(item[max_bytes:])
                item = item[:max_bytes]
            if item:
                return item

    async def aclose(self) -> None:
        """Want no more: `ChannelReader.aclose`."""
        await self._reader.aclose()


@final
class Duplex(trio.abc.HalfCloseableStream):
    """Two channels as one stream: what is sent goes into one, what is received comes out of the other."""

    def __init__(self, reader: ChannelReader, writer: ChannelWriter) -> None:
        self._incoming = reader.stream
        self._outgoing = writer.stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As trio.abc.SendStream. If cancelled: a prefix has been sent."""
        await self._outgoing.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As trio.abc.SendStream."""
        await self._outgoing.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Nothing more will be sent; receiving goes on. If cancelled: the outgoing channel is aborted."""
        await self._outgoing.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As trio.abc.ReceiveStream."""
        return await self._incoming.receive_some(max_bytes)

    async def aclose(self) -> None:
        """End both directions."""
        try:
            await self._outgoing.aclose()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await self._incoming.aclose()


def duplex(reader: ChannelReader, writer: ChannelWriter) -> Duplex:
    """One `trio.abc.HalfCloseableStream` out of two channels, one for each direction."""
    return Duplex(reader, writer)
