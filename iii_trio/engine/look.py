"""What the engine holds, and what its channels are doing: who waits for whom (clause C7.1)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import attrs
import trio

from ..core.channel import Channel
from ..wire import JsonValue
from .attached_channel import AttachedChannel

if TYPE_CHECKING:
    from .engine import Shell


@attrs.frozen
class ChannelView:
    """One open channel, at one moment. Times are seconds, sizes are bytes of payload."""

    id: str
    phase: str
    owner: str | None
    writer: str | None
    reader: str | None
    age_seconds: float
    idle_seconds: float
    items_passed: int
    bytes_passed: int
    items_waiting: int
    bytes_waiting: int
    bytes_peak: int
    waiting: str
    """Which side waits for which: `reader for writer`, `writer for reader`, or nothing."""


@attrs.frozen
class EngineStatistics:
    """How much an engine holds. Functions, trigger types and bindings are those of its workers."""

    sessions: int
    functions: int
    trigger_types: int
    bindings: int
    calls: int
    channels: int
    attached_channels: int
    connections: int


def count(shell: Shell) -> EngineStatistics:
    """What it holds at this moment for others than its own modules."""
    hub = shell.hub
    guests = [session for session in hub.sessions.values() if not session.internal]
    own = sum(len(session.bindings) for session in hub.sessions.values() if session.internal)
    return EngineStatistics(
        sessions=len(guests),
        functions=sum(len(session.functions) for session in guests),
        trigger_types=sum(len(session.trigger_types) for session in guests),
        bindings=len(hub.triggers) - own,
        calls=sum(len(session.answering) for session in guests),
        channels=len(hub.channels),
        attached_channels=len(shell.attached_channels),
        connections=shell.connections,
    )


def count_all(shell: Shell) -> dict[str, JsonValue]:
    """The same as JSON, and what the whole process holds: Trio's tasks, and the allocator's blocks of memory."""
    held: dict[str, JsonValue] = attrs.asdict(count(shell))
    return {**held, "tasks": trio.lowlevel.current_statistics().tasks_living, "memory_blocks": sys.getallocatedblocks()}


def look_at_channels(shell: Shell, now: float) -> list[ChannelView]:
    """Every open channel, oldest first."""
    return [look_at_channel(channel, shell.attached_channels.get(channel.id), now) for channel in shell.hub.channels]


def look_at_channel(channel: Channel, attached: AttachedChannel | None, now: float) -> ChannelView:
    """One open channel; there is no pipe before its first end is attached."""
    pipe = attached.pipe if attached is not None else None
    waiting = ""
    if pipe is not None and pipe.full:
        waiting = "writer for reader"
    elif pipe is not None and attached is not None and attached.reader is not None and not pipe.items_waiting:
        waiting = "reader for writer"
    return ChannelView(
        id=channel.id,
        phase=channel.state.current.name.lower(),
        owner=channel.owner,
        writer=channel.writer,
        reader=channel.reader,
        age_seconds=now - channel.created_at,
        idle_seconds=now - max(channel.touched_at, pipe.moved_at if pipe is not None else 0.0),
        items_passed=pipe.items_passed if pipe is not None else 0,
        bytes_passed=pipe.bytes_passed if pipe is not None else 0,
        items_waiting=pipe.items_waiting if pipe is not None else 0,
        bytes_waiting=pipe.bytes_waiting if pipe is not None else 0,
        bytes_peak=pipe.bytes_peak if pipe is not None else 0,
        waiting=waiting,
    )


def as_row(view: ChannelView) -> dict[str, JsonValue]:
    """A view as JSON."""
    return attrs.asdict(view)
