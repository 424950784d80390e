"""The closed list of what the core may ask of the shell."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from ..wire import Outcome
from ..wire.otlp import Telemetry


class Send(msgspec.Struct, frozen=True):
    """Put a message into a session's outbox: a result, or a control message, that may use the reserve."""

    session: str
    message: bytes


class Deliver(msgspec.Struct, frozen=True):
    """Put a call into its callee's outbox; if that is full, say `Hub.undeliverable(session, invocation_id)`."""

    session: str
    message: bytes
    invocation_id: str


class HangUp(msgspec.Struct, frozen=True):
    """End a session's link with this close code."""

    session: str
    code: int
    reason: str


class SealPipe(msgspec.Struct, frozen=True):
    """A channel's writer has closed cleanly: behind what waits is the clean end."""

    channel: str


class EndChannel(msgspec.Struct, frozen=True):
    """A channel has its outcome: break its pipe unless completed, tell its attached ends, forget it."""

    channel: str
    outcome: Outcome
    reason: str
    code: str | None = None
    created_at: float = 0.0
    traceparent: str | None = None
    """Of the call that made it (clause C7.3)."""
    used_by: tuple[str, ...] = ()
    """The traceparents of the calls that used it."""
    sessions: dict[str, str] = msgspec.field(default_factory=dict)
    """Its owner, and who held its ends: `owner`, `writer` and `reader`, where there is one."""


class Log(msgspec.Struct, frozen=True):
    """Something worth a line in the log. `about` are ids: session, function, channel, …"""

    level: int
    text: str
    about: dict[str, str]
    peer_controlled: bool = False
    """One that a worker can cause as often as it likes: such lines must not crowd out the others."""


class Export(msgspec.Struct, frozen=True):
    """A message of telemetry that could be read, with its four letters: for whoever embeds the engine."""

    kind: Telemetry
    message: bytes | bytearray


Effect: TypeAlias = Send | Deliver | HangUp | SealPipe | EndChannel | Log | Export
Effects: TypeAlias = list[Effect]
