"""The rows that introspection shows: of functions, trigger types, bindings and workers.

A field is left out where its value is absent, or is null and always there: which of the two is part of the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Raw

from ..wire import DEFAULT_NAMESPACE, from_json, to_json
from .binding import Binding, Provider
from .registry import Function
from .session import Session

if TYPE_CHECKING:
    from .hub import Hub

Row: TypeAlias = dict[str, object]

ENGINE_NAME: Final = "iii-engine-functions"
"""The worker that the engine's own functions belong to."""
_TYPES_KNOWN_BY_NAME: Final = {
    "http": "iii-http",
    "cron": "iii-cron",
    "subscribe": "iii-pubsub",
    "state": "iii-state",
    "durable:subscriber": "queue",
    "stream": "iii-stream",
    "stream:join": "iii-stream",
    "stream:leave": "iii-stream",
    "log": "iii-observability",
    "trace": "iii-observability",
    "configuration": "configuration",
}
_SUMMARY_CHARACTERS: Final = 80


def there(raw: Raw) -> bool:
    """Whether a payload is neither absent nor null."""
    return bytes(raw) not in (b"", b"null")


# --- functions


def is_internal(function: Function) -> bool:
    """Whether default lists leave it out."""
    if function.id.startswith("engine::") and not function.id.startswith("engine::queue::"):
        return True
    if b"internal" not in bytes(function.metadata):
        return False
    metadata = from_json(bytes(function.metadata))
    return isinstance(metadata, dict) and metadata.get("internal") is True


def function_worker(function: Function | None, function_id: str) -> str:
    """The name of the worker that a function belongs to."""
    if function is not None and function.owner is None:
        return ENGINE_NAME
    name = function.owner.info.name if function is not None and function.owner is not None else None
    return name or function_id.partition("::")[0]


def function_row(function: Function) -> Row:
    """FunctionSummary."""
    row: Row = {
        "function_id": function.id,
        "namespace": function.namespace,
        "worker_name": function_worker(function, function.id),
    }
    if function.description is not None:
        row["description"] = function.description
    if there(function.metadata):
        row["metadata"] = function.metadata
    return row


def function_rows(hub: Hub) -> list[Row]:
    """Every function, internal ones too."""
    return [function_row(function) for function in sorted(hub.registry, key=lambda each: (each.id, each.namespace))]


def function_detail(hub: Hub, function: Function) -> Row:
    """FunctionDetail."""
    row = function_row(function)
    metadata = row.pop("metadata", None)
    if there(function.request_format):
        row["request_schema"] = function.request_format
    if there(function.response_format):
        row["response_schema"] = function.response_format
    if metadata is not None:
        row["metadata"] = metadata
    row["registered_triggers"] = [
        {"id": binding.id, "trigger_type": binding.trigger_type, "config": binding.config_or_null}
        for binding in live_bindings(hub)
        if (binding.namespace, binding.function_id) == (function.namespace, function.id)
    ]
    return row


# --- trigger types and bindings


def live_bindings(hub: Hub) -> list[Binding]:
    """The bindings that a provider has, by id."""
    return sorted((binding for binding in hub.triggers if binding.live), key=lambda binding: binding.id)


def type_worker(provider: Provider) -> str:
    """The name of the worker that a trigger type belongs to."""
    if provider.session is None:
        return ENGINE_NAME
    name = provider.session.info.name or _TYPES_KNOWN_BY_NAME.get(provider.type)
    return name or provider.type.partition("::")[0]


def type_row(provider: Provider) -> Row:
    """TriggerTypeSummary."""
    return {
        "id": provider.type,
        "namespace": provider.namespace,
        "worker_name": type_worker(provider),
        "description": provider.description,
    }


def type_detail(hub: Hub, provider: Provider) -> Row:
    """TriggerTypeDetail. Its instances are counted by the type's id, over all namespaces."""
    row = type_row(provider)
    if there(provider.trigger_request_format):
        row["configuration_schema"] = provider.trigger_request_format
    if there(provider.call_request_format):
        row["request_schema"] = provider.call_request_format
    row["instance_count"] = sum(binding.live for binding in hub.triggers.of_type(provider.type))
    return row


def binding_row(hub: Hub, binding: Binding) -> Row:
    """RegisteredTriggerSummary."""
    target = hub.registry.find(binding.namespace, binding.function_id)
    compact = to_json(from_json(bytes(binding.config_or_null))).decode()
    return {
        "id": binding.id,
        "trigger_type": binding.trigger_type,
        "function_id": binding.function_id,
        "worker_name": function_worker(target, binding.function_id),
        "config": binding.config_or_null,
        "config_summary": compact if len(compact) <= _SUMMARY_CHARACTERS else compact[:_SUMMARY_CHARACTERS] + "…",
    }


# --- workers


def worker_row(session: Session) -> Row:
    """WorkerSummary. The ids of its functions are there for SDKs that cannot read a row without them."""
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
        "functions": sorted(function_id for _, function_id in session.functions),
        "connected_at_ms": session.connected_at_ms,
        "active_invocations": len(session.answering),
        "isolation": info.isolation or ("in-process" if session.in_process else None),
        "ip_address": session.peer,
    }


def engine_row(hub: Hub) -> Row:
    """WorkerSummary of the engine's own functions."""
    own = sorted(function.id for function in hub.registry if function.owner is None)
    return {
        "name": ENGINE_NAME,
        "description": "the engine's own functions",
        "version": hub.version,
        "id": hub.id,
        "namespace": DEFAULT_NAMESPACE,
        "runtime": "engine",
        "os": None,
        "status": "available",
        "function_count": len(own),
        "functions": own,
        "connected_at_ms": hub.started_at_ms,
        "active_invocations": 0,
        "isolation": "in-process",
        "ip_address": None,
    }
