"""A new channel, for the length of a block."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio

from ..errors import ChannelBroken, IIIError, MisuseError
from ..wire import Ref
from .ends import ChannelReader, ChannelResult, ChannelWriter, EndOwner
from .failures import describe

_MAX_ITEMS: Final = 1024  # clause C1.4
_MAX_BYTES: Final = 2**53  # the largest integer that every SDK's JSON keeps; the engine has a limit of its own

ENGINES_DEFAULT: Any = object()


@final
class Channel:
    """Both ends of one channel. Use an end here, or pass its ref on. Each end has one user."""

    def __init__(self, reader: ChannelReader, writer: ChannelWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def id(self) -> str:
        """The channel's id, the same for both ends."""
        return self.reader.channel_id

    @property
    def reader_ref(self) -> Ref:
        """The reader's ref, to be passed on in a payload."""
        return self.reader.ref

    @property
    def writer_ref(self) -> Ref:
        """The writer's ref, to be passed on in a payload."""
        return self.writer.ref

    async def wait_outcome(self) -> ChannelResult:
        """Wait until the channel has ended for both of its ends, and return the outcome. If cancelled: nothing changes."""
        return await self.reader.wait_outcome()


@asynccontextmanager
async def open_channel(owner: EndOwner, create: Callable[[], Awaitable[dict[str, Any]]]) -> AsyncIterator[Channel]:
    """Open a channel for the length of a block, as `Worker.create_channel`. `create` returns the refs of both ends.

    Ends that were passed on and not used here are left alone (clause C5.4).
    """
    refs = await create()
    reader, writer = Ref.from_json(refs["reader"]), Ref.from_json(refs["writer"])
    channel = Channel(ChannelReader(owner, reader), ChannelWriter(owner, writer))
    ends = (channel.writer, channel.reader)
    try:
        yield channel
    except BaseException as error:
        for end in ends:
            if end._is_left_to_its_call:
                end._end_by_force(*describe(error))
        raise
    if channel.writer._is_left_to_its_call and channel.writer._in_block:
        # A clean end would make the part that the other task has sent look whole.
        channel.writer.abort("the channel's block was left while a task was within the writer's own block")
    elif channel.writer._is_left_to_its_call:
        # The channel may have ended otherwise. `send` has raised that, and who never used the writer did not ask.
        expected = (ChannelBroken,) if channel.writer._used else (IIIError, trio.BrokenResourceError)
        with contextlib.suppress(*expected):
            await channel.writer.aclose()
    if channel.reader._is_left_to_its_call:
        channel.reader.cancel("the block was left")
    await trio.lowlevel.checkpoint()


def channel_request(
    buffer_size: int | None, max_bytes: int | None, expires_after_seconds: float | None
) -> dict[str, Any]:
    """Return the payload that asks for a channel. Raises MisuseError for bounds that no engine takes."""
    expires = None if expires_after_seconds is ENGINES_DEFAULT else expires_after_seconds
    _check_bounds(buffer_size, max_bytes, expires)
    request: dict[str, Any] = {"buffer_size": buffer_size}
    if max_bytes is not None:
        request["max_bytes"] = max_bytes
    if expires_after_seconds is not ENGINES_DEFAULT:
        request["expires_after_ms"] = None if expires is None else expires * 1000
    return request


def _check_bounds(buffer_size: int | None, max_bytes: int | None, expires_after_seconds: float | None) -> None:
    """Raise MisuseError for bounds that no engine takes, because an engine would replace them without a word."""
    for name, value, highest in (("buffer_size", buffer_size, _MAX_ITEMS), ("max_bytes", max_bytes, _MAX_BYTES)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise MisuseError(f"{name} is {value!r}; give an integer, or None for the engine's default")
        if not 1 <= value <= highest:
            raise MisuseError(f"{name} is {value}; give 1 to {highest}, or None for the engine's default")
    if expires_after_seconds is not None and not 0 < expires_after_seconds < math.inf:
        raise MisuseError(
            f"expires_after_seconds is {expires_after_seconds}; give a positive number, or None for no end"
        )


def ref_of(ref: Ref | Mapping[str, Any]) -> Ref:
    """Return a ref, which may be given as JSON. Raises MisuseError for any other value."""
    try:
        return ref if isinstance(ref, Ref) else Ref.from_json(ref)
    except IIIError as error:
        raise MisuseError(str(error)) from None
