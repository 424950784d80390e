"""Channels for modules that need several for each piece of work, without a block or a task for each."""

from __future__ import annotations

from typing import Final

import trio
from msgspec import Raw

from ..errors import CallError
from ..text import sendable
from ..wire import Action, InvokeFunction, Ref, encode, to_json
from .calls import CallHandle
from .channel_end import ChannelEndEvent
from .channels import ENGINES_DEFAULT, Channel, channel_request
from .context import CURRENT
from .ends import ChannelReader, ChannelWriter
from .lowlevel import call_nowait, wait_can_call
from .worker import Worker

_CREATE: Final = "engine::channels::create"
_END: Final = "engine::channels::end"
_NOT_NEEDED: Final = "the channel is not needed"


async def open_channels(
    worker: Worker, count: int, *, expires_after_seconds: float | None = ENGINES_DEFAULT
) -> list[Channel]:
    """Open several channels in one step. No block ends them, so the caller ends both ends of each.

    Raises CallError `channel_limit_reached`. If cancelled: no channel is left.
    """
    await wait_can_call(worker)
    settled = trio.Event()
    made: list[CallHandle] = []
    waiting = count

    def one_settled() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            settled.set()

    request = Raw(to_json(channel_request(None, None, expires_after_seconds)))
    around = CURRENT.get()
    # As by other calls of a worker, the channels belong to the trace that the caller is in.
    traceparent = around.traceparent if around is not None else None
    for _ in range(count):
        message = InvokeFunction(_CREATE, data=request, traceparent=traceparent)
        made.append(call_nowait(worker, message, one_settled))
    try:
        await settled.wait()
        return [_channel(worker, handle) for handle in made]
    except BaseException:
        for handle in made:
            _drop(worker, handle)
        raise


def _channel(worker: Worker, handle: CallHandle) -> Channel:
    refs = handle.value()
    reader, writer = Ref.from_json(refs["reader"]), Ref.from_json(refs["writer"])
    return Channel(ChannelReader(worker._ends, reader), ChannelWriter(worker._ends, writer))


def _drop(worker: Worker, handle: CallHandle) -> None:
    """End the channel that a call made, or give the call up."""
    handle.give_up(_NOT_NEEDED)
    try:
        channel = _channel(worker, handle)
    # It was given up, or refused.
    except CallError:
        return
    end_nowait(worker, channel.writer, _NOT_NEEDED)


def end_nowait(worker: Worker, end: ChannelReader | ChannelWriter, reason: str = "", *, clean: bool = False) -> None:
    """End an end. One that was not used is ended without being attached. `clean` leaves an empty stream.

    Harmless for an end that is attached elsewhere, or over.
    """
    session = worker._membership.session
    if end._used or session is None or not session.supports_extensions:
        end._end_by_force(reason)
        return
    end._state.advance(ChannelEndEvent.CLOSE)
    payload = {**end._ref.to_json(), "clean": clean, "reason": sendable(reason)}
    session.link.send(encode(InvokeFunction(_END, data=Raw(to_json(payload)), action=Action("void"))))
