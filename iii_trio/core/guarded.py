"""Registrations of guarded sessions: permissions, hooks and the prefix of function ids (protocol, sections 8.4 and 8.5).

A hook is a function of a trusted worker. The session's later messages wait until it has answered, so that their order
stays. A hook that fails, or does not answer in time, ends only the registration it was asked about.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from ..wire import (
    DEFAULT_NAMESPACE,
    FEATURE,
    MAX_NAME,
    ErrorCode,
    JsonValue,
    Message,
    RegisterFunction,
    RegisterTrigger,
    RegisterTriggerType,
    UnregisterFunction,
    UnregisterTrigger,
    WireError,
    to_json,
)
from . import registration, trigger_handlers
from .access import Access
from .effects import Log
from .engine_calls import EngineAnswer
from .session import WorkerSession
from .state import State
from .visibility import may_call
from .waiting import ask_worker

Fields: TypeAlias = dict[str, JsonValue]
_Finish: TypeAlias = Callable[[Fields, float], None]


def register(state: State, session: WorkerSession, access: Access, message: Message, now: float) -> bool:
    """Apply a registration of a guarded session. Return False if no rule is about messages of its type."""
    match message:
        case RegisterFunction():
            _register_function(state, session, access, message, now)
        case UnregisterFunction():
            registered = session.registered_ids.pop(message.id, message.id)
            registration.unregister_function(state, session, UnregisterFunction(registered), now)
        case RegisterTrigger():
            _register_trigger(state, session, access, message, now)
        case UnregisterTrigger():
            return not _owns(state, session, message.id)
        case RegisterTriggerType():
            _register_type(state, session, access, message, now)
        case _:
            return False
    return True


def _owns(state: State, session: WorkerSession, binding_id: str) -> bool:
    """Return whether the session may replace or end this binding. One that does not exist is nobody's."""
    binding = state.triggers.get(binding_id)
    if binding is None or binding.owner is session:
        return True
    _log(state, session, f"may not touch the binding {binding_id}: it belongs to another worker")
    return False


def _log(state: State, session: WorkerSession, text: str) -> None:
    state.emit(Log(logging.WARNING, f"{session.label} {text}", {"session": session.id}, peer_controlled=True))


# --- functions


def _register_function(
    state: State, session: WorkerSession, access: Access, message: RegisterFunction, now: float
) -> None:
    problem = None
    if not access.grants.allow_function_registration:
        problem = "its auth function allows no registration of functions"
    elif not access.allows_namespace(session.namespace):
        problem = f"its auth function does not allow the namespace '{session.namespace}'"
    if problem is not None:
        _refuse_function(state, session, message, problem)
        return
    payload: dict[str, object] = {
        "function_id": message.id,
        "description": message.description,
        "metadata": message.metadata or None,
        "namespace": session.namespace,
        "context": access.grants.context,
    }

    def finish(fields: Fields, now: float) -> None:
        renamed = _text(fields, "function_id", message.id)
        registered = access.prefixed(renamed)
        if len(registered) > MAX_NAME:
            _refuse_function(state, session, message, f"its id would be longer than {MAX_NAME} characters")
            return
        if access.guards_with(registered):
            _refuse_function(state, session, message, f"{registered} is a function of the listener's access rules")
            return
        changed = msgspec.structs.replace(
            message,
            id=registered,
            description=_text(fields, "description", message.description),
            metadata=_json(fields, "metadata", message.metadata),
        )
        local_id = None if registered == message.id else message.id
        registration.register_function(state, session, changed, now, local_id)
        if local_id is not None:
            session.registered_ids[local_id] = registered

    hook = access.rules.on_function_registration_function_id if access.rules is not None else None
    refuse = functools.partial(_refuse_function, state, session, message)
    _run_hook(state, session, hook, payload, now, finish, refuse)


def _refuse_function(state: State, session: WorkerSession, message: RegisterFunction, why: str) -> None:
    # The protocol drops the registration silently, and only our workers are told.
    if FEATURE in session.features:
        registration.reject_function(state, session, message.id, "", why)
    else:
        _log(state, session, f"may not register {message.id}: {why}")


# --- bindings


