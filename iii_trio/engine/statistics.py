"""Statistics of an engine: the objects that it holds, and the I/O of its channels (clause C7.1)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import trio

from ..core.channel import Channel
from ..core.hub import Hub
from ..records import frozen
from ..wire import JsonValue
from .attached_channel import AttachedChannel


@frozen
class ChannelView:
    """One open channel at one moment. Times are in seconds, sizes are in bytes of payload."""

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
    """`reader for writer`, `writer for reader`, or an empty text if neither waits."""


@frozen
class EngineStatistics:
    """The numbers of objects that an engine holds. Functions, trigger types and bindings are those of its workers."""

    sessions: int
    functions: int
    trigger_types: int
    bindings: int
    calls: int
    channels: int
    attached_channels: int
    connections: int


def engine_statistics(hub: Hub, attached_channels: Mapping[str, AttachedChannel], connections: int) -> EngineStatistics:
    """Count the objects that the engine holds now for others than its own modules."""
    sessions = [session for session in hub.sessions.values() if not session.internal]
    own_bindings = sum(len(session.bindings) for session in hub.sessions.values() if session.internal)
    return EngineStatistics(
        sessions=len(sessions),
        functions=sum(len(session.functions) for session in sessions),
        trigger_types=sum(len(session.trigger_types) for session in sessions),
        bindings=len(hub.triggers) - own_bindings,
        calls=sum(len(hub.calls.given_to(session)) for session in sessions),
        channels=len(hub.channels),
        attached_channels=len(attached_channels),
        connections=connections,
    )


def process_statistics() -> dict[str, JsonValue]:
    """Count the tasks and memory blocks of the whole process, its processor time in seconds and its memory in bytes."""
    return {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "memory_blocks": sys.getallocatedblocks(),
        "cpu_seconds": time.process_time(),
        "rss_bytes": _resident_bytes(),
    }


def _resident_bytes() -> int | None:
    """Return the memory that the process holds, or None where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def channel_io_stats(channel: Channel, attached: AttachedChannel | None, now: float) -> ChannelView:
    """Return the I/O statistics of an open channel. It is not attached before its first end is."""
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
