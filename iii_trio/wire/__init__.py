"""Text ⇄ messages. Pure."""

from .codec import Undecodable, decode, encode
from .codes import (
    CLEAN_CLOSES,
    CLOSE_OF,
    DEFAULT_NAMESPACE,
    DEFAULT_PORT,
    FEATURE,
    GIVEN_UP,
    LARGE_MESSAGES,
    LEFT,
    MAX_MESSAGE_BYTES,
    OUTCOME_OF,
    Close,
    Direction,
    ErrorCode,
    Outcome,
    Rejection,
    join_reason,
    split_reason,
)
from .json import JsonValue, from_json, to_json
from .messages import (
    ABSENT,
    Action,
    CancelInvocation,
    ChannelEnded,
    ErrorMessage,
    InvocationResult,
    InvokeFunction,
    Message,
    Ping,
    Pong,
    Reattach,
    RegisterFunction,
    RegisterService,
    RegisterTrigger,
    RegisterTriggerType,
    RegistrationRejected,
    TriggerRegistrationResult,
    UnregisterFunction,
    UnregisterTrigger,
    UnregisterTriggerType,
    WireError,
    WorkerRegistered,
)
from .refs import PREFIX, Ref, attach_target, find_refs, is_ref, read_attach_target

__all__ = [
    "ABSENT", "CLEAN_CLOSES", "CLOSE_OF", "DEFAULT_NAMESPACE", "DEFAULT_PORT", "FEATURE",
    "GIVEN_UP", "LARGE_MESSAGES",
    "LEFT",
    "MAX_MESSAGE_BYTES", "OUTCOME_OF", "PREFIX", "Action", "CancelInvocation", "ChannelEnded", "Close", "Direction",
    "ErrorCode", "ErrorMessage", "InvocationResult", "InvokeFunction", "JsonValue", "Message", "Outcome", "Ping", "Pong",
    "Reattach", "Ref", "RegisterFunction", "RegisterService", "RegisterTrigger", "RegisterTriggerType",
    "RegistrationRejected", "Rejection", "TriggerRegistrationResult", "Undecodable", "UnregisterFunction",
    "UnregisterTrigger", "UnregisterTriggerType", "WireError", "WorkerRegistered", "attach_target", "decode", "encode",
    "find_refs", "from_json", "is_ref", "join_reason", "read_attach_target", "split_reason", "to_json",
]  # fmt: skip
