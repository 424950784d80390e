"""The engine's own trigger types, about its workers and functions.

`engine::workers-available` fires at once. `engine::functions-available` fires a moment after the set of functions has
changed, so that a worker that registers a hundred functions causes one event. A listener that binds or comes back is told
if the set differs from the one that it was last told of. Many listeners are told in slices (`event_queue.py`).
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from ..wire import DEFAULT_NAMESPACE, to_json
from . import calls
from .binding import Provider, TriggerBinding
from .event_queue import Slice
from .state import State
from .views import Row, function_rows

WORKERS: Final = "engine::workers-available"
FUNCTIONS: Final = "engine::functions-available"
EVENT_TYPES: Final = frozenset({WORKERS, FUNCTIONS})

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
    if not state.triggers.has_bindings(WORKERS):
        return
    is_idle = not state.events
    state.events.add_worker_event(event, worker_id, state.triggers.last_number)
    # Events that wait come first.
    if is_idle:
        _tell_slice(state)


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


def next_due(state: State) -> float | None:
    """Return when `expire` has something to do, or None."""
    return 0.0 if state.events else state.function_changes.next_due()


def expire(state: State, now: float) -> None:
    """Fire `engine::functions-available` if a change is due, and tell the next listeners of the events that wait."""
    untold = state.function_changes.take_untold(now)
    if untold:
        listeners = state.triggers.of_type(FUNCTIONS)
        state.events.add_function_listeners(binding.id for binding in listeners if binding.id in untold)
    if state.events:
        _tell_slice(state)


def _tell_slice(state: State) -> None:
    """Tell the next listeners, as many as one step may."""
    events, slice_ = state.events, Slice()
    while slice_ and (binding_id := events.next_function_listener()) is not None:
        binding = _listener(state, binding_id, FUNCTIONS)
        if binding is None:
            continue
        # A guarded session is told of the functions that it may call.
        if binding.owner is not None and binding.owner.access is not None:
            data = _functions_event(function_rows(state, binding.owner))
        else:
            data = events.functions_event(state.registry.changes, lambda: _functions_event(function_rows(state)))
        slice_.take(len(data))
        calls.fire(state, binding, data)
    listeners = state.triggers.of_type(WORKERS) if slice_ else []
    while slice_ and (told := events.next_worker_event(listeners)) is not None:
        event, binding_id = told
        binding = _listener(state, binding_id, WORKERS)
        if binding is not None:
            data = to_json({"event": event.name, "worker_id": event.worker_id})
            slice_.take(len(data))
            calls.fire(state, binding, data)


def _functions_event(rows: list[Row]) -> bytes:
    return to_json({"event": "functions_changed", "functions": rows})


def _listener(state: State, binding_id: str, trigger_type: str) -> TriggerBinding | None:
    """Return the binding of a listener, or None if it is no longer one."""
    binding = state.triggers.get(binding_id)
    if binding is None or binding.trigger_type != trigger_type:
        return None
    # A worker may provide a type of the same id in another namespace. The engine does not fire that one.
    return binding if binding.provider is not None and binding.provider.session is None else None
