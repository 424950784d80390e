"""Telemetry from workers. Their latest gauges are kept and their log lines are logged.

The embedding program may receive every message that could be read (`Export`).
"""

from __future__ import annotations

import logging
import re
from typing import Final

from ..errors import MessageError
from ..wire.otlp import Gauge, LogRecord, Telemetry, check_spans, read_gauges, read_logs
from .effects import Export, Log
from .session import WorkerSession
from .state import State

KEPT_SECONDS: Final = 120.0
"""The time in seconds after which a worker's gauges are too old to be shown."""
_GAUGE: Final = re.compile(r"iii\.worker\.([a-z0-9_.]{1,64})")
_MAX_GAUGES: Final = 32


def receive(state: State, kind: Telemetry, message: bytes | bytearray, fields: dict[str, str], now: float) -> None:
    """Take in a telemetry message. `fields` name its sender in the log. An unreadable message is logged."""
    lines: list[Log] = []
    try:
        match kind:
            case Telemetry.METRICS:
                for gauge in list(read_gauges(message)):
                    _keep(state, gauge, now)
            case Telemetry.LOGS:
                lines = [_line(state, record, fields) for record in read_logs(message)]
            case Telemetry.SPANS:
                check_spans(message)
    # Nothing of an unreadable message is used, not even its readable part.
    except MessageError as problem:
        text = f"telemetry ({kind}) that cannot be read was left out: {problem}"
        state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))
        return
    for line in lines:
        state.emit(line)
    state.emit(Export(kind, message))


def latest_metrics(session: WorkerSession, now: float) -> dict[str, object] | None:
    """Return a worker's recent gauges, named as SDKs name them, or None if there are none."""
    if not session.gauges or now - session.gauges_at > KEPT_SECONDS:
        return None
    return {**session.gauges, "timestamp_ms": session.gauges_at_ms, "runtime": session.info.runtime}


def _keep(state: State, gauge: Gauge, now: float) -> None:
    session, match = state.sessions.get(gauge.worker_id), _GAUGE.fullmatch(gauge.name)
    # Gauges of other names are the worker's own business.
    if session is None or match is None:
        return
    name = match[1].replace(".", "_")
    if name in session.gauges or len(session.gauges) < _MAX_GAUGES:
        session.gauges[name] = gauge.value
        session.gauges_at, session.gauges_at_ms = now, gauge.time_ms


def _line(state: State, record: LogRecord, fields: dict[str, str]) -> Log:
    """Return a worker's log record as a line of this engine's log."""
    fields = dict(fields)
    if record.worker_id in state.sessions:
        fields["session"] = str(record.worker_id)
    fields["service_name"] = record.service
    for key in ("trace_id", "span_id"):
        value = getattr(record, key)
        if value is not None:
            fields[key] = value
    return Log(_level(record.severity), f"{record.service}: {record.body}", fields, peer_controlled=True)


def _level(severity: int) -> int:
    for min_severity, level in ((17, logging.ERROR), (13, logging.WARNING), (9, logging.INFO)):
        if severity >= min_severity:
            return level
    return logging.DEBUG if severity else logging.INFO
