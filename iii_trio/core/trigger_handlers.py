"""Handlers of messages about trigger types and bindings. The ledger is in `triggers.py`."""

from __future__ import annotations

import logging

from msgspec import Raw

from ..errors import CallError
from ..wire import (
    ABSENT,
    DEFAULT_NAMESPACE,
    ErrorCode,
    RegisterTrigger,
    RegisterTriggerType,
    TriggerRegistrationResult,
    UnregisterTrigger,
    UnregisterTriggerType,
    WireError,
    encode,
    is_given,
    to_json,
)
from . import engine_events
from .binding import III_PROVIDERS, BindingEvent, Provider, TriggerBinding
from .effects import Log, Send
from .peer_limits import why_unfit
from .quota import size_of, why_no_room, why_too_many_listeners
from .replies import BLANK_NAMESPACE, is_error, read_error
from .session import WorkerSession
from .state import State
from .triggers import settle


def register_type(state: State, session: WorkerSession, message: RegisterTriggerType, now: float) -> None:
    """Register a session's trigger type. The protocol has no answer, so a refusal is logged."""
    if message.namespace is not None and not message.namespace.strip():
        refuse_type(state, session, message, BLANK_NAMESPACE.format("namespace"))
        return
    namespace = message.namespace or session.namespace
    earlier = state.triggers.provider(namespace, message.id)
    if earlier is not None and earlier.session is None:
        refuse_type(state, session, message, "the engine itself does")
        return
    size = size_of(message)
    # A type that the session provides already is described again and takes no more room.
    own = earlier if earlier is not None and earlier.session is session else None
    held = len(session.trigger_types)
    limits = state.config.limits
    full = why_no_room(limits, session, "trigger types", held, limits.trigger_types_per_session, size, own)
    if full is not None:
        refuse_type(state, session, message, full)
        return
    provider = Provider(
        namespace,
        message.id,
        session,
        message.description,
        message.trigger_request_format,
        message.call_request_format,
        size,
    )
    state.triggers.provide(provider)


def refuse_type(state: State, session: WorkerSession, message: RegisterTriggerType, why: str) -> None:
    """Refuse a trigger type. The protocol has no answer, so it is logged."""
    text = f"{session.label} may not provide {message.id}: {why}"
    fields = {"session": session.id, "trigger_type": message.id}
    state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))


def unregister_type(state: State, session: WorkerSession, message: UnregisterTriggerType, now: float) -> None:
    """Remove a session's trigger type."""
    state.triggers.release((message.namespace or session.namespace, message.id), session)


def register(state: State, session: WorkerSession, message: RegisterTrigger, now: float) -> None:
    """Register a session's binding and offer it to the provider, now or when the provider comes."""
    for field in ("namespace", "trigger_namespace"):
        namespace = getattr(message, field)
        if namespace is not None and not namespace.strip():
            error = WireError(ErrorCode.INVALID_NAMESPACE, BLANK_NAMESPACE.format(field))
            refuse_binding(state, session, message, error)
            return
    size, earlier = size_of(message), state.triggers.get(message.id)
    # A binding of the session's own is replaced and takes no more room.
    own = earlier if earlier is not None and earlier.owner is session else None
    held = len(session.bindings)
    limits = state.config.limits
    full = why_no_room(limits, session, "bindings", held, limits.bindings_per_session, size, own)
    if full is None and message.trigger_type in engine_events.EVENT_TYPES and not session.in_process:
        is_replaced = own is not None and own.trigger_type == message.trigger_type
        held = state.triggers.count(session.id, message.trigger_type) - is_replaced
        full = why_too_many_listeners(limits, held)
    if full is not None:
        text = f"{session.label} may not bind {message.function_id} to {message.trigger_type}: {full}"
        refuse_binding(state, session, message, WireError(ErrorCode.REGISTRATION_LIMIT_REACHED, text))
        return
    binding = TriggerBinding(
        id=message.id,
        trigger_type=message.trigger_type,
        function_id=message.function_id,
        config=message.config,
        metadata=message.metadata if is_given(message.metadata) else ABSENT,
        namespace=message.namespace or DEFAULT_NAMESPACE,
        trigger_namespace=message.trigger_namespace,
        home=session.namespace,
        owner=session,
        size=size,
    )
    state.triggers.bind(binding)
    engine_events.bound(state, binding, now)
    warn_if_unprovided(state, session, binding)


def warn_if_unprovided(state: State, session: WorkerSession, binding: TriggerBinding) -> None:
    """Warn once if a binding waits for a trigger type that iii has built in and this engine has not.

    Other types come with their worker. These ones are expected of the engine, so nothing would ever fire.
    """
    provider = III_PROVIDERS.get(binding.trigger_type)
    warned = state.triggers.warned_types
    if provider is None or binding.trigger_type in warned or state.triggers.find_provider(binding) is not None:
        return
    warned.add(binding.trigger_type)
    text = (
        f"{session.label} bound {binding.function_id} to the trigger type '{binding.trigger_type}', which no worker "
        f"provides: the binding waits. In iii the worker '{provider}' provides it."
    )
    fields = {"session": session.id, "trigger_type": binding.trigger_type, "function": binding.function_id}
    state.emit(Log(logging.WARNING, text, fields))


def refuse_binding(state: State, session: WorkerSession, message: RegisterTrigger, error: WireError) -> None:
    """Refuse a binding to the session that asks for it."""
    result = TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, Raw(to_json(error)))
    state.emit(Send(session.id, encode(result)))
    text = f"a binding by {session.label} was refused: {error.message}"
    fields = {"session": session.id, "binding": message.id, "function": message.function_id}
    state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))


def unregister(state: State, session: WorkerSession, message: UnregisterTrigger, now: float) -> None:
    """End a binding. An unknown one has ended already."""
    binding = state.triggers.get(message.id)
    if binding is not None:
        # A binding that is passed on from another engine ends for the reason that it had there.
        passed_on = session.internal or session.relays
        state.triggers.withdraw(binding, owner_gone=passed_on and message.owner_gone)
        engine_events.unbound(state, binding.id, now)


def provider_answered(state: State, session: WorkerSession, message: TriggerRegistrationResult, now: float) -> None:
    """Accept or refuse a binding by the word of its provider. Other sessions are ignored."""
    binding = state.triggers.get(message.id)
    provider = binding.provider if binding is not None else None
    if binding is None or provider is None or provider.session is not session:
        return
    # The answer is about an earlier binding of the same id.
    if message.trigger_type != binding.trigger_type:
        return
    if not is_error(message.error):
        binding.state.advance(BindingEvent.ACCEPTED)
        settle(binding)
        return
    body, error = read_error(message.error)
    state.triggers.refused(binding)
    fields = {
        "session": session.id, "binding": binding.id, "trigger_type": binding.trigger_type,
        "function": binding.function_id,
    }  # fmt: skip
    text = f"{session.label} refused the binding {binding.id} of {binding.function_id}: {body.decode(errors='replace')}"
    state.emit(Log(logging.WARNING, text, fields, peer_controlled=True))
    if binding.request is not None:
        # Only the provider knows the id yet, so a parked binding would be of no use.
        request, binding.request = binding.request, None
        state.triggers.withdraw(binding)
        engine_events.unbound(state, binding.id, now)
        request.fail(CallError(ErrorCode.TRIGGER_REGISTRATION_FAILED, f"{error.code}: {error.message}"))
        return
    if binding.owner is not None:
        result = encode(TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, Raw(body)))
        unfit = why_unfit(binding.owner, result)
        state.emit(Send(binding.owner.id, result if unfit is None else encode(binding.refusal(to_json(unfit)))))
