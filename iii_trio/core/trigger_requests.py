"""What sessions say of trigger types and bindings, and what becomes of it in the ledger (`triggers.py`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

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
    from_json,
    to_json,
)
from .binding import Binding, BindingEvent, Provider
from .calls import BLANK_NAMESPACE, is_error, well_formed
from .effects import Effects, Log, Send
from .quota import no_room, size_of
from .session import Session
from .triggers import settle
from .unfit import why_unfit

if TYPE_CHECKING:
    from .hub import Hub


def register_type(hub: Hub, session: Session, message: RegisterTriggerType, now: float) -> Effects:
    """A session provides a trigger type. There is no answer, ever: what is wrong is logged."""
    if message.namespace is not None and not message.namespace.strip():
        return _refuse_type(session, message, BLANK_NAMESPACE.format("namespace"))
    namespace = message.namespace or session.namespace
    there = hub.triggers.provider(namespace, message.id)
    if there is not None and there.session is None:
        return _refuse_type(session, message, "the engine itself does")
    size, mine = size_of(message), there is not None and there.session is session
    held = len(session.trigger_types) - mine
    grows = size - (there.size if mine and there is not None else 0)
    full = no_room(hub, session, "trigger types", held, hub.config.limits.trigger_types_per_session, grows)
    if full is not None:
        return _refuse_type(session, message, full)
    provider = Provider(
        namespace,
        message.id,
        session,
        message.description,
        message.trigger_request_format,
        message.call_request_format,
        size,
    )
    return hub.triggers.provide(provider)


def _refuse_type(session: Session, message: RegisterTriggerType, why: str) -> Effects:
    text = f"{session.label} may not provide {message.id}: {why}"
    return [Log(logging.WARNING, text, {"session": session.id, "trigger_type": message.id}, peer_controlled=True)]


def unregister_type(hub: Hub, session: Session, message: UnregisterTriggerType, now: float) -> Effects:
    """A session no longer provides a trigger type."""
    return hub.triggers.release((message.namespace or session.namespace, message.id), session)


def register(hub: Hub, session: Session, message: RegisterTrigger, now: float) -> Effects:
    """A session asks for a binding: its provider is told, now or when it comes."""
    for field in ("namespace", "trigger_namespace"):
        given = getattr(message, field)
        if given is not None and not given.strip():
            return _refuse_binding(session, message, ErrorCode.INVALID_NAMESPACE, BLANK_NAMESPACE.format(field))
    size, before = size_of(message), hub.triggers.get(message.id)
    mine = before is not None and before.owner is session
    held = len(session.bindings) - mine
    grows = size - (before.size if mine and before is not None else 0)
    full = no_room(hub, session, "bindings", held, hub.config.limits.bindings_per_session, grows)
    if full is not None:
        text = f"{session.label} may not bind {message.function_id} to {message.trigger_type}: {full}"
        return _refuse_binding(session, message, ErrorCode.REGISTRATION_LIMIT_REACHED, text)
    binding = Binding(
        id=message.id,
        trigger_type=message.trigger_type,
        function_id=message.function_id,
        config=message.config,
        metadata=ABSENT if bytes(message.metadata) == b"null" else message.metadata,
        namespace=message.namespace or DEFAULT_NAMESPACE,
        trigger_namespace=message.trigger_namespace,
        home=session.namespace,
        owner=session,
        size=size,
    )
    return hub.triggers.bind(binding)


def _refuse_binding(session: Session, message: RegisterTrigger, code: str, text: str) -> Effects:
    error = Raw(to_json(WireError(code, text)))
    result = TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, error)
    about = {"session": session.id, "binding": message.id, "function": message.function_id}
    return [
        Send(session.id, encode(result)),
        Log(logging.WARNING, f"a binding by {session.label} was refused: {text}", about, peer_controlled=True),
    ]


def unregister(hub: Hub, session: Session, message: UnregisterTrigger, now: float) -> Effects:
    """A session ends a binding. An unknown one has ended."""
    binding = hub.triggers.get(message.id)
    return hub.triggers.withdraw(binding) if binding is not None else []


def provider_answered(hub: Hub, session: Session, message: TriggerRegistrationResult, now: float) -> Effects:
    """A provider says whether it takes a binding. From anybody else it means nothing."""
    binding = hub.triggers.get(message.id)
    provider = binding.provider if binding is not None else None
    if binding is None or provider is None or provider.session is not session:
        return []
    if message.trigger_type != binding.trigger_type:
        return []
    if not is_error(message.error):
        binding.state.advance(BindingEvent.ACCEPTED)
        return settle(binding)
    body = well_formed(bytes(message.error))
    hub.triggers.refused(binding)
    about = {
        "session": session.id, "binding": binding.id, "trigger_type": binding.trigger_type,
        "function": binding.function_id,
    }  # fmt: skip
    text = f"{session.label} refused the binding {binding.id} of {binding.function_id}: {body.decode()}"
    effects: Effects = [Log(logging.WARNING, text, about, peer_controlled=True)]
    if binding.answer is not None:  # nobody but the provider knows its id yet: there is nothing to park it for
        answer, binding.answer = binding.answer, None
        effects += hub.triggers.withdraw(binding)
        error = from_json(body)
        assert isinstance(error, dict)
        text = f"{error['code']}: {error['message']}"
        return effects + answer.fail(CallError(ErrorCode.TRIGGER_REGISTRATION_FAILED, text))
    if binding.owner is not None:
        told = encode(TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, Raw(body)))
        unfit = why_unfit(binding.owner, told)
        if unfit is not None:
            told = encode(binding.refusal(to_json(unfit)))
        effects.append(Send(binding.owner.id, told))
    return effects
