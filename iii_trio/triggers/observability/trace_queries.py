"""The answers of `engine::traces::*`, which are lists of spans, trees of one trace, and groups of traces."""

# Annotations are not texts here, because a start reads them and would compile each text.

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ...errors import CallError
from ...structure import FunctionInput, refuse_negative
from .records import STATUS, StoredSpan
from .rows import span_row, text
from .span_store import SpanStore

_MAX_ROWS: Final = 1000
_MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
_MAX_DEPTH: Final = 100
"""Levels of a tree. Deeper spans stand beside their parents, because messages have a bound on nesting."""
_MAX_MS: Final = 1 << 53
_FANS: Final = frozenset({"state_triggers", "stream_triggers"})
"""Spans that are left out of a tree while they have no children."""

TraceSpans = dict[str, StoredSpan]


class TracesInput(FunctionInput, frozen=True):
    """The payload of `engine::traces::list`."""

    trace_id: str | None = None
    trace_ids: list[str] | None = None
    offset: int | None = None
    limit: int | None = None
    service_name: str | None = None
    name: str | None = None
    status: str | None = None
    min_duration_ms: float | None = None
    max_duration_ms: float | None = None
    start_time: float | None = None
    end_time: float | None = None
    sort_by: str | None = None
    sort_order: str | None = None
    attributes: list[list[str]] | None = None
    exclude_attributes: list[list[str]] | None = None
    include_internal: bool | None = None
    search_all_spans: bool | None = None

    def __post_init__(self) -> None:
        refuse_negative(offset=self.offset, limit=self.limit)


class TreeInput(FunctionInput, frozen=True):
    """The payload of `engine::traces::tree`."""

    trace_id: str


class GroupInput(FunctionInput, frozen=True):
    """The payload of `engine::traces::group_by`."""

    attribute: str
    since_ms: float | None = None
    limit: int | None = None
    include_internal: bool | None = None
    label_attribute: str | None = None

    def __post_init__(self) -> None:
        refuse_negative(limit=self.limit)


def find_traces(store: SpanStore, which: TracesInput) -> Iterator[TraceSpans]:
    """Yield the traces that a list is about, the oldest first."""
    wanted = [which.trace_id] if which.trace_id else which.trace_ids
    if wanted is None:
        yield from store
    else:
        yield from (store.trace(trace_id) for trace_id in dict.fromkeys(wanted[:_MAX_ROWS]))


def select(trace: TraceSpans, which: TracesInput) -> Iterator[StoredSpan]:
    """Yield the spans of a trace that fit a list."""
    for span in trace.values() if which.search_all_spans else _roots(trace):
        if _fits(span, which):
            yield span


def _roots(trace: TraceSpans) -> list[StoredSpan]:
    """Return the spans of a trace that have no parent in it. Where all parents form circles, it is the earliest span."""
    # The parent of a worker's first span is often in another service, which sends its spans elsewhere.
    found = [span for span in trace.values() if span.parent_span_id is None or span.parent_span_id not in trace]
    # A worker decides what parents its spans have, and a trace without any root would be in no list.
    if trace and not found:
        found = [min(trace.values(), key=_began)]
    return found


def _began(span: StoredSpan) -> int:
    return span.start_ns


def _fits(span: StoredSpan, which: TracesInput) -> bool:
    if span.internal and not which.include_internal:
        return False
    for wanted, found in (
        (which.service_name, span.resource.service), (which.name, span.name), (which.status, STATUS[span.status]),
    ):  # fmt: skip
        if wanted and wanted.lower() not in found.lower():
            return False
    lasted = (span.end_ns - span.start_ns) / 1e6
    if which.min_duration_ms is not None and lasted < which.min_duration_ms:
        return False
    if which.max_duration_ms is not None and lasted > which.max_duration_ms:
        return False
    # A span is listed if any part of it lies in the time that is asked for.
    if which.start_time is not None and (span.end_ns or span.start_ns) < which.start_time * 1e6:
        return False
    if which.end_time is not None and span.start_ns > which.end_time * 1e6:
        return False
    if any(not _has(span, pair) for pair in which.attributes or ()):
        return False
    return not any(_has(span, pair) for pair in which.exclude_attributes or ())


def _has(span: StoredSpan, pair: Sequence[str]) -> bool:
    return len(pair) == 2 and pair[0] in span.attributes and text(span.attributes[pair[0]]) == pair[1]


def page(found: list[StoredSpan], store: SpanStore, which: TracesInput) -> dict[str, Any]:
    """Return the answer of a list, which is the spans in order, from `offset` on, until `limit` or the size of an answer."""
    key = {
        "duration": lambda span: span.end_ns - span.start_ns,
        "service_name": lambda span: span.resource.service,
        "name": lambda span: span.name,
    }.get(which.sort_by or "", lambda span: (span.start_ns, -span.end_ns))  # the cause before what it causes
    found.sort(key=key, reverse=(which.sort_order or "").lower() == "desc")
    offset = which.offset or 0
    limit = min(100 if which.limit is None else which.limit, _MAX_ROWS)
    rows: list[dict[str, Any]] = []
    room = _MAX_ANSWER_BYTES
    for span in found[offset : offset + limit]:
        # A row takes about twice the text of its span, because it names its fields.
        room -= 2 * span.size
        # One span is always shown, however large.
        if room < 0 and rows:
            break
        rows.append({**span_row(span), "trace_tags": _tags(store.trace(span.trace_id).values())})
    return {"spans": rows, "total": len(found), "offset": offset, "limit": limit}


