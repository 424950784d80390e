"""Handler of messages that cannot be read. The worker that waits for an answer is told, and nothing of them goes on."""

from __future__ import annotations

import logging

from msgspec import Raw

from ..wire import (
    ErrorCode,
    InvokeFunction,
    RegisterTrigger,
    RegisterTriggerType,
    TriggerRegistrationResult,
    Undecodable,
    WireError,
    bad_input,
    to_json,
)
from .calls import fail_unreadable
from .effects import Log
from .registration import reject_function
from .request import Request
from .session import WorkerSession
from .state import State
from .trigger_handlers import provider_answered, refuse_binding, refuse_type


def refuse_unreadable(state: State, session: WorkerSession, message: Undecodable, now: float) -> None:
    """Log a message that cannot be read, and answer it as far as its names can be made out."""
    problem, invocation_id, names = message.problem, message.invocation_id, message.names
    text = f"{session.label} sent a message that cannot be read: {problem}"
    state.emit(Log(logging.WARNING, text, {"session": session.id}, peer_controlled=True))
    id_, function_id, trigger_type = names.get("id", ""), message.function_id, names.get("trigger_type", "")
    match message.type:
        case "invokefunction" if invocation_id is not None:
            call = InvokeFunction(function_id, invocation_id)
            Request(session, call, invocation_id, state.emit, now).fail(bad_input(function_id, problem))
        case "invocationresult":
            waiting = state.calls.given_to(session).get(invocation_id or "")
            if waiting is not None:
                fail_unreadable(state, waiting, f"The result cannot be read: {problem}")
        case "registerfunction" if id_:
            reject_function(state, session, id_, "", f"its registration cannot be read: {problem}")
        case "registertrigger" if id_:
            error = WireError(ErrorCode.DESERIALIZATION_ERROR, f"The binding cannot be read: {problem}")
            refuse_binding(state, session, RegisterTrigger(id_, trigger_type, function_id), error)
        case "registertriggertype" if id_:
            refuse_type(state, session, RegisterTriggerType(id_), f"its registration cannot be read: {problem}")
        case "triggerregistrationresult" if id_:
            # The provider's answer is lost, so the worker that asked for the binding is told of a refusal.
            error = WireError(ErrorCode.SERIALIZATION_ERROR, f"The provider's answer cannot be read: {problem}")
            result = TriggerRegistrationResult(id_, trigger_type, function_id, Raw(to_json(error)))
            provider_answered(state, session, result, now)
        case _:
            # No other message has an answer in the protocol.
            pass
