"""The messages of a worker's link, one class a type.

Payloads (`data`, `result`, `error`, `metadata`, schemas, configurations) are `Raw`: bytes that are passed on as they
came and parsed only by whom they are for. An empty Raw is an absent field; `null` is `Raw(b"null")`: the two stay apart.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from .bounds import Description, InvocationId, Name, Trace

ABSENT: Final = Raw()


class _Message(msgspec.Struct, tag_field="type", omit_defaults=True):
    """What all messages share: unknown fields are ignored, absent ones omitted."""


class Action(msgspec.Struct, omit_defaults=True, frozen=True):
    """How a call is to be made: `void` (no answer) or `enqueue` (through `queue`)."""

    type: str
    queue: Name | None = None


class WireError(msgspec.Struct, omit_defaults=True, frozen=True):
    """An error as it travels. Code and message are always there and always text."""

    code: str
    message: str
    stacktrace: str | None = None


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
    """`owner_gone` is ours, and told to those who know us: nobody has withdrawn it, but who asked for it is gone."""

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
    """`by_engine` is ours, and told to those who know us: the error is the engine's own word, not the callee's."""

    invocation_id: InvocationId
    function_id: Name = ""
    result: Raw = ABSENT
    error: Raw = ABSENT
    traceparent: Trace | None = None
    baggage: Trace | None = None
    by_engine: bool = False


class Ping(_Message, tag="ping"):
    pass


class Pong(_Message, tag="pong"):
    pass


class WorkerRegistered(_Message, tag="workerregistered"):
    """The engine's first message. `channel_secret` is ours (clause C8.2) and opens nothing but `Iii-Session`."""

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
    """Ours: why, where it is not that another has it."""


class ErrorMessage(_Message, tag="error"):
    error: Raw = ABSENT


class CancelInvocation(_Message, tag="cancelinvocation"):
    """Ours (clause C8.3): the caller no longer wants the answer."""

    invocation_id: InvocationId
    reason: str = ""


class ChannelEnded(_Message, tag="channelended"):
    """Ours (clause C8.3): a channel that this session owns or holds an end of has its outcome."""

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
