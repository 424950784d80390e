"""The engine's own trigger types, about its workers and functions.

`engine::workers-available` fires at once. `engine::functions-available` fires a moment after the set of functions has
changed, so that a worker that registers a hundred functions causes one event. A listener that binds or comes back is told
if the set differs from the one that it was last told of.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from ..wire import DEFAULT_NAMESPACE, to_json
from . import calls
from .binding import Provider, TriggerBinding
from .state import State
from .views import function_rows

WORKERS: Final = "engine::workers-available"
FUNCTIONS: Final = "engine::functions-available"

_EVENT: Final = Raw(b'{"type":"object","properties":{"event":{"type":"string"},"worker_id":{"type":"string"}}}')
_CHANGE: Final = Raw(b'{"type":"object","properties":{"event":{"type":"string"},"functions":{"type":"array"}}}')


def provide_engine_events(state: State) -> None:
    """Register the engine as the provider of its own trigger types."""
    for type_, description, event in (
        (WORKERS, "fires when a worker comes, goes, or says who it is", _EVENT),
        (FUNCTIONS, "fires when functions have come or gone", _CHANGE),
    ):
        state.triggers.provide(Provider(DEFAULT_NAMESPACE, type_, None, description, call_request_format=event))


def worker_event(state: State, event: str, worker_id: str) -> None:
    """Fire `engine::workers-available`."""
    if state.triggers.has_bindings(WORKERS):
        _fire(state, state.triggers.of_type(WORKERS), {"event": event, "worker_id": worker_id})


def check_for_changes(state: State, now: float) -> None:
    """Note whether the set of functions has changed. Call this after each change of functions or bindings."""
    state.function_changes.check(now)


def bound(state: State, binding: TriggerBinding, now: float) -> None:
    """Note a new binding. It may be a listener of `engine::functions-available`."""
    if binding.trigger_type == FUNCTIONS:
        state.function_changes.bound(binding, now)
    else:
        # It may have replaced a listener of the same id.
        state.function_changes.unbound(binding.id)
    state.function_changes.check(now)


def unbound(state: State, binding_id: str, now: float) -> None:
    """Note the end of a binding."""
    state.function_changes.unbound(binding_id)
    state.function_changes.check(now)


def expire(state: State, now: float) -> None:
    """Fire `engine::functions-available` if a change is due."""
    untold = state.function_changes.take_untold(now)
    if untold:
        everything: list[TriggerBinding] = []
        for binding in state.triggers.of_type(FUNCTIONS):
            if binding.id not in untold:
                continue
            # A guarded session is told of the functions that it may call.
            if binding.owner is not None and binding.owner.access is not None:
                rows = function_rows(state, binding.owner)
                _fire(state, [binding], {"event": "functions_changed", "functions": rows})
            else:
                everything.append(binding)
        if everything:
            _fire(state, everything, {"event": "functions_changed", "functions": function_rows(state)})


def _fire(state: State, listeners: list[TriggerBinding], payload: object) -> None:
    data = to_json(payload)
    for binding in listeners:
        # A worker may provide a type of the same id in another namespace. The engine does not fire that one.
        if binding.provider is not None and binding.provider.session is None:
            calls.fire(state, binding, data)
