"""The words and numbers of the wire: outcomes, close codes, error codes."""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import Final


class Direction(StrEnum):
    """Which end of a channel a ref names."""

    READ = "read"
    WRITE = "write"


class Outcome(StrEnum):
    """How a channel ended (clause C4.7: exactly one each)."""

    COMPLETED = "completed"
    ABORTED = "aborted"
    WRITER_LOST = "writer_lost"
    READER_CANCELLED = "reader_cancelled"
    READER_LOST = "reader_lost"
    OWNER_LOST = "owner_lost"
    EXPIRED = "expired"
    ENGINE_CLOSED = "engine_closed"


class Close(IntEnum):
    """WebSocket close codes: RFC 6455 section 7.4.1, and ours in the private range (clause C8.5)."""

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
    """Codes of errors that the engine or our worker itself puts on the wire."""

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
    ENQUEUE_ERROR = "enqueue_error"
    TRIGGER_REGISTRATION_FAILED = "trigger_registration_failed"
    TRIGGER_TYPE_NOT_FOUND = "trigger_type_not_found"
    ENGINE_DRAINING = "engine_draining"


class Rejection(StrEnum):
    """Codes of `registrationrejected`: SDKs take any other code as fatal, so there are no others."""

    FUNCTION = "FUNCTION_NAMESPACE_CONFLICT"
    WORKER = "WORKER_NAMESPACE_CONFLICT"


FEATURE: Final = "iii-trio.v1"
"""What our engine and our workers announce (clause C8.1)."""
LARGE_MESSAGES: Final = "large-messages.v1"
"""What the Python SDK announces from 0.25: JSON messages above 1 MiB are safe to send to it."""
LEFT: Final = "the worker left"
GIVEN_UP: Final = "given up"
"""How the cause of `invocation_stopped` begins where the call cannot be to blame: its worker left on purpose, or the call
made room for newer ones. A worker's own text never stands at the beginning."""
DEFAULT_NAMESPACE: Final = "default"
DEFAULT_PORT: Final = 49134
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

_CODE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.:-]{0,63}): (.*)", re.DOTALL)


def join_reason(reason: str, code: str | None) -> str:
    """A reason with its error code, as the text of a Close frame carries both."""
    return f"{code}: {reason}" if code else reason


def split_reason(text: str) -> tuple[str, str | None]:
    """The reason and the error code, if there is one, in the text of a Close frame."""
    match = _CODE.fullmatch(text)
    return (match[2], match[1]) if match else (text, None)
