"""One worker's connection to the engine."""

from __future__ import annotations

import hmac
import logging
from collections import deque
from enum import auto
from typing import Final

import msgspec

from ..compat.sdk_limits import reads_large_messages
from ..records import reprs_without
from ..report import visible
from ..state_machine import StateMachine, Table, TableEnum
from ..wire import DEFAULT_NAMESPACE, Message, Undecodable, caller_field
from .access import Access
from .worker_info import WorkerInfo


class SessionState(TableEnum):
    """The states of a session."""

    PENDING_AUTH = auto()  # the auth function of its listener has not answered yet
    UNNAMED = auto()  # its namespace is not known yet, so registrations are deferred
    SERVING = auto()
    GONE = auto()


class SessionEvent(TableEnum):
    """The events in the life of a session."""

    AUTH_REQUIRED = auto()
    ADMITTED = auto()
    NAMED = auto()
    WAITED_LONG_ENOUGH = auto()
    LEFT = auto()


SESSION: Final[Table[SessionState, SessionEvent]] = {
    SessionState.PENDING_AUTH: {
        SessionEvent.ADMITTED: SessionState.UNNAMED,
        SessionEvent.LEFT: SessionState.GONE,
    },
    SessionState.UNNAMED: {
        SessionEvent.AUTH_REQUIRED: SessionState.PENDING_AUTH,
        SessionEvent.NAMED: SessionState.SERVING,
        SessionEvent.WAITED_LONG_ENOUGH: SessionState.SERVING,
        SessionEvent.LEFT: SessionState.GONE,
    },
    SessionState.SERVING: {SessionEvent.NAMED: SessionState.SERVING, SessionEvent.LEFT: SessionState.GONE},
    SessionState.GONE: {},
}


class WorkerSession(msgspec.Struct, eq=False):
    """One worker's connection, as the core sees it. Its pending calls are in the ledger `PendingCalls`."""

    id: str
    reattach_token: str
    channel_secret: str
    connected_at: float
    connected_at_ms: int
    peer: str | None
    in_process: bool
    internal: bool = False
    """Whether it is a module of the engine's own."""
    state: StateMachine[SessionState, SessionEvent] = msgspec.field(
        default_factory=lambda: StateMachine(SESSION, SessionState.UNNAMED)
    )
    namespace: str = DEFAULT_NAMESPACE
    info: WorkerInfo = msgspec.field(default_factory=WorkerInfo)
    features: frozenset[str] = frozenset()
    relays: bool = False
    """Whether it passes calls on to another engine, or from one."""
    max_channels: int | None = None
    """The bound on channels that it owns. None uses the engine's limit."""
    deferred_registrations: list[Message] = msgspec.field(default_factory=list)
    registration_bytes: int = 0
    """The size of its registrations, deferred ones included."""
    functions: set[tuple[str, str]] = msgspec.field(default_factory=set)
    standbys: set[tuple[str, str]] = msgspec.field(default_factory=set)
    """The functions for which it stands by, because another worker has them."""
    owned: set[str] = msgspec.field(default_factory=set)
    held_writers: set[str] = msgspec.field(default_factory=set)
    held_readers: set[str] = msgspec.field(default_factory=set)
    held_elsewhere: set[str] = msgspec.field(default_factory=set)
    """The channels at other engines of which it holds ends."""
    trigger_types: set[tuple[str, str]] = msgspec.field(default_factory=set)
    """The trigger types that it provides, as (namespace, type)."""
    bindings: set[str] = msgspec.field(default_factory=set)
    """The ids of the bindings that end with it."""
    gauges: dict[str, int | float] = msgspec.field(default_factory=dict)
    """Its latest measurements of itself, from its telemetry."""
    gauges_at: float = 0.0
    """The time at which they arrived."""
    gauges_at_ms: int = 0
    """The time of measurement by the worker's own clock."""
    lease: tuple[str, str] | None = None
    """The (namespace, name) that it holds."""
    access: Access | None = None
    """What it may do. None: everything, because its listener is not guarded."""
    held: deque[tuple[Message | Undecodable, int]] | None = None
    """The messages, with their sizes, that wait for an auth function or a hook. None: it waits for neither."""
    held_bytes: int = 0
    registered_ids: dict[str, str] = msgspec.field(default_factory=dict)
    """The ids of its functions in the registry, by the ids that it gave them, where access rules make them differ."""
    caller_field: bytes = b""
    """`"_caller_worker_id":"…"}`, which replaces the last brace of an object that it sends."""

    __repr__, __rich_repr__ = reprs_without("reattach_token", "channel_secret")

    def __post_init__(self) -> None:
        # A session of a recording has it already.
        if self.caller_field == b"":
            self.caller_field = caller_field(self.id)

    @property
    def label(self) -> str:
        """The name for logs and errors."""
        return f"worker '{self.info.name}' ({self.id})" if self.info.name else f"worker {self.id}"

    @property
    def log_level(self) -> int:
        """The level of the log lines about its start and end."""
        return logging.DEBUG if self.internal else logging.INFO

    @property
    def short_label(self) -> str:
        """A shorter name, for the reason of a Close frame."""
        return f"worker '{self.info.name[:40]}'" if self.info.name else f"worker {self.id}"

    @property
    def takes_large_messages(self) -> bool:
        """Whether it accepts a JSON message above 1 MiB."""
        return reads_large_messages(self.info.runtime, self.features)


_MAX_NAME: Final = 280


def sanitised(text: str | None) -> str | None:
    """Return a name or description without control characters, or None if nothing is left."""
    if text is None:
        return None
    return visible(text)[:_MAX_NAME].strip() or None


def same_secret(a: str, b: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(a.encode(), b.encode())
