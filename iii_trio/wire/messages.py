"""The messages of a worker's link, with a class for each type.

Payloads (`data`, `result`, `error`, `metadata`, schemas, configurations) are `Raw`, which are bytes that are passed on as
they came. An empty Raw is an absent field, and `Raw(b"null")` is null.
"""

# Annotations are not texts here, because a start reads them and would compile each text.

from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from .bounds import Description, InvocationId, Name, Trace

ABSENT: Final = Raw()
NULL: Final = Raw(b"null")


def is_given(payload: Raw) -> bool:
    """Return whether a payload is neither absent nor null."""
    return bytes(payload) not in (b"", b"null")


class _Message(msgspec.Struct, tag_field="type", omit_defaults=True):
    """The base of all messages. Unknown fields are ignored, and absent ones are omitted."""


class Action(msgspec.Struct, omit_defaults=True, frozen=True):
    """The kind of a call, which is `void` (without an answer) or `enqueue` (through `queue`)."""

    type: str
    queue: Name | None = None
    options: Raw = ABSENT
    """Options of the job, as an object. Only for queues that have the extensions."""


class WireError(msgspec.Struct, omit_defaults=True, frozen=True):
    """An error on the wire. Its code and its message are always texts."""

    code: str
    message: str
    stacktrace: str | None = None


# --- registrations


class RegisterTriggerType(_Message, tag="registertriggertype"):
    id: Name
    description: Description = ""
    trigger_request_format: Raw = ABSENT
    call_request_format: Raw = ABSENT
    namespace: Name | None = None


class UnregisterTriggerType(_Message, tag="unregistertriggertype"):
    id: Name
    namespace: Name | None = None


class RegisterFunction(_Message, tag="registerfunction"):
    id: Name
    description: Description | None = None
    request_format: Raw = ABSENT
    response_format: Raw = ABSENT
    metadata: Raw = ABSENT
    invocation: Raw = ABSENT


class UnregisterFunction(_Message, tag="unregisterfunction"):
    id: Name


class RegisterTrigger(_Message, tag="registertrigger"):
    id: Name
    trigger_type: Name
    function_id: Name
    config: Raw = ABSENT
    metadata: Raw = ABSENT
    namespace: Name | None = None
    trigger_namespace: Name | None = None


class UnregisterTrigger(_Message, tag="unregistertrigger"):
    """The end of a binding.

    `owner_gone` is an extension. It says that the binding was not withdrawn, but that its worker is gone.
    """

    id: Name
    trigger_type: Name | None = None
    owner_gone: bool = False


class TriggerRegistrationResult(_Message, tag="triggerregistrationresult"):
    id: Name
    trigger_type: Name
    function_id: Name
    error: Raw = ABSENT


class RegisterService(_Message, tag="registerservice"):
    id: Name


# --- calls


class InvokeFunction(_Message, tag="invokefunction"):
    function_id: Name
    invocation_id: InvocationId | None = None
    data: Raw = ABSENT
    traceparent: Trace | None = None
    baggage: Trace | None = None
    action: Action | None = None
    metadata: Raw = ABSENT
    namespace: Name | None = None


class InvocationResult(_Message, tag="invocationresult"):
    """The answer of a call.

    `by_engine` is an extension. It says that the error is the engine's and not the callee's. So is `waited_us`, how long the
    call waited at the callee before its handler started, in microseconds.
    """

    invocation_id: InvocationId
    function_id: Name = ""
    result: Raw = ABSENT
    error: Raw = ABSENT
    traceparent: Trace | None = None
    baggage: Trace | None = None
    by_engine: bool = False
    waited_us: int | None = None


# --- the link itself


class Ping(_Message, tag="ping"):
    pass


class Pong(_Message, tag="pong"):
    pass


class WorkerRegistered(_Message, tag="workerregistered"):
    """The engine's first message. `channel_secret` is an extension for the header `Iii-Session` (clause C8.2)."""

    worker_id: str
    reattach_token: str | None = None
    features: tuple[str, ...] = ()
    channel_secret: str | None = None


class Reattach(_Message, tag="reattach"):
    previous_worker_id: str
    reattach_token: str | None = None


class RegistrationRejected(_Message, tag="registrationrejected"):
    code: str
    namespace: str
    owner_worker_id: str
    function_id: Name | None = None
    worker_name: Name | None = None
    reason: str | None = None
    """An extension, for reasons other than that another worker has the name."""


class ErrorMessage(_Message, tag="error"):
    error: Raw = ABSENT


class CancelInvocation(_Message, tag="cancelinvocation"):
    """The caller no longer wants the answer. This is an extension (clause C8.3)."""

    invocation_id: InvocationId
    reason: str = ""


# --- channels


class ChannelEnded(_Message, tag="channelended"):
    """A channel of this session has its outcome. This is an extension (clause C8.3).

    The session owns the channel or holds an end of it.
    """

    channel_id: str
    outcome: str
    reason: str = ""
    code: str | None = None


Message: TypeAlias = (
    RegisterTriggerType
    | UnregisterTriggerType
    | RegisterFunction
    | UnregisterFunction
    | RegisterTrigger
    | UnregisterTrigger
    | TriggerRegistrationResult
    | RegisterService
    | InvokeFunction
    | InvocationResult
    | Ping
    | Pong
    | WorkerRegistered
    | Reattach
    | RegistrationRejected
    | ErrorMessage
    | CancelInvocation
    | ChannelEnded
)
