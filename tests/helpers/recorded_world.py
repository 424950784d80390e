"""Recordings of simulated histories, with rings that are small enough for many snapshots."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from iii_trio.config import EngineConfig
from iii_trio.engine.flight_recorder import FlightRecorder
from iii_trio.observed import TraceSource
from iii_trio.recorder.file_format import decode_recording, encode_recording
from iii_trio.recorder.recorded_hub import RecordedHub
from iii_trio.recorder.recording import Recording, record
from iii_trio.recorder.redaction import Redactor
from iii_trio.recorder.ring import Ring, Segment

from .conversation import Conversation, Peer, call_id

KEY = b"a key for tests"


@contextmanager
def recorded_hubs(ring_bytes: int = 1 << 24) -> Iterator[list[RecordedHub]]:
    """Record all engines that are opened within the block, in rings of this size. Yields their hubs."""
    hubs: list[RecordedHub] = []

    def open_hub(
        self: FlightRecorder, config: EngineConfig, new_id: Callable[[], str], now: float, traces: TraceSource
    ) -> RecordedHub:
        hub = RecordedHub(config, new_id, Ring(ring_bytes), now, version="1.2.3", started_at_ms=1, traces=traces)
        self._hub = hub
        hubs.append(hub)
        return hub

    with mock.patch.object(FlightRecorder, "open_hub", open_hub):
        yield hubs


class Recorded(Conversation):
    """A conversation with a hub that is recorded."""

    hub: RecordedHub

    def __init__(self, ring_bytes: int = 1 << 24) -> None:
        super().__init__()
        self.hub = RecordedHub(
            EngineConfig(), lambda: str(uuid.uuid4()), Ring(ring_bytes), 0.0, version="1.2.3", started_at_ms=1
        )

    def recording(self, *, keep_payloads: bool = False, last_seconds: float | None = None) -> Recording:
        """Return what the ring holds, or what it holds of the last seconds."""
        return recording_from(segments_of(self.hub), keep_payloads=keep_payloads, last_seconds=last_seconds)

    def call(self, caller: Peer, callee: Peer, data: Any, number: int = 1) -> None:
        """Let one worker call a function `f` of another one, which answers with the same data."""
        caller.call("f", data, number)
        callee.answer(call_id(number), result=data)
        caller.hears(), callee.hears()


def recording_from(
    segments: Sequence[Segment], *, keep_payloads: bool = False, last_seconds: float | None = None
) -> Recording:
    """Return the recording of some segments of a ring."""
    return record(
        segments,
        redactor(keep_payloads),
        version="1.2.3",
        saved_at_ms=7,
        cause="asked for",
        last_seconds=last_seconds,
    )


def recording_of(hub: RecordedHub) -> Recording:
    """Return the recording of a hub, written as a file and read again."""
    return read_again(recording_from(segments_of(hub)))


def segments_of(hub: RecordedHub) -> list[Segment]:
    """Return the segments of a hub's ring."""
    hub.flush()
    return list(hub.ring.segments)


def redactor(keep_payloads: bool = False) -> Redactor:
    """Return a redactor with a key of the tests."""
    return Redactor(KEY, keep_payloads=keep_payloads)


def encoded(recording: Recording) -> bytes:
    """Return the bytes of a recording's file."""
    return b"".join(encode_recording(recording))


def read_again(recording: Recording) -> Recording:
    """Return a recording after the way through a file."""
    again = decode_recording(encoded(recording))
    assert again == recording
    return again
