"""Spans of the engine's calls and channels, made of the facts that its core tells, and of its modules' own work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...observed import CallFacts, ChannelCounts, ChannelFacts, Placed, TraceParent
from ...tracing import ERROR, INTERNAL, OK, PRODUCER, SERVER, Span
from .records import BASE_BYTES, Attributes, Resource, Scope, SpanLink, StoredSpan

_SCOPE: Final = Scope("iii_trio")


def span_of_call(call: CallFacts, start_ns: int, end_ns: int, resource: Resource) -> StoredSpan:
    """Return the span of a call that has ended."""
    function_id, queue = call.function_id, call.queue
    attributes: Attributes = {
        "function_id": function_id,
        "iii.caller": call.caller,
        "iii.caller.id": call.caller_id,
        "iii.call.outcome": call.outcome,
    }
    if call.callee_id:
        attributes["iii.callee"], attributes["iii.callee.id"] = call.callee, call.callee_id
    if call.is_internal is not None:
        attributes["iii.function.kind"] = "internal" if call.is_internal else "user"
    if call.namespace is not None:
        attributes["iii.namespace"] = call.namespace
    if queue:
        attributes["messaging.destination.name"] = queue
    if call.job_id:
        attributes["iii.job.id"] = call.job_id
    if call.waited_us is not None:
        attributes["iii.callee.waited_us"] = call.waited_us
    status = OK if call.outcome == "answered" else 0
    if call.code:
        attributes["error.type"] = call.code
        status = ERROR
    name = f"call {function_id}" if queue is None else f"enqueue {function_id} → {queue}"
    kind = SERVER if queue is None else PRODUCER
    return _span(call, name, kind, (start_ns, end_ns), (status, call.code), attributes, resource)


def span_of_channel(
    channel: ChannelFacts, outcome: str, counts: ChannelCounts, start_ns: int, end_ns: int, resource: Resource
) -> StoredSpan:
    """Return the span of a channel that has ended. It has no reason of an end, because a worker may have written it."""
    attributes: Attributes = {"iii.channel.id": channel.channel_id, "iii.channel.owner": channel.owner}
    if channel.writer is not None:
        attributes["iii.channel.writer"] = channel.writer
    if channel.reader is not None:
        attributes["iii.channel.reader"] = channel.reader
    attributes["iii.channel.outcome"] = outcome
    attributes["iii.channel.items"], attributes["iii.channel.bytes"] = counts.items, counts.bytes
    attributes["iii.channel.peak_items"], attributes["iii.channel.peak_bytes"] = counts.peak_items, counts.peak_bytes
    status = (OK, "") if outcome == "completed" else (ERROR, outcome)
    return _span(channel, "channel", INTERNAL, (start_ns, end_ns), status, attributes, resource, channel.links)


def span_of_module(span: Span, resource: Resource) -> StoredSpan:
    """Return a span of a module's own work as it is kept."""
    times, status = (span.start_ns, span.end_ns), (span.status, span.error)
    return _span(span, span.name, span.kind, times, status, span.attributes, resource)


def _span(
    place: Placed,
    name: str,
    kind: int,
    times: tuple[int, int],
    status: tuple[int, str],
    attributes: Attributes,
    resource: Resource,
    links: Sequence[TraceParent] = (),
) -> StoredSpan:
    size = BASE_BYTES + len(name)
    for value in attributes.values():
        # Numbers take no memory beyond the base.
        if type(value) is str:
            size += len(value)
    return StoredSpan(
        place.trace_id,
        place.span_id,
        place.parent_span_id,
        name,
        kind,
        *times,
        status[0],
        status[1] if status[0] == ERROR else None,
        attributes,
        [],
        [SpanLink(link.trace_id, link.span_id, "", {}, link.flags) for link in links] if links else [],
        resource,
        _SCOPE,
        place.flags,
        "",
        size,
    )
