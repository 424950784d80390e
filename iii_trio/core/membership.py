"""The life of a worker's membership: from the first dial to its last goodbye."""

from __future__ import annotations

from enum import auto
from typing import Final

from ..state_machine import Table, TableEnum


class WorkerState(TableEnum):
    """Where a worker is, as seen by itself."""

    CONNECTING = auto()
    REGISTERING = auto()  # linked; what it declared is being replayed
    CONNECTED = auto()
    BACKOFF = auto()  # lost, or not reached; it dials again soon
    REJECTED = auto()  # the engine wants it no more, for good
    CLOSED = auto()  # it left by itself


class WorkerEvent(TableEnum):
    """What happened to a worker's membership."""

    LINKED = auto()
    GREETED = auto()
    NOT_REACHED = auto()
    LINK_LOST = auto()
    WAITED = auto()
    REJECTED = auto()
    LEFT = auto()


MEMBERSHIP: Final[Table[WorkerState, WorkerEvent]] = {
    WorkerState.CONNECTING: {
        WorkerEvent.LINKED: WorkerState.REGISTERING,
        WorkerEvent.NOT_REACHED: WorkerState.BACKOFF,
        WorkerEvent.LEFT: WorkerState.CLOSED,
    },
    WorkerState.REGISTERING: {
        WorkerEvent.GREETED: WorkerState.CONNECTED,
        WorkerEvent.LINK_LOST: WorkerState.BACKOFF,
        WorkerEvent.REJECTED: WorkerState.REJECTED,
        WorkerEvent.LEFT: WorkerState.CLOSED,
    },
    WorkerState.CONNECTED: {
        WorkerEvent.LINK_LOST: WorkerState.BACKOFF,
        WorkerEvent.REJECTED: WorkerState.REJECTED,
        WorkerEvent.LEFT: WorkerState.CLOSED,
    },
    WorkerState.BACKOFF: {WorkerEvent.WAITED: WorkerState.CONNECTING, WorkerEvent.LEFT: WorkerState.CLOSED},
    WorkerState.REJECTED: {},
    WorkerState.CLOSED: {},
}