def _register_trigger(
    state: State, session: WorkerSession, access: Access, message: RegisterTrigger, now: float
) -> None:
    if not access.allows_trigger_type(message.trigger_type):
        _refuse_binding(state, session, message, f"its auth function does not allow {message.trigger_type}")
        return
    payload: dict[str, object] = {
        "trigger_id": message.id,
        "trigger_type": message.trigger_type,
        "function_id": message.function_id,
        "config": message.config or None,
        "metadata": message.metadata or None,
        "namespace": message.namespace or DEFAULT_NAMESPACE,
        "context": access.grants.context,
    }

    def finish(fields: Fields, now: float) -> None:
        changed = msgspec.structs.replace(
            message,
            id=_text(fields, "trigger_id", message.id),
            trigger_type=_text(fields, "trigger_type", message.trigger_type),
            function_id=access.prefixed(_text(fields, "function_id", message.function_id)),
            config=_json(fields, "config", message.config),
        )
        namespace = changed.namespace or DEFAULT_NAMESPACE
        if max(map(len, (changed.id, changed.trigger_type, changed.function_id))) > MAX_NAME:
            _refuse_binding(state, session, message, f"a name of it would be longer than {MAX_NAME} characters")
        elif not may_call(state, access, namespace, changed.function_id):
            text = f"function '{changed.function_id}' not allowed in namespace '{namespace}'"
            trigger_handlers.refuse_binding(state, session, message, WireError(ErrorCode.FORBIDDEN, text))
        elif _owns(state, session, changed.id):
            trigger_handlers.register(state, session, changed, now)

    hook = access.rules.on_trigger_registration_function_id if access.rules is not None else None
    refuse = functools.partial(_refuse_binding, state, session, message)
    _run_hook(state, session, hook, payload, now, finish, refuse)


def _refuse_binding(state: State, session: WorkerSession, message: RegisterTrigger, why: str) -> None:
    # The protocol drops the binding silently, and only our workers are told.
    text = f"may not bind {message.function_id} to {message.trigger_type}: {why}"
    if FEATURE in session.features:
        error = WireError(ErrorCode.FORBIDDEN, f"{session.label} {text}")
        trigger_handlers.refuse_binding(state, session, message, error)
    else:
        _log(state, session, text)


# --- trigger types


def _register_type(
    state: State, session: WorkerSession, access: Access, message: RegisterTriggerType, now: float
) -> None:
    namespace = message.namespace or session.namespace
    problem = None
    if not access.grants.allow_trigger_type_registration:
        problem = "its auth function allows no registration of trigger types"
    elif not access.allows_namespace(namespace):
        problem = f"its auth function does not allow the namespace '{namespace}'"
    if problem is not None:
        trigger_handlers.refuse_type(state, session, message, problem)
        return
    payload: dict[str, object] = {
        "trigger_type_id": message.id,
        "description": message.description,
        "context": access.grants.context,
    }

    def finish(fields: Fields, now: float) -> None:
        changed = msgspec.structs.replace(
            message,
            id=_text(fields, "trigger_type_id", message.id)[:MAX_NAME],
            description=_text(fields, "description", message.description),
        )
        trigger_handlers.register_type(state, session, changed, now)

    hook = access.rules.on_trigger_type_registration_function_id if access.rules is not None else None
    refuse = functools.partial(trigger_handlers.refuse_type, state, session, message)
    _run_hook(state, session, hook, payload, now, finish, refuse)


# --- hooks


def _run_hook(
    state: State,
    session: WorkerSession,
    hook: str | None,
    payload: dict[str, object],
    now: float,
    finish: _Finish,
    refuse: Callable[[str], None],
) -> None:
    """Ask the hook about a registration, if there is one, and finish the registration with the fields that it returns."""
    if hook is None:
        finish({}, now)
        return

    def answered(answer: EngineAnswer, now: float) -> None:
        if answer.error is not None:
            refuse(f"the hook {hook} failed: {answer.error.message}")
            return
        try:
            fields = answer.value()
        except ValueError as problem:
            refuse(f"the hook {hook} returned what cannot be read: {problem}")
            return
        if not isinstance(fields, dict):
            refuse(f"the hook {hook} returned no object")
            return
        finish(fields, now)

    ask_worker(state, session, hook, payload, now, answered)


def _text(fields: Fields, key: str, otherwise: str | None) -> Any:
    """Return a text that the hook returned. Other values change nothing."""
    value = fields.get(key)
    return value if isinstance(value, str) else otherwise


def _json(fields: Fields, key: str, otherwise: Raw) -> Raw:
    """Return a value that the hook returned. Null changes nothing, because SDKs write it for what was not set."""
    value = fields.get(key)
    return otherwise if value is None else Raw(to_json(value))
