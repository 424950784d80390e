"""A channel as a span in the trace of the call that made it (clause C7.3), and lines of the log for the sink of traces."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from ..core.effects import EndChannel, Log
from ..observed import LogLine, parse_traceparent
from ..transport.pipe import Pipe
from ..wire import JsonValue, Outcome

_ERROR: Final = 2  # OTLP's status code
_INTERNAL: Final = 1  # OTLP's span kind


class ChannelSpan(msgspec.Struct, frozen=True):
    """One ended channel, for a tracer. Ids are lower-case hex, as in W3C's traceparent; times are ms since the epoch.

    Without a traceparent on the call that made the channel, it begins a trace of its own.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    links: tuple[tuple[str, str], ...]
    """(trace id, span id) of the calls that used it."""
    start_ms: int
    end_ms: int
    channel_id: str
    outcome: Outcome
    reason: str
    items: int
    bytes: int
    peak_items: int
    """The most that waited in the pipe (clause C1.4)."""
    peak_bytes: int

    def to_otlp(self) -> dict[str, JsonValue]:
        """Return the span in OTLP's JSON form, to be put into a `scopeSpans`."""
        attributes: dict[str, str | int] = {
            "iii.channel.id": self.channel_id,
            "iii.channel.outcome": str(self.outcome),
            "iii.channel.items": self.items,
            "iii.channel.bytes": self.bytes,
            "iii.channel.peak_bytes": self.peak_bytes,
        }
        span: dict[str, JsonValue] = {
            "traceId": self.trace_id,
            "spanId": self.span_id,
            "name": "channel",
            "kind": _INTERNAL,
            "startTimeUnixNano": str(self.start_ms * 1_000_000),
            "endTimeUnixNano": str(self.end_ms * 1_000_000),
            "attributes": [
                {"key": key, "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}}
                for key, value in attributes.items()
            ],
            "links": [{"traceId": trace_id, "spanId": span_id} for trace_id, span_id in self.links],
        }
        if self.parent_span_id is not None:
            span["parentSpanId"] = self.parent_span_id
        if self.outcome is not Outcome.COMPLETED:
            span["status"] = {
                "code": _ERROR,
                "message": f"{self.outcome}: {self.reason}" if self.reason else self.outcome,
            }
        return span


def span_of(ended: EndChannel, pipe: Pipe | None, age_seconds: float, now_ms: int) -> ChannelSpan:
    """Make the span of a channel that has just ended. Its own ids are taken from the channel's."""
    own = ended.channel.replace("-", "")
    parent = _ids(ended.traceparent)
    return ChannelSpan(
        trace_id=parent[0] if parent is not None else own,
        span_id=own[:16],
        parent_span_id=parent[1] if parent is not None else None,
        links=tuple(ids for ids in map(_ids, ended.used_by) if ids is not None),
        start_ms=now_ms - int(age_seconds * 1000),
        end_ms=now_ms,
        channel_id=ended.channel,
        outcome=ended.outcome,
        reason=ended.reason,
        items=pipe.items_passed if pipe is not None else 0,
        bytes=pipe.bytes_passed if pipe is not None else 0,
        peak_items=pipe.items_peak if pipe is not None else 0,
        peak_bytes=pipe.bytes_peak if pipe is not None else 0,
    )


def _ids(traceparent: str | None) -> tuple[str, str] | None:
    parent = parse_traceparent(traceparent)
    return (parent.trace_id, parent.span_id) if parent is not None else None


def line_of(effect: Log) -> LogLine | None:
    """Return the line for the sink of traces: a worker's own as it wrote it, and the engine's with its ids."""
    if effect.line is not None:
        return effect.line
    if effect.level < logging.INFO:
        return None
    return LogLine(effect.level, effect.message, "iii", {f"iii.{key}": value for key, value in effect.fields.items()})
