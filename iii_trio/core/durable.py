"""Bindings that outlive whoever asked for them: `engine::register_trigger` and `engine::unregister_trigger`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from msgspec import Raw

from ..errors import CallError
from ..wire import ABSENT, DEFAULT_NAMESPACE, ErrorCode, JsonValue, to_json
from .binding import Binding, BindingState
from .calls import BLANK_NAMESPACE, read_input
from .later import Later
from .registry import Asked

if TYPE_CHECKING:
    from .hub import Hub

PROVIDER_SECONDS: Final = 10.0
"""How long a provider may take to refuse: with no word by then it has accepted."""


@attrs.frozen
class RegisterTriggerInput:
    """The payload of `engine::register_trigger`; `config` and `metadata` are any JSON, and read as they are."""

    trigger_type: str
    function_id: str
    trigger_namespace: str | None = None


def register_trigger(hub: Hub, asked: Asked) -> object:
    """`engine::register_trigger`: its id, once its provider has accepted it, or at once if there is none yet."""
    wanted = read_input("engine::register_trigger", asked, RegisterTriggerInput)
    hub.check_open()
    if wanted.trigger_namespace is not None and not wanted.trigger_namespace.strip():
        raise CallError(ErrorCode.INVALID_NAMESPACE, BLANK_NAMESPACE.format("trigger_namespace"))
    assert isinstance(asked.given, dict)
    config, metadata = _raw(asked.given.get("config")), _raw(asked.given.get("metadata"))
    size = len(config) + len(metadata) + len(wanted.trigger_type) + len(wanted.function_id)
    _check_room(hub, size)
    binding = Binding(
        id=hub.new_id(),
        trigger_type=wanted.trigger_type,
        function_id=wanted.function_id,
        config=config,
        metadata=metadata,
        namespace=DEFAULT_NAMESPACE,
        trigger_namespace=wanted.trigger_namespace,
        home=DEFAULT_NAMESPACE,
        owner=None,
        size=size,
    )
    hub.also(hub.triggers.bind(binding))
    if binding.state.current is not BindingState.OFFERED:
        return {"id": binding.id}
    binding.answer = Later()
    hub.triggers.wait_for_word(binding, asked.now + PROVIDER_SECONDS)
    return binding.answer


def _check_room(hub: Hub, size: int) -> None:
    """Raise CallError if there are as many as there may be: nobody's end ends them."""
    limits, triggers = hub.config.limits, hub.triggers
    if triggers.durable >= limits.durable_bindings:
        text = f"there are {triggers.durable} durable bindings, as many as there may be (limits.durable_bindings)"
    elif triggers.durable_bytes + size > limits.registration_bytes:
        text = (
            f"the durable bindings would take more than {limits.registration_bytes} bytes (limits.registration_bytes)"
        )
    else:
        return
    raise CallError(ErrorCode.REGISTRATION_LIMIT_REACHED, f"{text}: end some first")


@attrs.frozen
class UnregisterTriggerInput:
    """The payload of `engine::unregister_trigger`."""

    id: str
    trigger_type: str | None = None


def unregister_trigger(hub: Hub, asked: Asked) -> object:
    """`engine::unregister_trigger`: whether there was such a binding."""
    wanted = read_input("engine::unregister_trigger", asked, UnregisterTriggerInput)
    binding = hub.triggers.get(wanted.id)
    if binding is None:
        return {"removed": False}
    hub.also(hub.triggers.withdraw(binding))
    return {"removed": True}


def _raw(value: JsonValue) -> Raw:
    return ABSENT if value is None else Raw(to_json(value))
