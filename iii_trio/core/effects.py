"""The closed list of effects, which are everything that the core may ask of the shell.

`Send` and `Deliver` are encoded as arrays, because the flight recorder encodes one of them for each message.

Three of them are questions. The shell answers each with an input of the hub, at once and in place, so that the core needs
no callbacks (docs/decisions/0013).
"""

from __future__ import annotations

from typing import TypeAlias, final

import msgspec

from ..observed import CallFacts, ChannelFacts, LogLine
from ..wire import Outcome, Ref
from ..wire.telemetry import Telemetry


@final
class Send(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """Put a result or a control message into a session's outbox. It may use the reserve."""

    session: str
    message: bytes


@final
class Deliver(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """Put a call into its callee's outbox. Answer with `Hub.undelivered` if the outbox is full."""

    session: str
    message: bytes
    invocation_id: str


class HangUp(msgspec.Struct, frozen=True, gc=False):
    """Close a session's link with this close code."""

    session: str
    code: int
    reason: str


class SealPipe(msgspec.Struct, frozen=True, gc=False):
    """Put the clean end behind the waiting items of a channel, because its writer has closed."""

    channel: str


class EndChannel(msgspec.Struct, frozen=True):
    """Report a channel's outcome to its attached ends and drop it. Break its pipe unless it completed."""

    channel: str
    outcome: Outcome
    reason: str
    code: str | None = None
    created_at: float = 0.0
    traceparent: str | None = None
    """The traceparent of the call that created the channel (clause C7.3)."""
    used_by: tuple[str, ...] = ()
    """The traceparents of the calls that used it."""
    sessions: dict[str, str] = msgspec.field(default_factory=dict)
    """The session ids of its `owner`, `writer` and `reader`, where there is one."""
    facts: ChannelFacts | None = None
    """Its facts, where the channel belongs to a trace that is recorded."""


class ReleaseEnds(msgspec.Struct, frozen=True):
    """End the ends that a session held of channels at other engines, because the session has ended."""

    session: str
    reason: str


class Log(msgspec.Struct, frozen=True):
    """Write a log line. `fields` are the ids of its session, function, channel and so on."""

    level: int
    message: str
    fields: dict[str, str]
    peer_controlled: bool = False
    """Whether a worker can cause the line as often as it likes. Such lines have a rate limit of their own."""
    error: Exception | None = None
    """An exception of the engine's own code. Its traceback is logged."""
    line: LogLine | None = None
    """The line as the worker wrote it, where it is a worker's own line."""


class CallEnded(msgspec.Struct, frozen=True):
    """Tell the recorder of traces that a call has ended."""

    call: CallFacts


class PassTelemetry(msgspec.Struct, frozen=True):
    """Pass on a session's message of telemetry, with its four letters, as it came."""

    session: str
    kind: Telemetry
    message: bytes | bytearray


class AskUnreadInput(msgspec.Struct, frozen=True):
    """Find out whether a session's link holds unread input. Answer with `Hub.unread_input_known`."""

    session: str


class AskSignOfLife(msgspec.Struct, frozen=True):
    """Ping a session at once. Answer with `Hub.sign_of_life_known` when a byte came, or after `seconds` without one."""

    session: str
    seconds: float


class AskChannelIo(msgspec.Struct, frozen=True):
    """Read the I/O statistics of all open channels. Answer with `Hub.channel_io_known`."""

    question: int


class AskStatistics(msgspec.Struct, frozen=True):
    """Count the objects that the engine holds. Answer with `Hub.statistics_known`."""

    question: int


class AskRecording(msgspec.Struct, frozen=True):
    """Save the last inputs into the writing end of a channel. Answer with `Hub.recording_known` when that has begun."""

    question: int
    writer: Ref
    last_seconds: float | None


# The shell matches this union exhaustively, so a new effect has to be added here and there.
Effect: TypeAlias = (
    Send
    | Deliver
    | HangUp
    | SealPipe
    | EndChannel
    | ReleaseEnds
    | Log
    | CallEnded
    | PassTelemetry
    | AskUnreadInput
    | AskSignOfLife
    | AskChannelIo
    | AskStatistics
    | AskRecording
)
Effects: TypeAlias = list[Effect]
