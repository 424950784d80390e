"""Contain errors of the engine's own code. They are logged once, and the worker that waits is answered.

A fault ends at most the message that led to it. It never reaches the session, and never the engine.
"""

from __future__ import annotations

import logging

from ..errors import CallError
from ..wire import (
    ErrorCode,
    InvocationResult,
    RegisterFunction,
    RegisterTrigger,
    TriggerRegistrationResult,
    WireError,
)
from . import calls
from .effects import Log
from .registration import reject_function
from .request import Request
from .session import WorkerSession
from .state import State
from .trigger_handlers import refuse_binding


def log_fault(state: State, session: WorkerSession, activity: str, error: Exception, **ids: str) -> None:
    """Log an error of the engine's own code with its traceback."""
    fields = {"session": session.id, **{key: value for key, value in ids.items() if value}}
    text = f"the engine failed at {activity} by {session.label}: {type(error).__name__}"
    state.emit(Log(logging.ERROR, text, fields, peer_controlled=True, error=error))


def fail_request(state: State, request: Request, error: Exception) -> None:
    """Answer a request of an engine function that raised an unexpected exception."""
    function_id = request.message.function_id
    log_fault(state, request.session, f"a call of {function_id}", error, function=function_id)
    request.fail(CallError(ErrorCode.INVOCATION_ERROR, _sentence(f"answer {function_id}", error)))


def contain(state: State, session: WorkerSession, message: object, error: Exception) -> None:
    """Log an unexpected exception of a message handler. Answer the worker that waits because of the message."""
    log_fault(state, session, f"a message ({type(message).__name__})", error)
    match message:
        case InvocationResult():
            # The caller still waits, because a call leaves the ledger only after its answer was built.
            call = state.calls.given_to(session).get(message.invocation_id)
            if call is not None:
                calls.fail_unreadable(state, call, _sentence("pass the result on", error))
        case TriggerRegistrationResult():
            # The request for a durable binding must not wait for a refusal that was lost here.
            binding = state.triggers.get(message.id)
            if binding is not None and binding.provider is not None and binding.provider.session is session:
                request, binding.request = binding.request, None
                if request is not None:
                    text = _sentence("read the provider's answer", error)
                    request.fail(CallError(ErrorCode.TRIGGER_REGISTRATION_FAILED, text))
        case RegisterTrigger():
            text = _sentence("register the trigger", error)
            refuse_binding(state, session, message, WireError(ErrorCode.INVOCATION_ERROR, text))
        case RegisterFunction():
            reject_function(state, session, message.id, "", _sentence("register the function", error))
        case _:
            # No other message has an answer in the protocol.
            pass


def _sentence(activity: str, error: Exception) -> str:
    return f"The engine could not {activity} because of an error of its own ({type(error).__name__}). See its log."
