"""The memory of spans, by trace. It is bounded in spans and in bytes, and gives up the oldest traces first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from .records import StoredSpan

MAX_SPANS_OF_TRACE: Final = 10_000
"""Spans of one trace. A trace that never ends loses its oldest ones beyond that."""


@final
class SpanStore:
    """Keeps the spans of the latest traces."""

    def __init__(self, max_spans: int, max_bytes: int) -> None:
        self.max_spans = max_spans
        self.max_bytes = max_bytes
        self.spans = 0
        self.bytes = 0
        self.dropped = 0
        """Spans that were given up for newer ones."""
        self._traces: dict[str, dict[str, StoredSpan]] = {}

    def __len__(self) -> int:
        return len(self._traces)

    def __iter__(self) -> Iterator[dict[str, StoredSpan]]:
        """Yield the traces, the oldest first, each as its spans by id."""
        # The caller may wait between two traces, while new ones come and old ones go.
        return iter(list(self._traces.values()))

    def trace(self, trace_id: str) -> dict[str, StoredSpan]:
        """Return the spans of a trace by id, in the order of their arrival. An unknown trace has none."""
        return self._traces.get(trace_id, {})

    def add(self, span: StoredSpan) -> None:
        """Keep a span, in place of an earlier one of the same ids, such as its pending form."""
        trace = self._traces.get(span.trace_id)
        if trace is None:
            trace = self._traces[span.trace_id] = {}
        before = trace.get(span.span_id)
        if before is not None:
            # A pending form that comes late must not replace the span that has ended.
            if span.pending and not before.pending:
                return
            self.spans -= 1
            self.bytes -= before.size
        elif len(trace) >= MAX_SPANS_OF_TRACE:
            self._forget(trace.pop(next(iter(trace))))
        # A replaced span keeps its place in the order of arrival.
        trace[span.span_id] = span
        self.spans += 1
        self.bytes += span.size
        if self.spans > self.max_spans or self.bytes > self.max_bytes:
            self._make_room()

    def change_bounds(self, max_spans: int, max_bytes: int) -> None:
        """Use these bounds from now on."""
        self.max_spans, self.max_bytes = max_spans, max_bytes
        self._make_room()

    def clear(self) -> None:
        """Forget all spans."""
        self._traces.clear()
        self.spans = self.bytes = 0

    def _make_room(self) -> None:
        while len(self._traces) > 1 and self._is_full:
            for span in self._traces.pop(next(iter(self._traces))).values():
                self._forget(span)
        # The only trace is too large by itself, so its oldest spans go.
        for trace in self._traces.values():
            while len(trace) > 1 and self._is_full:
                self._forget(trace.pop(next(iter(trace))))

    @property
    def _is_full(self) -> bool:
        return self.spans > self.max_spans or self.bytes > self.max_bytes

    def _forget(self, span: StoredSpan) -> None:
        self.spans -= 1
        self.bytes -= span.size
        self.dropped += 1
