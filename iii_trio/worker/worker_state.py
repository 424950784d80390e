"""The states of a worker, from its first connection to its last Close."""

from __future__ import annotations

from enum import auto
from typing import Final

from ..state_machine import Table, TableEnum


class WorkerState(TableEnum):
    """The states of a worker, as the worker itself sees them."""

    CONNECTING = auto()
    REGISTERING = auto()  # connected; its registrations are being sent again
    CONNECTED = auto()
    BACKOFF = auto()  # the connection was lost or refused; the worker will try again soon
    REJECTED = auto()  # the engine refused this worker for good
    CLOSED = auto()  # the worker closed itself


class WorkerEvent(TableEnum):
    """The events in the life of a worker."""

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
