"""What the engine does with the telemetry that workers send: their latest gauges are kept, their log lines are logged.

Whoever embeds the engine may have every message that could be read (`Export`).
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from ..errors import MessageError
from ..wire.otlp import Gauge, LogRecord, Telemetry, check_spans, read_gauges, read_logs
from .effects import Effects, Export, Log
from .session import Session

if TYPE_CHECKING:
    from .hub import Hub

KEPT_SECONDS: Final = 120.0
"""How long a worker's gauges count as its latest ones."""
_GAUGE: Final = re.compile(r"iii\.worker\.([a-z0-9_.]{1,64})")
_MAX_GAUGES: Final = 32


def take(hub: Hub, kind: Telemetry, message: bytes | bytearray, about: dict[str, str], now: float) -> Effects:
    """A message of telemetry has come; `about` says from whom. What cannot be read is logged, and harms nobody."""
    effects: Effects = []
    try:
        match kind:
            case Telemetry.METRICS:
                for gauge in list(read_gauges(message)):
                    _keep(hub, gauge, now)
            case Telemetry.LOGS:
                effects += [_line(hub, record, about) for record in read_logs(message)]
            case Telemetry.SPANS:
                check_spans(message)
    except MessageError as problem:
        return [
            Log(
                logging.WARNING,
                f"telemetry ({kind}) that cannot be read was left out: {problem}",
                about,
                peer_controlled=True,
            )
        ]
    effects.append(Export(kind, message))
    return effects


def latest_metrics(session: Session, now: float) -> dict[str, object] | None:
    """A worker's gauges of the last two minutes, named as SDKs name them; None if there are none."""
    if not session.gauges or now - session.gauges_at > KEPT_SECONDS:
        return None
    return {**session.gauges, "timestamp_ms": session.gauges_at_ms, "runtime": session.info.runtime}


def _keep(hub: Hub, gauge: Gauge, now: float) -> None:
    session, match = hub.sessions.get(gauge.worker_id), _GAUGE.fullmatch(gauge.name)
    if session is None or match is None:
        return
    name = match[1].replace(".", "_")
    if name in session.gauges or len(session.gauges) < _MAX_GAUGES:
        session.gauges[name] = gauge.value
        session.gauges_at, session.gauges_at_ms = now, gauge.time_ms


def _line(hub: Hub, record: LogRecord, about: dict[str, str]) -> Log:
    """A line that a worker logged, as a line of this engine's log."""
    about = dict(about)
    if record.worker_id in hub.sessions:
        about["session"] = str(record.worker_id)
    about["service_name"] = record.service
    for key in ("trace_id", "span_id"):
        value = getattr(record, key)
        if value is not None:
            about[key] = value
    return Log(_level(record.severity), f"{record.service}: {record.body}", about, peer_controlled=True)


def _level(severity: int) -> int:
    for least, level in ((17, logging.ERROR), (13, logging.WARNING), (9, logging.INFO)):
        if severity >= least:
            return level
    return logging.DEBUG if severity else logging.INFO
