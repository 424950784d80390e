"""The facts of an engine's work that its core tells: calls, channels and lines of logs, with their places in traces.

The core says what happened and knows nothing of spans. It asks a `TraceSource` for the place of a call in its trace, because
the callee gets a `traceparent` with that place. Whoever records traces makes spans of the facts.

Facts hold names, ids, codes and times. Payloads, texts of errors and baggage are never put into one.
"""

# Annotations are not texts here, because a start reads them and would compile each text.

import re
from typing import Final, NamedTuple, Protocol

import msgspec

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_ODD_DIGITS: Final = frozenset("13579bdf")
_LAST_OF_FLAGS: Final = 54
TRACE: Final = 5
"""The level of a line below `logging.DEBUG`."""


class TraceParent(NamedTuple):
    """The fields of a `traceparent` header."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the caller records its part of the trace."""
        return bool(self.flags & 1)


def parse_traceparent(text: str | None) -> TraceParent | None:
    """Return the fields of a `traceparent`, or None for one that W3C's Trace Context (3.2) says to ignore."""
    match = _TRACEPARENT.fullmatch(text) if text is not None and len(text) <= 512 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    # Later versions may append fields. Version 00 has none, and ff is forbidden.
    if version == "ff" or (version == "00" and rest is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceParent(trace_id, span_id, int(flags, 16))


def is_sampled(traceparent: str) -> bool:
    """Return whether a `traceparent` that was found to be valid says that the trace is recorded."""
    # The flags have this place in all versions. A worker asks at each call, and the whole pattern takes 20 times as long.
    return traceparent[_LAST_OF_FLAGS : _LAST_OF_FLAGS + 1] in _ODD_DIGITS


class Place(NamedTuple):
    """The place of a piece of work in a trace that is recorded."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    flags: int


class Placed(msgspec.Struct, gc=False):
    """A piece of work with its place in a trace that is recorded."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    flags: int
    began: float
    """The time of its beginning by the engine's clock, in seconds."""

    @property
    def traceparent(self) -> str:
        """The header for the work that this one causes."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def context(self) -> TraceParent:
        """The work as the target of a link."""
        return TraceParent(self.trace_id, self.span_id, self.flags)


class CallFacts(Placed, gc=False):
    """A call of a trace that is recorded. Its outcome is empty until it has ended."""

    function_id: str = ""
    caller: str = ""
    caller_id: str = ""
    callee: str = ""
    """The worker that answers. Empty: the engine itself does, or the function does not exist."""
    callee_id: str = ""
    is_internal: bool | None = None
    """Whether the engine or a module of it answers. None: nobody does."""
    namespace: str | None = None
    queue: str | None = None
    """The queue for which the call is made into a job. None: it is not."""
    job_id: str = ""
    outcome: str = ""
    code: str = ""
    """The code of its error."""
    waited_us: int | None = None
    """How long it waited at the callee before its handler started, in microseconds. None: the callee does not tell."""


class ChannelFacts(Placed, gc=False):
    """A channel of a trace that is recorded."""

    channel_id: str = ""
    owner: str = ""
    writer: str | None = None
    """The worker that attached this end. None: it was not attached."""
    reader: str | None = None
    links: list[TraceParent] = msgspec.field(default_factory=list)
    """The recorded calls that used it."""


class ChannelCounts(NamedTuple):
    """What passed through a channel, and the most that waited in it."""

    items: int = 0
    bytes: int = 0
    peak_items: int = 0
    peak_bytes: int = 0


class LogLine(msgspec.Struct, gc=False):
    """One line of a log. The body and the attributes are as its writer gave them."""

    level: int
    """As in `logging`, with `TRACE` below."""
    body: str
    service: str
    attributes: dict[str, object]
    trace_id: str | None = None
    span_id: str | None = None


class TraceSource(Protocol):
    """The giver of places in traces."""

    @property
    def active(self) -> bool:
        """Whether anything is recorded. Otherwise no place is given, and there is no need to ask."""

    def may_begin_trace(self, now: float) -> bool:
        """Return whether a new trace might be recorded now. It changes nothing, and is quicker than `place`."""

    def place(
        self, traceparent: str | None, operation: str, service: str, now: float, *, may_begin_trace: bool = True
    ) -> Place | None:
        """Return the place of a piece of work that begins now, or None if it is not to be recorded.

        `operation` and `service` are what sampling rules look at, and only for a new trace.
        """


class NoTraces:
    """A source where nothing is recorded."""

    active = False

    def may_begin_trace(self, now: float) -> bool:
        """Return False."""
        return False

    def place(
        self, traceparent: str | None, operation: str, service: str, now: float, *, may_begin_trace: bool = True
    ) -> Place | None:
        """Return None."""
        return None


class Measured(NamedTuple):
    """One metric of the engine or of a module at one moment."""

    name: str
    """Its name with dots, such as `iii.queue.jobs`."""
    kind: str
    """`gauge`, or `sum` for a number that only rises."""
    text: str
    values: list[tuple[dict[str, str], float]]
    """Each value with its labels, which are the same keys for all. Their number is bounded."""
    unit: str = ""
