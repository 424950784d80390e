"""Engine functions for bindings that outlive their maker."""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from ..errors import CallError
from ..structure import FunctionInput
from ..wire import ABSENT, DEFAULT_NAMESPACE, ErrorCode, JsonValue, check_name, to_json
from . import engine_events
from .access import Access
from .binding import BindingState, TriggerBinding
from .quota import why_too_many_listeners
from .replies import BLANK_NAMESPACE
from .request import Request
from .state import State
from .trigger_handlers import warn_if_unprovided
from .visibility import may_call, sees_binding

PROVIDER_SECONDS: Final = 10.0
"""The time in seconds that a provider has to refuse. Its silence counts as acceptance."""


class RegisterTriggerInput(FunctionInput, frozen=True):
    """The payload of `engine::register_trigger`. Its `config` and `metadata` are any JSON, and are not structured."""

    trigger_type: str
    function_id: str
    trigger_namespace: str | None = None


def register_trigger(state: State, request: Request) -> None:
    """Make a durable binding (`engine::register_trigger`).

    The answer is its id. It comes when the provider accepts, or at once if there is no provider yet.
    """
    params = request.read(RegisterTriggerInput)
    for field in ("trigger_type", "function_id", "trigger_namespace"):
        check_name(request.message.function_id, field, getattr(params, field))
    state.check_open()
    function_id = params.function_id
    access = request.session.access
    if access is not None:
        function_id = _guarded_target(state, access, params)
    if params.trigger_namespace is not None and not params.trigger_namespace.strip():
        raise CallError(ErrorCode.INVALID_NAMESPACE, BLANK_NAMESPACE.format("trigger_namespace"))
    assert isinstance(request.payload, dict)
    config, metadata = _raw(request.payload.get("config")), _raw(request.payload.get("metadata"))
    size = len(config) + len(metadata) + len(params.trigger_type) + len(params.function_id)
    _check_room(state, params.trigger_type, size)
    binding = TriggerBinding(
        id=state.new_id(),
        trigger_type=params.trigger_type,
        function_id=function_id,
        config=config,
        metadata=metadata,
        namespace=DEFAULT_NAMESPACE,
        trigger_namespace=params.trigger_namespace,
        home=DEFAULT_NAMESPACE,
        owner=None,
        size=size,
    )
    state.triggers.bind(binding)
    engine_events.bound(state, binding, request.now)
    warn_if_unprovided(state, request.session, binding)
    # Only a worker as the provider has to be waited for. The engine itself has accepted already.
    if binding.state.current is BindingState.OFFERED:
        binding.request = request
        state.triggers.wait_for_answer(binding, request.now + PROVIDER_SECONDS)
    else:
        request.reply({"id": binding.id})


def _guarded_target(state: State, access: Access, params: RegisterTriggerInput) -> str:
    """Return the id of the target that a guarded session binds. Raises CallError if it may not bind it."""
    if not access.allows_trigger_type(params.trigger_type):
        text = f"Trigger type '{params.trigger_type}' is not allowed for this session."
        raise CallError(ErrorCode.FORBIDDEN, text)
    function_id = access.prefixed(params.function_id)
    check_name("engine::register_trigger", "function_id", function_id)
    if not may_call(state, access, DEFAULT_NAMESPACE, function_id):
        text = f"function '{function_id}' not allowed in namespace '{DEFAULT_NAMESPACE}'"
        raise CallError(ErrorCode.FORBIDDEN, text)
    return function_id


def _check_room(state: State, trigger_type: str, size: int) -> None:
    """Raise CallError at the limit of durable bindings, because no session's end frees them."""
    limits, triggers = state.config.limits, state.triggers
    if trigger_type in engine_events.EVENT_TYPES:
        full = why_too_many_listeners(limits, triggers.count("", trigger_type))
        if full is not None:
            raise CallError(ErrorCode.REGISTRATION_LIMIT_REACHED, f"{full}: end some first")
    if triggers.durable >= limits.durable_bindings:
        text = f"there are {triggers.durable} durable bindings, as many as there may be (limits.durable_bindings)"
    elif triggers.durable_bytes + size > limits.registration_bytes:
        text = (
            f"the durable bindings would take more than {limits.registration_bytes} bytes (limits.registration_bytes)"
        )
    else:
        return
    raise CallError(ErrorCode.REGISTRATION_LIMIT_REACHED, f"{text}: end some first")


class UnregisterTriggerInput(FunctionInput, frozen=True):
    """The payload of `engine::unregister_trigger`."""

    id: str
    trigger_type: str | None = None


def unregister_trigger(state: State, request: Request) -> None:
    """End a binding (`engine::unregister_trigger`). The answer says whether there was one."""
    binding = state.triggers.get(request.read(UnregisterTriggerInput).id)
    # A guarded session ends the bindings of targets that it may call. Others are not there for it.
    if binding is not None and not sees_binding(state, request.session, binding):
        binding = None
    if binding is not None:
        state.triggers.withdraw(binding)
        engine_events.unbound(state, binding.id, request.now)
    request.reply({"removed": binding is not None})


def _raw(value: JsonValue) -> Raw:
    return ABSENT if value is None else Raw(to_json(value))
