"""The latest measurements that workers gave of themselves, for `latest_metrics` in `engine::workers::info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .session import WorkerSession
from .state import State

KEPT_SECONDS: Final = 120.0
"""The time in seconds after which a worker's gauges are too old to be shown."""
_MAX_GAUGES: Final = 32


def keep_gauges(state: State, worker_id: str, gauges: Mapping[str, int | float], time_ms: int, now: float) -> None:
    """Keep gauges of a worker. Those of a worker that is not here, and too many of one, are left out."""
    session = state.sessions.get(worker_id)
    if session is None:
        return
    for name, value in gauges.items():
        if name in session.gauges or len(session.gauges) < _MAX_GAUGES:
            session.gauges[name] = value
            session.gauges_at, session.gauges_at_ms = now, time_ms


def latest_metrics(session: WorkerSession, now: float) -> dict[str, object] | None:
    """Return a worker's recent gauges, or None if there are none."""
    if not session.gauges or now - session.gauges_at > KEPT_SECONDS:
        return None
    return {**session.gauges, "timestamp_ms": session.gauges_at_ms, "runtime": session.info.runtime}
