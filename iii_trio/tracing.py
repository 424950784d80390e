"""Traces: the decision to sample, and spans. Everything here is pure but for what its maker injects.

An engine has one `Tracing`. The core asks it for places in traces, modules begin spans of their own work with it, and one
module attaches itself as the sink that gets everything. Without a sink nothing is recorded, and calls pass with the trace
headers that they came with.

A span holds names, ids, sizes, codes and times. Payloads, texts of errors and baggage are never put into one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, TypeAlias, final

import attrs
import msgspec
from attrs import validators

from .observed import CallFacts, ChannelCounts, ChannelFacts, LogLine, Place, Placed, TraceParent, parse_traceparent
from .records import frozen
from .report import get_logger

_GOLDEN: Final = 0x9E3779B97F4A7C15
"""The fraction of the golden ratio, in 64 bits. Its multiples are spread evenly, and repeat no pattern of the calls."""
_ALL: Final = 1 << 64
_MASK: Final = _ALL - 1

_SAME_SECONDS: Final = 0.001
"""The date is set anew when it differs by more than this from what the engine's clock says."""

INTERNAL: Final = 1
SERVER: Final = 2
PRODUCER: Final = 4
CONSUMER: Final = 5
"""Kinds of spans, as OTLP numbers them."""
OK: Final = 1
ERROR: Final = 2
"""Status codes of spans, as OTLP numbers them. 0 is unset."""

Attribute: TypeAlias = str | int | float | bool


class Span(Placed, gc=False):
    """One piece of a module's work. Times are in nanoseconds since 1970 once it is finished."""

    name: str = ""
    kind: int = SERVER
    attributes: dict[str, Attribute] = msgspec.field(default_factory=dict)
    status: int = 0
    error: str = ""
    """The code of the error, where `status` is an error."""
    start_ns: int = 0
    end_ns: int = 0

    def fail(self, code: str) -> None:
        """Give it the status of an error."""
        self.status, self.error = ERROR, code


class Sink(Protocol):
    """The receiver of what an engine observes. Its methods must not wait. Times are in nanoseconds since 1970."""

    def add_span(self, span: Span) -> None:
        """Take a span that has finished."""

    def add_call(self, call: CallFacts, start_ns: int, end_ns: int) -> None:
        """Take a call that has ended."""

    def add_channel(
        self, channel: ChannelFacts, outcome: str, counts: ChannelCounts, start_ns: int, end_ns: int
    ) -> None:
        """Take a channel that has ended."""

    def add_log(self, line: LogLine) -> None:
        """Take a line of a log."""

    def add_telemetry(self, kind: str, message: bytes, fields: Mapping[str, str]) -> None:
        """Take a telemetry message of a worker, which may be unreadable. `fields` name its sender."""


def _ratio(instance: object, attribute: object, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"must be from 0 to 1: {value}")


@frozen
class SamplingRule:
    """The share of new traces for some calls. `*` and `?` in the patterns stand for any characters and for one."""

    rate: float = attrs.field(validator=_ratio)
    operation: str = "*"
    """A pattern for the name of the function, or of the operation that begins the trace."""
    service: str = "*"
    """A pattern for the name of the worker that begins the trace."""


def _tuple_of_rules(rules: Iterable[SamplingRule]) -> tuple[SamplingRule, ...]:
    # attrs reads the signature of a converter, and `inspect` takes 2 ms to read that of `tuple`.
    return tuple(rules)


@frozen
class Sampling:
    """Which traces are recorded. The decision is made once, where a trace begins."""

    ratio: float = attrs.field(default=1.0, validator=_ratio)
    """The share of new traces that is recorded."""
    parent_based: bool = True
    """Whether the decision of a caller that sends a `traceparent` holds. Otherwise the ratio decides by its trace id."""
    rules: tuple[SamplingRule, ...] = attrs.field(default=(), converter=_tuple_of_rules)
    """The first rule that fits replaces the ratio."""
    max_traces_per_second: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """The bound on new traces, on average over a second. None: no bound."""


