"""The life of a worker's connection, and what the engine knows of it."""

from __future__ import annotations

import logging
from enum import auto
from typing import TYPE_CHECKING, Final

import attrs

from ..report import visible
from ..state_machine import StateMachine, Table, TableEnum
from ..wire import DEFAULT_NAMESPACE, LARGE_MESSAGES, Message

if TYPE_CHECKING:
    from .invocation import Call


class SessionState(TableEnum):
    """Where a session is in its life."""

    UNNAMED = auto()  # its namespace is not known yet: registrations wait
    SERVING = auto()
    GONE = auto()


class SessionEvent(TableEnum):
    """What happened to a session."""

    NAMED = auto()
    WAITED_LONG_ENOUGH = auto()
    LEFT = auto()


SESSION: Final[Table[SessionState, SessionEvent]] = {
    SessionState.UNNAMED: {
        SessionEvent.NAMED: SessionState.SERVING,
        SessionEvent.WAITED_LONG_ENOUGH: SessionState.SERVING,
        SessionEvent.LEFT: SessionState.GONE,
    },
    SessionState.SERVING: {SessionEvent.NAMED: SessionState.SERVING, SessionEvent.LEFT: SessionState.GONE},
    SessionState.GONE: {},
}


@attrs.frozen
class WorkerInfo:
    """What a worker says of itself (`engine::workers::register`)."""

    runtime: str = "unknown"
    version: str | None = None
    name: str | None = None
    description: str | None = None
    os: str | None = None
    pid: int | None = None
    isolation: str | None = None


@attrs.define(eq=False)
class Session:
    """One worker's connection as the engine's decisions see it."""

    id: str
    reattach_token: str = attrs.field(repr=False)
    channel_secret: str = attrs.field(repr=False)
    connected_at: float
    connected_at_ms: int
    peer: str | None
    in_process: bool
    internal: bool = False
    """Whether it is a module of the engine's own."""
    state: StateMachine[SessionState, SessionEvent] = attrs.field(
        factory=lambda: StateMachine(SESSION, SessionState.UNNAMED)
    )
    namespace: str = DEFAULT_NAMESPACE
    info: WorkerInfo = attrs.field(factory=WorkerInfo)
    features: frozenset[str] = frozenset()
    max_channels: int | None = None
    """How many channels it may own; None: as many as the engine's limits say."""
    held_back: list[Message] = attrs.field(factory=list)
    registration_bytes: int = 0
    """What its registrations take, held back or in force."""
    functions: set[tuple[str, str]] = attrs.field(factory=set)
    made: dict[str, Call] = attrs.field(factory=dict)
    """Its own calls that wait for an answer."""
    answering: dict[str, Call] = attrs.field(factory=dict)
    """The calls it has been given and has not answered."""
    owned: set[str] = attrs.field(factory=set)
    held_writers: set[str] = attrs.field(factory=set)
    held_readers: set[str] = attrs.field(factory=set)
    trigger_types: set[tuple[str, str]] = attrs.field(factory=set)
    """The (namespace, type) that it provides."""
    bindings: set[str] = attrs.field(factory=set)
    """The ids of the bindings that end with it."""
    gauges: dict[str, int | float] = attrs.field(factory=dict)
    """What it last measured of itself, as its telemetry told, when that came, and when it says to have measured."""
    gauges_at: float = 0.0
    gauges_at_ms: int = 0
    lease: tuple[str, str] | None = None
    """The (namespace, name) that it has."""
    caller_field: bytes = b""
    """`"_caller_worker_id":"…"}`: what is put before the last brace of an object it sends."""

    def __attrs_post_init__(self) -> None:
        self.caller_field = b'"_caller_worker_id":"' + self.id.encode() + b'"}'

    @property
    def label(self) -> str:
        """How logs and errors name it."""
        return f"worker '{self.info.name}' ({self.id})" if self.info.name else f"worker {self.id}"

    @property
    def notable(self) -> int:
        """The level at which the log tells of its coming and going."""
        return logging.DEBUG if self.internal else logging.INFO

    @property
    def short_label(self) -> str:
        """How the reason of a Close names it, which has little room."""
        return f"worker '{self.info.name[:40]}'" if self.info.name else f"worker {self.id}"

    @property
    def takes_large_messages(self) -> bool:
        """Whether a JSON message above 1 MiB is safe: Python SDKs before 0.25 close at it, and lose their replies."""
        return self.info.runtime != "python" or LARGE_MESSAGES in self.features


_LONGEST_NAME: Final = 280


def sanitised(text: str | None) -> str | None:
    """A name or description without characters that could fool a reader of a log; None if nothing is left."""
    if text is None:
        return None
    return visible(text)[:_LONGEST_NAME].strip() or None
