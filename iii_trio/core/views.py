"""Rows for the introspection functions, about functions, trigger types, bindings and workers.

Some fields are left out when their value is absent, and others are null then. Which of the two is part of the wire.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Raw

from ..wire import DEFAULT_NAMESPACE, from_json, is_given, to_json
from .binding import III_PROVIDERS, Provider, TriggerBinding
from .registry import Function
from .session import WorkerSession
from .state import ENGINE_NAME, State
from .visibility import sees_function

Row: TypeAlias = dict[str, object]

_SUMMARY_CHARACTERS: Final = 80
_NO_PROVIDER: Final = "no worker provides this trigger type"
_REFUSED: Final = "its provider refused it"


def readable(raw: Raw) -> object:
    """Return a payload for a row. One that cannot be decoded is replaced by the problem, so that the row stays valid."""
    try:
        from_json(bytes(raw))
    except ValueError as problem:
        return {"undecodable": str(problem)}
    return raw


# --- functions


def is_internal(function: Function) -> bool:
    """Return whether lists leave the function out by default."""
    if function.id.startswith("engine::") and not function.id.startswith("engine::queue::"):
        return True
    # What a module offers to the mesh in a namespace of its own is in its front's names already.
    owner = function.owner
    if owner is not None and owner.internal and not owner.relays and function.namespace != DEFAULT_NAMESPACE:
        return True
    return function.marked_internal


def function_worker(function: Function | None, function_id: str) -> str:
    """Return the name of the worker to which a function belongs."""
    if function is not None and function.worker_name is not None:
        return function.worker_name
    if function is not None and function.owner is None:
        return ENGINE_NAME
    name = function.owner.info.name if function is not None and function.owner is not None else None
    return name or function_id.partition("::")[0]


def function_row(function: Function) -> Row:
    """Return a row of a list of functions (`FunctionSummary`)."""
    row: Row = {
        "function_id": function.id,
        "namespace": function.namespace,
        "worker_name": function_worker(function, function.id),
    }
    # An extension: the node of the mesh, where the function belongs to another one.
    if function.node is not None:
        row["node"] = function.node
    if function.description is not None:
        row["description"] = function.description
    if is_given(function.metadata):
        row["metadata"] = function.metadata
    return row


def with_standbys(state: State, function: Function) -> Row:
    """Return a row of the list of functions, with the workers that stand by for it, if any (promise R4)."""
    row = function_row(function)
    standbys = state.registry.standbys(function)
    if standbys:
        row["standby_workers"] = [one.owner.info.name or one.owner.id for one in standbys if one.owner is not None]
    return row


def function_rows(state: State, viewer: WorkerSession | None = None) -> list[Row]:
    """Return the rows of all functions that a session sees, internal ones included."""
    functions = sorted(state.registry, key=lambda each: (each.id, each.namespace))
    return [function_row(each) for each in functions if viewer is None or sees_function(viewer, each)]


def function_detail(state: State, function: Function) -> Row:
    """Return the description of one function (`FunctionDetail`)."""
    row = function_row(function)
    metadata = row.pop("metadata", None)
    if is_given(function.request_format):
        row["request_schema"] = readable(function.request_format)
    if is_given(function.response_format):
        row["response_schema"] = readable(function.response_format)
    if metadata is not None:
        row["metadata"] = metadata
    row["registered_triggers"] = [
        {"id": binding.id, "trigger_type": binding.trigger_type, "config": readable(binding.config_or_null)}
        for binding in live_bindings(state)
        if (binding.namespace, binding.function_id) == (function.namespace, function.id)
    ]
    return row


# --- trigger types and bindings


def live_bindings(state: State) -> list[TriggerBinding]:
    """Return the bindings in force, sorted by id."""
    return sorted((binding for binding in state.triggers if binding.live), key=lambda binding: binding.id)


def type_worker(provider: Provider) -> str:
    """Return the name of the worker to which a trigger type belongs."""
    if provider.session is None:
        return ENGINE_NAME
    name = provider.session.info.name or III_PROVIDERS.get(provider.type)
    return name or provider.type.partition("::")[0]


def type_row(provider: Provider) -> Row:
    """Return a row of a list of trigger types (`TriggerTypeSummary`)."""
    return {
        "id": provider.type,
        "namespace": provider.namespace,
        "worker_name": type_worker(provider),
        "description": provider.description,
    }


def type_detail(state: State, provider: Provider) -> Row:
    """Return the description of one trigger type (`TriggerTypeDetail`). It counts the bindings of all namespaces."""
    row = type_row(provider)
    if is_given(provider.trigger_request_format):
        row["configuration_schema"] = readable(provider.trigger_request_format)
    if is_given(provider.call_request_format):
        row["request_schema"] = readable(provider.call_request_format)
    row["instance_count"] = sum(binding.live for binding in state.triggers.of_type(provider.type))
    return row


def binding_worker(state: State, binding: TriggerBinding) -> str:
    """Return the name of the worker to which a binding's target belongs."""
    return function_worker(state.registry.find(binding.namespace, binding.function_id), binding.function_id)


def binding_row(state: State, binding: TriggerBinding) -> Row:
    """Return a row of a list of bindings (`RegisteredTriggerSummary`)."""
    config: object = binding.config_or_null
    try:
        summary = to_json(from_json(bytes(binding.config_or_null))).decode()
    except ValueError as problem:
        # The configuration is its provider's business, but here it would make the whole list unreadable.
        config, summary = {"undecodable": str(problem)}, f"cannot be decoded: {problem}"
    row: Row = {
        "id": binding.id,
        "trigger_type": binding.trigger_type,
        "function_id": binding.function_id,
        "worker_name": binding_worker(state, binding),
        "config": config,
        "config_summary": summary if len(summary) <= _SUMMARY_CHARACTERS else summary[:_SUMMARY_CHARACTERS] + "…",
    }
    if not binding.live:
        row["waiting"] = _NO_PROVIDER if state.triggers.find_provider(binding) is None else _REFUSED
    return row


# --- workers


def worker_row(state: State, session: WorkerSession) -> Row:
    """Return a row of a list of workers (`WorkerSummary`)."""
    info = session.info
    return {
        "name": info.name,
        "description": info.description,
        "version": info.version,
        "id": session.id,
        "namespace": session.namespace,
        "runtime": info.runtime,
        "os": info.os,
        "status": "available" if session.in_process else "connected",
        "function_count": len(session.functions),
        # Some SDKs cannot read a row without the ids of its functions.
        "functions": sorted(function_id for _, function_id in session.functions),
        "connected_at_ms": session.connected_at_ms,
        "active_invocations": len(state.calls.given_to(session)),
        "isolation": info.isolation or ("in-process" if session.in_process else None),
        "ip_address": session.peer,
    }


def engine_row(state: State) -> Row:
    """Return the row of the engine itself, as the worker of its own functions."""
    own = sorted(function.id for function in state.registry.owned_by(None))
    return {
        "name": ENGINE_NAME,
        "description": "the engine's own functions",
        "version": state.version,
        "id": state.id,
        "namespace": DEFAULT_NAMESPACE,
        "runtime": "engine",
        "os": None,
        "status": "available",
        "function_count": len(own),
        "functions": own,
        "connected_at_ms": state.started_at_ms,
        "active_invocations": 0,
        "isolation": "in-process",
        "ip_address": None,
    }
