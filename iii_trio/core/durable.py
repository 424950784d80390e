"""Bindings that outlive whoever asked for them: `engine::register_trigger` and `engine::unregister_trigger`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from msgspec import Raw

from ..errors import CallError
from ..wire import ABSENT, DEFAULT_NAMESPACE, ErrorCode, JsonValue, to_json
from .binding import Binding, Phase
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
    binding = Binding(
        id=hub.new_id(),
        trigger_type=wanted.trigger_type,
        function_id=wanted.function_id,
        config=_raw(asked.given.get("config")),
        metadata=_raw(asked.given.get("metadata")),
        namespace=DEFAULT_NAMESPACE,
        trigger_namespace=wanted.trigger_namespace,
        home=DEFAULT_NAMESPACE,
        owner=None,
    )
    hub.also(hub.triggers.bind(binding))
    if binding.life.phase is not Phase.OFFERED:
        return {"id": binding.id}
    binding.answer = Later()
    hub.triggers.wait_for_word(binding, asked.now + PROVIDER_SECONDS)
    return binding.answer


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
