"""What list and info functions show to a session: the functions that it may call, and what belongs to them."""

from __future__ import annotations

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
    access = viewer.access
    if access is None:
        return True
    target = state.registry.find(binding.namespace, binding.function_id)
    if target is not None:
        return sees_function(viewer, target)
    return access.allows(binding.namespace, binding.function_id)


def visible_functions(state: State, viewer: WorkerSession, owner: WorkerSession | None) -> list[str]:
    """Return the ids of an owner's functions that a session sees, sorted. The owner None is the engine itself."""
    return sorted(each.id for each in state.registry if each.owner is owner and sees_function(viewer, each))