def _tags(trace: Iterable[StoredSpan]) -> dict[str, str]:
    """Return the `iii.tag.*` attributes of a trace. The first value of each name counts."""
    tags: dict[str, str] = {}
    for span in trace:
        for key, value in span.attributes.items():
            if key.startswith("iii.tag."):
                tags.setdefault(key.removeprefix("iii.tag."), text(value))
    return tags


def check_times(*times: float | None) -> None:
    """Refuse times that nanoseconds cannot hold. Raises CallError."""
    for time in times:
        if time is not None and not abs(time) < _MAX_MS:
            raise CallError("time_value_overflow", f"{time:g} is not a time in milliseconds since 1970")


def tree(trace: TraceSpans) -> list[dict[str, Any]]:
    """Return the roots of a trace as rows, each with its children, in the order of their beginnings."""
    ordered = sorted(trace.values(), key=_began)
    children: dict[str, list[StoredSpan]] = {}
    for span in ordered:
        if span.parent_span_id is not None:
            children.setdefault(span.parent_span_id, []).append(span)
    # A stack instead of recursion, because a worker decides how deep its spans are nested.
    rows: dict[str, dict[str, Any]] = {}
    result: list[dict[str, Any]] = []
    # A circle of parents beside other roots has none itself. Each is entered at its first span.
    for root in [*sorted(_roots(trace), key=_began), *ordered]:
        pending = [(root, result, 0)]
        while pending:
            span, siblings, depth = pending.pop()
            if span.span_id in rows:
                continue
            row = rows[span.span_id] = {**span_row(span), "children": []}
            siblings.append(row)
            below = children.get(span.span_id, [])
            into = row["children"] if depth < _MAX_DEPTH else siblings
            pending += [(child, into, depth + (depth < _MAX_DEPTH)) for child in reversed(below)]
    _add_waits(rows)
    return _pruned(result)


def _add_waits(rows: dict[str, dict[str, Any]]) -> None:
    """Add to each call the time until its callee began, where the callee has told it, or has sent a span of its own."""
    for row in rows.values():
        attributes = dict(row["attributes"])
        if "iii.call.outcome" not in attributes:
            continue
        # Workers of iii-trio measure it with one clock.
        if "iii.callee.waited_us" in attributes:
            row["callee_waited_ns"] = int(attributes["iii.callee.waited_us"]) * 1000
            continue
        # Each machine has a clock of its own, so a span of another one may seem to begin before its cause.
        starts = [
            child["start_time_unix_nano"] - row["start_time_unix_nano"]
            for child in row["children"]
            if child["service_name"] != row["service_name"]
        ]
        if starts:
            row["callee_waited_ns"] = max(0, min(starts))


def _pruned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without spans of triggers that called nothing."""
    for row in rows:
        row["children"] = _pruned(row["children"])
    return [row for row in rows if row["children"] or row["name"] not in _FANS]


Groups = dict[str, dict[str, Any]]
"""Groups by the value of their attribute."""


def add_to_groups(found: Groups, trace: TraceSpans, which: GroupInput) -> None:
    """Add the spans of a trace to the groups of their values."""
    for span in trace.values():
        if which.attribute not in span.attributes or (span.internal and not which.include_internal):
            continue
        # A trace may have begun earlier, and still belong to the time that is asked for.
        if which.since_ms is not None and span.start_ns < which.since_ms * 1e6:
            continue
        value = text(span.attributes[which.attribute])
        group = found.get(value)
        first, last = span.start_ns // 1_000_000, max(span.start_ns, span.end_ns) // 1_000_000
        if group is None:
            label = span.attributes.get(which.label_attribute) if which.label_attribute else None
            group = found[value] = {
                "value": value, "label": value if label is None else text(label), "trace_ids": {}, "span_count": 0,
                "first_seen_ms": first, "last_seen_ms": last, "error_count": 0,
            }  # fmt: skip
        group["trace_ids"][span.trace_id] = None
        group["span_count"] += 1
        group["error_count"] += span.status == 2
        group["first_seen_ms"] = min(group["first_seen_ms"], first)
        group["last_seen_ms"] = max(group["last_seen_ms"], last)


def latest_groups(found: Groups, which: GroupInput) -> list[dict[str, Any]]:
    """Return the groups as rows, the one that was seen last first."""
    limit = min(100 if which.limit is None else which.limit, _MAX_ROWS)
    chosen = sorted(found.values(), key=lambda group: -group["last_seen_ms"])[:limit]
    for group in chosen:
        group["trace_ids"] = list(group["trace_ids"])[:_MAX_ROWS]
        group["duration_ms"] = group["last_seen_ms"] - group["first_seen_ms"]
    return chosen