@final
class Sampler:
    """Decides about one trace after the other."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.may_begin = bool(sampling.ratio or sampling.rules)
        """Whether any new trace is recorded."""
        self._threshold = round(sampling.ratio * _ALL)
        self._rules = [
            (_pattern(rule.operation), _pattern(rule.service), round(rule.rate * _ALL)) for rule in sampling.rules
        ]
        self._position = 0
        self._per_second = sampling.max_traces_per_second
        self._left = max(1.0, self._per_second or 0.0)
        self._refilled_at = 0.0
        self._has_room_at = -math.inf if self.may_begin else math.inf

    def begins(self, operation: str, service: str, now: float) -> bool:
        """Decide whether a new trace is recorded."""
        threshold = self._threshold
        for matches_operation, matches_service, rate in self._rules:
            if matches_operation(operation) and matches_service(service):
                threshold = rate
                break
        if threshold < _ALL:
            self._position = (self._position + _GOLDEN) & _MASK
            if self._position >= threshold:
                return False
        return self._per_second is None or self._take(self._per_second, now)

    def has_room(self, now: float) -> bool:
        """Return whether `begins` might say yes at this time."""
        return now >= self._has_room_at

    def follows(self, parent: TraceParent) -> bool:
        """Decide whether the trace of a caller is recorded."""
        if self.sampling.parent_based:
            return parent.sampled
        # The same trace gets the same decision wherever it comes by.
        return int(parent.trace_id[16:], 16) < self._threshold

    def _take(self, per_second: float, now: float) -> bool:
        self._left = min(max(1.0, per_second), self._left + (now - self._refilled_at) * per_second)
        self._refilled_at = now
        begins = self._left >= 1
        if begins:
            self._left -= 1
        # Kept, because it is compared for every call.
        self._has_room_at = now + max(0.0, 1 - self._left) / per_second
        return begins


@final
class Tracing:
    """What an engine and its modules begin spans with. `clock` is the engine's, `wall_clock` tells seconds since 1970."""

    def __init__(self, new_id: Callable[[], str], clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._new_id = new_id
        self._clock = clock
        self._wall_clock = wall_clock
        self._sampler = Sampler(Sampling())
        self._last_span_id = 0
        self._offset = 0.0
        """The date at the clock's zero, in seconds."""
        self.sink: Sink | None = None
        """The receiver of all that is observed. None: nothing is recorded."""
        self.active = False
        """Whether there is a sink."""

    def attach(self, sink: Sink, sampling: Sampling) -> None:
        """Give all that begins from now on to this sink, in place of an earlier one."""
        self._sampler = Sampler(sampling)
        # Ids of spans have to differ from those of other engines in the same trace.
        self._last_span_id = int(self._new_id().replace("-", "")[:16], 16)
        self.sink = sink
        self.active = True

    def may_begin_trace(self, now: float) -> bool:
        """Return whether a new trace might be recorded now. It changes nothing, and is quicker than `place`."""
        return self._sampler.has_room(now)

    def detach(self, sink: Sink) -> None:
        """Record nothing more, if this sink gets it."""
        if self.sink is sink:
            self.sink, self.active = None, False

    def place(
        self, traceparent: str | None, operation: str, service: str, now: float, *, may_begin_trace: bool = True
    ) -> Place | None:
        """Return the place of a piece of work that begins now, or None if it is not to be recorded.

        `operation` and `service` are what sampling rules look at, and only for a new trace.
        """
        if self.sink is None:
            return None
        parent = parse_traceparent(traceparent) if traceparent is not None else None
        if parent is None:
            # The headers of an odd traceparent are replaced, as W3C asks of a service that begins a trace.
            if not (may_begin_trace and self._sampler.may_begin):
                return None
            if not self._sampler.begins(operation, service, now):
                return None
            trace_id, parent_id, flags = self._new_id().replace("-", ""), None, 1
        else:
            if not self._sampler.follows(parent):
                return None
            trace_id, parent_id, flags = parent.trace_id, parent.span_id, parent.flags & 3 | 1
        self._last_span_id = last = (self._last_span_id + _GOLDEN) & _MASK or 1
        return Place(trace_id, f"{last:016x}", parent_id, flags)

    def begin(
        self,
        name: str,
        traceparent: str | None,
        *,
        kind: int = SERVER,
        operation: str = "",
        service: str = "",
        may_begin_trace: bool = True,
    ) -> Span | None:
        """Begin a span of a module's own work, or return None if it is not to be recorded."""
        now = self._clock()
        place = self.place(traceparent, operation or name, service, now, may_begin_trace=may_begin_trace)
        return None if place is None else Span(*place, now, name, kind, {})

    def finish(self, span: Span) -> None:
        """Set the times of a span that ends now, and give it to the sink."""
        if self.sink is not None:
            span.start_ns, span.end_ns = self._times(span)
            self._give(self.sink.add_span, span)

    def call_ended(self, call: CallFacts) -> None:
        """Give a call that ends now to the sink, if there is one."""
        if self.sink is not None:
            start_ns, end_ns = self._times(call)
            self._give(self.sink.add_call, call, start_ns, end_ns)

    def channel_ended(self, channel: ChannelFacts, outcome: str, counts: ChannelCounts) -> None:
        """Give a channel that ends now to the sink, if there is one."""
        if self.sink is not None:
            self._give(self.sink.add_channel, channel, outcome, counts, *self._times(channel))

    def _times(self, work: Placed) -> tuple[int, int]:
        """Return the dates of the beginning of a piece of work and of now, in nanoseconds."""
        now = self._clock()
        offset = self._wall_clock() - now
        # Small differences come from reading two clocks. Spans would then begin before the spans that caused them.
        if abs(offset - self._offset) > _SAME_SECONDS:
            self._offset = offset
        return int((work.began + self._offset) * 1e9), int((now + self._offset) * 1e9)

    def log(self, line: LogLine) -> None:
        """Give a line of a log to the sink, if there is one."""
        if self.sink is not None:
            self._give(self.sink.add_log, line)

    def telemetry(self, kind: str, message: bytes, fields: Mapping[str, str]) -> None:
        """Give a worker's telemetry to the sink, if there is one."""
        if self.sink is not None:
            self._give(self.sink.add_telemetry, kind, message, fields)

    def _give(self, take: Callable[..., None], *what: object) -> None:
        try:
            take(*what)
        # Observation must not disturb what it observes, and a sink that failed once would fail at each call.
        except Exception as error:
            self.sink, self.active = None, False
            get_logger("iii_trio.observability").error(
                "the engine records no traces any more, because its recorder failed", exc_info=error
            )


def _pattern(text: str) -> Callable[[str], object]:
    return re.compile("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in text), re.DOTALL).fullmatch
