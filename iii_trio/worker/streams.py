"""Byte streams over channels, by Trio's own contracts (`trio.abc.SendStream` and `ReceiveStream`)."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol, final

import trio

from ..errors import ChannelBroken

_PIECE: Final = 65_536  # bytes of one item, as SDKs send them


class ItemWriter(Protocol):
    """The parts of a `ChannelWriter` that a stream uses."""

    async def send(self, value: bytes | str) -> None:
        """Send one item."""

    async def wait_room(self) -> None:
        """Wait until `send` would not wait."""

    async def aclose(self) -> None:
        """End the channel cleanly."""


class ItemReader(Protocol):
    """The parts of a `ChannelReader` that a stream uses."""

    async def receive(self) -> bytes | str:
        """Receive one item."""

    def put_back(self, item: bytes | str) -> None:
        """Make this the next item."""

    async def aclose(self) -> None:
        """Stop reading."""


def only_bytes(reader: ItemReader, item: bytes | str) -> bytes:
    """Return a reader's item. Raises TypeError at a text, which stays for `receive`, because it would be lost silently."""
    if isinstance(item, str):
        reader.put_back(item)
        raise TypeError("a text item came in a stream of bytes: take it with receive()")
    return item


@final
class WriterStream(trio.abc.SendStream):
    """A byte stream into a channel. It is cut into items of at most 64 KiB, and their boundaries mean nothing."""

    def __init__(self, writer: ItemWriter) -> None:
        self._writer = writer
        self._busy = False
        self._told = False
        """Whether sending has raised the end of the channel."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As trio.abc.SendStream. If cancelled: a prefix of `data`, in whole items, has been sent."""
        with self._one_at_a_time(), memoryview(data) as view:
            # An empty send must still be a checkpoint and notice a broken channel.
            if not len(view):
                await self._writer.wait_room()
            for at in range(0, len(view), _PIECE):
                await self._writer.send(bytes(view[at : at + _PIECE]))

    async def wait_send_all_might_not_block(self) -> None:
        """As trio.abc.SendStream."""
        with self._one_at_a_time():
            await self._writer.wait_room()

    async def send_eof(self) -> None:
        """End the stream cleanly, as `ChannelWriter.aclose`.

        Raises trio.BusyResourceError, and changes nothing, if another task is sending.
        If cancelled: the channel is aborted.
        """
        with self._one_at_a_time():
            await self._writer.aclose()

    async def aclose(self) -> None:
        """End the stream cleanly, as `ChannelWriter.aclose`.

        By Trio's contract it raises nothing if the reader stopped reading, or if sending has raised the end before.
        If cancelled: the channel is aborted.
        """
        try:
            await self._writer.aclose()
        except ChannelBroken as error:
            # A second report of the same end would hide the first exception of the block.
            if not self._told and error.outcome != "reader_cancelled":
                raise

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        # Items of two tasks would mix, and Trio's contract demands the refusal.
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
    """A byte stream out of a channel. Empty items are skipped. A text item raises TypeError, and stays the next item."""

    def __init__(self, reader: ItemReader) -> None:
        self._reader = reader
        self._ended = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes, as trio.abc.ReceiveStream: b"" after the clean end.

        Raises ChannelBroken after any other end, and TypeError at a text item, which `receive()` then returns. If
        cancelled: nothing is lost.
        """
        # Zero bytes would look like the end of the stream.
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        while True:
            try:
                item = await self._reader.receive()
            except trio.EndOfChannel:
                return b""
            item = only_bytes(self._reader, item)
            # The rest stays the next item, because the boundaries of items mean nothing here.
            if max_bytes is not None and len(item) > max_bytes:
                self._reader.put_back(item[max_bytes:])
                item = item[:max_bytes]
            # An empty result would mean the end of the stream to Trio.
            if item:
                return item

    async def aclose(self) -> None:
        """Stop reading, as `ChannelReader.aclose`."""
        await self._reader.aclose()
