"""A new channel, for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, final

import trio

from ..errors import ChannelBroken, IIIError, MisuseError
from ..wire import FEATURE, Direction, JsonValue, Ref
from .ends import ChannelReader, ChannelWriter, Ended, describe

if TYPE_CHECKING:
    from .worker import Worker


@final
class Channel:
    """Both ends of one channel. Use an end here, or pass its ref on; each end has one user."""

    def __init__(self, reader: ChannelReader, writer: ChannelWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def id(self) -> str:
        return self.reader.channel_id

    @property
    def reader_ref(self) -> dict[str, JsonValue]:
        """The reader's ref, to be passed on in a payload."""
        return self.reader.ref

    @property
    def writer_ref(self) -> dict[str, JsonValue]:
        """The writer's ref, to be passed on in a payload."""
        return self.writer.ref

    async def wait_outcome(self) -> Ended:
        """Wait until the channel has ended for both, and say how."""
        return await self.reader.wait_outcome()


@asynccontextmanager
async def open_channel(worker: Worker, wanted: dict[str, Any]) -> AsyncIterator[Channel]:
    """As `Worker.create_channel`."""
    if len(wanted) > 1 and not await worker.knows_us():
        raise MisuseError(
            f"{worker.address} takes no max_bytes nor expires_after_seconds: it has not announced {FEATURE}"
        )
    refs = await worker.trigger("engine::channels::create", wanted)
    reader, writer = Ref.from_json(refs["reader"]), Ref.from_json(refs["writer"])
    channel = Channel(ChannelReader(worker, reader), ChannelWriter(worker, writer))
    try:
        yield channel
    except BaseException as error:
        reason, code = describe(error)
        for end in (channel.writer, channel.reader):
            if end.used and not end.detached:
                end.abort(reason, code) if isinstance(end, ChannelWriter) else end.cancel(reason, code)
        raise
    if channel.writer.used and not channel.writer.detached:
        try:
            await channel.writer.aclose()
        except ChannelBroken:
            pass  # the reader left, or the channel ended otherwise: whoever sent was told
    if channel.reader.used and not channel.reader.detached:
        channel.reader.cancel("the block was left")
    await trio.lowlevel.checkpoint()


def ref_of(ref: Ref | Mapping[str, Any], direction: Direction) -> Ref:
    """The ref that names an end of this direction. Raises MisuseError for any other value."""
    try:
        found = ref if isinstance(ref, Ref) else Ref.from_json(ref)
    except IIIError as error:
        raise MisuseError(str(error)) from None
    if found.direction is not direction:
        raise MisuseError(f"this ref is for the other end of the channel: its direction is {found.direction}")
    return found
