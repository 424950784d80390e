"""Outcomes, close codes and error codes of the wire."""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import Final


class Direction(StrEnum):
    """The end of a channel that a ref names."""

    READ = "read"
    WRITE = "write"


class Outcome(StrEnum):
    """The way in which a channel ended. Each channel has exactly one (clause C4.7)."""

    COMPLETED = "completed"
    ABORTED = "aborted"
    WRITER_LOST = "writer_lost"
    READER_CANCELLED = "reader_cancelled"
    READER_LOST = "reader_lost"
    OWNER_LOST = "owner_lost"
    EXPIRED = "expired"
    ENGINE_CLOSED = "engine_closed"


class Close(IntEnum):
    """WebSocket close codes of RFC 6455 section 7.4.1, and ours in the private range (clause C8.5)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_STATUS_RCVD = 1005
    ABNORMAL = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    ABORTED = 4001
    WRITER_LOST = 4002
    READER_CANCELLED = 4003
    READER_LOST = 4004
    OWNER_LOST = 4005
    EXPIRED = 4006
    ENGINE_CLOSED = 4007
    EVICTED = 4010


CLOSE_OF: Final = {
    Outcome.COMPLETED: Close.NORMAL,
    Outcome.ABORTED: Close.ABORTED,
    Outcome.WRITER_LOST: Close.WRITER_LOST,
    Outcome.READER_CANCELLED: Close.READER_CANCELLED,
    Outcome.READER_LOST: Close.READER_LOST,
    Outcome.OWNER_LOST: Close.OWNER_LOST,
    Outcome.EXPIRED: Close.EXPIRED,
    Outcome.ENGINE_CLOSED: Close.ENGINE_CLOSED,
}
OUTCOME_OF: Final = {int(code): outcome for outcome, code in CLOSE_OF.items()}
CLEAN_CLOSES: Final = frozenset({Close.NORMAL, Close.NO_STATUS_RCVD})
"""The close codes by which a writer says that its stream is whole (clause C4.1)."""


class ErrorCode(StrEnum):
    """Codes of errors that the engine and our worker send themselves."""

    FUNCTION_NOT_FOUND = "function_not_found"
    FUNCTION_NOT_INVOKABLE = "function_not_invokable"
    INVOCATION_FAILED = "invocation_failed"
    INVOCATION_STOPPED = "invocation_stopped"
    INVOCATION_CANCELLED = "invocation_cancelled"
    INVOCATION_ERROR = "invocation_error"
    CHANNEL_SEND_FAILED = "channel_send_failed"
    CHANNEL_LIMIT_REACHED = "channel_limit_reached"
    REGISTRATION_LIMIT_REACHED = "registration_limit_reached"
    SERIALIZATION_ERROR = "serialization_error"
    DESERIALIZATION_ERROR = "deserialization_error"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    INVALID_NAMESPACE = "INVALID_NAMESPACE"
    INVALID_ARGUMENTS = "INVALID_ARGUMENTS"
    NOT_FOUND = "NOT_FOUND"
    FORBIDDEN = "FORBIDDEN"
    AUTH_ERROR = "AUTH_ERROR"
    ENQUEUE_ERROR = "enqueue_error"
    TRIGGER_REGISTRATION_FAILED = "trigger_registration_failed"
    TRIGGER_TYPE_NOT_FOUND = "trigger_type_not_found"
    ENGINE_DRAINING = "engine_draining"


class Rejection(StrEnum):
    """Codes of `registrationrejected`. There are no others, because SDKs take any other code as fatal."""

    FUNCTION = "FUNCTION_NAMESPACE_CONFLICT"
    WORKER = "WORKER_NAMESPACE_CONFLICT"


FEATURE: Final = "iii-trio.v1"
"""The feature that our engine and our workers announce (clause C8.1)."""
LARGE_MESSAGES: Final = "large-messages.v1"
"""The feature that the Python SDK announces from 0.25. JSON messages above 1 MiB are safe to send to it."""
RELAY: Final = "iii-trio.relay.v1"
"""The feature of a worker that passes calls on to another engine, or from one. Its calls keep their caller's id, and are
never given to another relay, so that no call goes in a circle."""
RELAY_NODE: Final = "iii-trio.node"
RELAY_WORKER: Final = "iii-trio.worker"
"""Keys in the metadata of a function that a relay registers: the engine and the worker that it belongs to."""
LEFT: Final = "the worker left"
GIVEN_UP: Final = "given up"
"""The first words of the cause of `invocation_stopped` if the call is not to blame, because its worker left on purpose or
it made room for newer calls. The text of a worker never stands there."""
REQUEST_OVER: Final = "the request is over"
"""The reason that the HTTP module gives for the ends of channels that a request did not use, or did not use up."""
DEFAULT_NAMESPACE: Final = "default"
DEFAULT_PORT: Final = 49134
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

_CODE: Final = r"(?s)([A-Za-z_][A-Za-z0-9_.:-]{0,63}): (.*)"


def join_reason(reason: str, code: str | None) -> str:
    """Join a reason and its error code into the text of a Close frame."""
    return f"{code}: {reason}" if code else reason


def split_reason(text: str) -> tuple[str, str | None]:
    """Split the text of a Close frame into the reason and the error code, or None."""
    match = re.fullmatch(_CODE, text) if ": " in text else None
    return (match[2], match[1]) if match else (text, None)
