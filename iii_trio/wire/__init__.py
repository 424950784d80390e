"""Messages and their texts, without any input or output."""

from .bounds import (
    MAX_DEPTH,
    MAX_ENGINE_INPUT_BYTES,
    MAX_NAME,
    Description,
    Name,
    bad_input,
    check_engine_input,
    check_name,
)
from .caller import caller_field, with_caller_id
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
    RELAY,
    RELAY_NODE,
    RELAY_WORKER,
    Close,
    Direction,
    ErrorCode,
    Outcome,
    Rejection,
    join_reason,
    split_reason,
)
from .gate import nests_deeper, why_unreadable
from .json import JsonValue, from_json, to_json
from .messages import (
    ABSENT,
    NULL,
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
    is_given,
)
from .refs import PREFIX, Ref, attach_target, find_refs, is_ref, read_attach_target

__all__ = [
    "ABSENT", "CLEAN_CLOSES", "CLOSE_OF", "DEFAULT_NAMESPACE", "DEFAULT_PORT", "FEATURE", "GIVEN_UP", "LARGE_MESSAGES",
    "LEFT", "MAX_DEPTH", "MAX_ENGINE_INPUT_BYTES", "MAX_MESSAGE_BYTES", "MAX_NAME", "NULL", "OUTCOME_OF", "PREFIX",
    "RELAY", "RELAY_NODE", "RELAY_WORKER",
    "Action", "CancelInvocation", "ChannelEnded", "Close", "Description", "Direction", "ErrorCode", "ErrorMessage",
    "InvocationResult", "InvokeFunction", "JsonValue", "Message", "Name", "Outcome", "Ping", "Pong", "Reattach", "Ref",
    "RegisterFunction", "RegisterService", "RegisterTrigger", "RegisterTriggerType", "RegistrationRejected",
    "Rejection", "TriggerRegistrationResult", "Undecodable", "UnregisterFunction", "UnregisterTrigger",
    "UnregisterTriggerType", "WireError", "WorkerRegistered", "attach_target", "bad_input", "caller_field",
    "check_engine_input", "check_name", "decode", "encode", "find_refs", "from_json", "is_given", "is_ref",
    "join_reason", "nests_deeper", "read_attach_target", "split_reason", "to_json", "why_unreadable", "with_caller_id",
]  # fmt: skip
