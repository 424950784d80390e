"""Two channels as one stream."""

from __future__ import annotations

from typing import final

import trio

from ..errors import MisuseError
from .ends import ChannelReader, ChannelWriter


@final
class Duplex(trio.abc.HalfCloseableStream):
    """Two channels as one stream. It sends into the one and receives from the other."""

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
        """Send nothing more, and go on receiving. If cancelled: the outgoing channel is aborted."""
        await self._outgoing.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As trio.abc.ReceiveStream."""
        return await self._incoming.receive_some(max_bytes)

    async def aclose(self) -> None:
        """End both directions."""
        try:
            await self._outgoing.aclose()
        finally:
            # A cancelled close still has to tell the other side, but not for long.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await self._incoming.aclose()


def duplex(reader: ChannelReader, writer: ChannelWriter) -> Duplex:
    """Join two channels, one for each direction, into a `trio.abc.HalfCloseableStream`.

    Raises MisuseError for an end of the other kind, such as for two ends that are swapped.
    """
    for name, end, kind in (("reader", reader, ChannelReader), ("writer", writer, ChannelWriter)):
        if not isinstance(end, kind):
            raise MisuseError(
                f"the {name} of a duplex stream is of type {type(end).__name__}; give the ends in this order: "
                "duplex(incoming.reader, outgoing.writer)"
            )
    return Duplex(reader, writer)
