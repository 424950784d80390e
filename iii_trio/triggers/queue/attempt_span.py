"""The span of an attempt at a job, which belongs to the trace of the call that sent the job."""

from __future__ import annotations

from typing import Final

from ...tracing import CONSUMER, OK, Span, Tracing
from .lane import Job

# These outcomes say nothing bad about the job or its function. The job waits for another attempt, which costs it nothing.
_NO_FAULT: Final = frozenset({"returned", "postponed", "draining", "stopped", "missing"})


def begin_attempt_span(tracing: Tracing, job: Job) -> Span | None:
    """Begin the span of an attempt, or return None if the trace of the job is not recorded."""
    record, key = job.record, job.lane.key
    # A trace is chosen where it begins, so a job without one stays without one.
    if tracing.sink is None or record.traceparent is None:
        return None
    name = f"fn_queue {key.name}" if key.kind == "queue" else f"queue {key.name}"
    span = tracing.begin(name, record.traceparent, kind=CONSUMER, may_begin_trace=False)
    if span is not None:
        span.attributes |= {
            "function_id": record.function_id,
            "queue": key.name,
            "attempt": record.progress.attempts + 1,
            "delivery_id": record.id,
            "iii.job.id": record.id,
            "iii.job.lost_workers": record.progress.lost,
            "messaging.system": "iii-queue",
            "messaging.destination.name": key.name,
            "messaging.operation.type": "process",
            "iii.tag.kind": "queue.process",
            "iii.tag.display_name": f"queue({key.name}) {record.function_id}",
        }
    return span


def end_attempt_span(tracing: Tracing, span: Span, outcome: str, code: str = "") -> None:
    """End the span of an attempt with its outcome, and with the code of its error if it failed."""
    span.attributes["iii.job.outcome"] = outcome
    if outcome == "succeeded":
        span.status = OK
    elif outcome not in _NO_FAULT:
        span.attributes["error.type"] = code or outcome
        span.fail(code or outcome)
    tracing.finish(span)
