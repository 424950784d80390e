"""What list and info functions show to a session: the functions that it may call, and what belongs to them."""

from __future__ import annotations

from ..wire import ABSENT
from .access import Access
from .binding import Provider, TriggerBinding
from .registry import Function
from .session import WorkerSession
from .state import State


def sees_function(viewer: WorkerSession, function: Function) -> bool:
    """Return whether a session may call this function, and so see it."""
    access = viewer.access
    return access is None or access.allows(function.namespace, function.id, function.metadata)


def sees_type(viewer: WorkerSession, provider: Provider) -> bool:
    """Return whether a session may bind to this trigger type, and so see it."""
    access = viewer.access
    return access is None or access.allows_trigger_type(provider.type)


def sees_binding(state: State, viewer: WorkerSession, binding: TriggerBinding) -> bool:
    """Return whether a session may call the target of this binding, and so see the binding."""
    return viewer.access is None or may_call(state, viewer.access, binding.namespace, binding.function_id)


def may_call(state: State, access: Access, namespace: str, function_id: str) -> bool:
    """Return whether these rules allow calls of a function, whether or not it is there."""
    function = state.registry.find(namespace, function_id)
    return access.allows(namespace, function_id, function.metadata if function is not None else ABSENT)


def visible_functions(state: State, viewer: WorkerSession, owner: WorkerSession | None) -> list[str]:
    """Return the ids of an owner's functions that a session sees, sorted. The owner None is the engine itself."""
    return sorted(each.id for each in state.registry.owned_by(owner) if sees_function(viewer, each))
