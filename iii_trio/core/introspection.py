"""What the engine tells of itself: `engine::functions::*`, `triggers::*`, `registered-triggers::*`, `workers::*`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import attrs

from ..errors import CallError
from ..wire import DEFAULT_NAMESPACE, ErrorCode
from .calls import read_input
from .registry import Asked, Builtin, Function
from .rows import (
    ENGINE_NAME,
    Row,
    binding_row,
    engine_row,
    function_detail,
    function_row,
    function_worker,
    is_internal,
    live_bindings,
    type_detail,
    type_row,
    worker_row,
)
from .telemetry import latest_metrics

if TYPE_CHECKING:
    from .hub import Hub

_MAX_IDS: Final = 32


def _finds(needle: str | None, *texts: str | None) -> bool:
    """Whether a search finds one of these, whatever the case."""
    return not needle or any(needle.lower() in text.lower() for text in texts if text)


# --- functions


@attrs.frozen
class ListFunctions:
    search: str | None = None
    prefix: str | None = None
    worker: str | None = None
    workers: list[str] | None = None
    include_internal: bool | None = None


def list_functions(hub: Hub, asked: Asked) -> object:
    """`engine::functions::list`"""
    wanted = read_input("engine::functions::list", asked, ListFunctions)
    workers = None
    if wanted.worker is not None or wanted.workers is not None:
        workers = {*([wanted.worker] if wanted.worker is not None else []), *(wanted.workers or [])}
    found = []
    for function in hub.registry:
        if is_internal(function) and not wanted.include_internal:
            continue
        if wanted.prefix is not None and not function.id.startswith(wanted.prefix):
            continue
        if workers is not None and function_worker(function, function.id) not in workers:
            continue
        if _finds(wanted.search, function.id, function.description):
            found.append(function)
    found.sort(key=lambda function: (_rank(function.id, wanted.search), function.id, function.namespace))
    return {"functions": [function_row(function) for function in found]}


def _rank(function_id: str, needle: str | None) -> int:
    """How well an id fits a search: at its start or as a segment, anywhere, or not at all (its description does)."""
    if not needle:
        return 0
    id_, needle = function_id.lower(), needle.lower()
    if id_.startswith(needle) or needle in id_.split("::"):
        return 0
    return 1 if needle in id_ else 2


@attrs.frozen
class DescribeFunctions:
    function_id: str | None = None
    function_ids: list[str] | None = None
    namespace: str | None = None


def describe_functions(hub: Hub, asked: Asked) -> object:
    """`engine::functions::info`"""
    wanted = read_input("engine::functions::info", asked, DescribeFunctions)
    if wanted.function_id is not None and wanted.function_ids is not None:
        raise CallError(ErrorCode.INVALID_ARGUMENTS, "pass either `function_id` or `function_ids`, not both")
    if wanted.function_id is not None:
        return function_detail(hub, _the_function(hub, wanted.function_id, wanted.namespace))
    ids = wanted.function_ids
    if ids is None:
        text = "missing field `function_id` (or `function_ids` for a batch)"
        raise CallError(ErrorCode.INVALID_ARGUMENTS, text)
    if not ids:
        text = "`function_ids` must be a non-empty array of function ids"
        raise CallError(ErrorCode.INVALID_ARGUMENTS, text)
    if len(ids) > _MAX_IDS:
        raise CallError(ErrorCode.INVALID_ARGUMENTS, f"too many function_ids (max {_MAX_IDS})")
    rows: list[Row] = []
    for function_id in dict.fromkeys(ids):
        try:
            rows.append(function_detail(hub, _the_function(hub, function_id, wanted.namespace)))
        except CallError:
            rows.append({"function_id": function_id, "error": "not_found"})
    return {"functions": rows}


def _the_function(hub: Hub, function_id: str, namespace: str | None) -> Function:
    """The function of a bare id: unlike in a call, the only one that there is will do."""
    namespaces = hub.registry.namespaces_of(function_id)
    if not namespaces:
        raise CallError(ErrorCode.NOT_FOUND, f"Function '{function_id}' is not registered.")
    chosen = _the_namespace(namespaces, namespace)
    function = hub.registry.find(chosen, function_id) if chosen is not None else None
    if function is None:
        raise CallError(
            ErrorCode.NOT_FOUND,
            f"Function '{function_id}' is ambiguous: it is registered in namespace(s): {', '.join(namespaces)}. "
            "Pass `namespace` to select one.",
        )
    return function


def _the_namespace(namespaces: list[str], named: str | None) -> str | None:
    """The one that was named; else `default`, else the only one."""
    if named is not None:
        return named if named in namespaces else None
    if DEFAULT_NAMESPACE in namespaces:
        return DEFAULT_NAMESPACE
    return namespaces[0] if len(namespaces) == 1 else None


# --- trigger types


@attrs.frozen
class ListTriggers:
    search: str | None = None
    prefix: str | None = None
    worker: str | None = None
    include_internal: bool | None = None


def list_triggers(hub: Hub, asked: Asked) -> object:
    """`engine::triggers::list`"""
    wanted = read_input("engine::triggers::list", asked, ListTriggers)
    rows = []
    for provider in sorted(hub.triggers.providers(), key=lambda each: (each.type, each.namespace)):
        row = type_row(provider)
        if provider.type.startswith("engine::") and not wanted.include_internal:
            continue
        if wanted.prefix is not None and not provider.type.startswith(wanted.prefix):
            continue
        if wanted.worker is not None and row["worker_name"] != wanted.worker:
            continue
        if _finds(wanted.search, provider.type, provider.description):
            rows.append(row)
    return {"triggers": rows}


@attrs.frozen
class DescribeTrigger:
    id: str
    namespace: str | None = None


def describe_trigger(hub: Hub, asked: Asked) -> object:
    """`engine::triggers::info`"""
    wanted = read_input("engine::triggers::info", asked, DescribeTrigger)
    namespace = wanted.namespace or DEFAULT_NAMESPACE
    provider = hub.triggers.provider(namespace, wanted.id)
    if provider is None:
        text = f"Trigger type '{wanted.id}' is not registered in namespace '{namespace}'."
        raise CallError(ErrorCode.NOT_FOUND, text)
    return type_detail(hub, provider)


# --- bindings


@attrs.frozen
class ListBindings:
    search: str | None = None
    trigger_type: str | None = None
    function_id: str | None = None
    worker: str | None = None
    include_internal: bool | None = None


def list_bindings(hub: Hub, asked: Asked) -> object:
    """`engine::registered-triggers::list`"""
    wanted = read_input("engine::registered-triggers::list", asked, ListBindings)
    rows = []
    for binding in live_bindings(hub):
        if binding.function_id.startswith("engine::") and not wanted.include_internal:
            continue
        if wanted.trigger_type not in (None, binding.trigger_type):
            continue
        if wanted.function_id not in (None, binding.function_id):
            continue
        if not _finds(wanted.search, binding.id, binding.trigger_type, binding.function_id):
            continue
        row = binding_row(hub, binding)
        if wanted.worker in (None, row["worker_name"]):
            rows.append(row)
    return {"registered_triggers": rows}


@attrs.frozen
class DescribeBinding:
    id: str


def describe_binding(hub: Hub, asked: Asked) -> object:
    """`engine::registered-triggers::info`"""
    wanted = read_input("engine::registered-triggers::info", asked, DescribeBinding)
    binding = hub.triggers.get(wanted.id)
    if binding is None or binding.provider is None:
        raise CallError(ErrorCode.NOT_FOUND, f"Registered trigger '{wanted.id}' was not found.")
    row = binding_row(hub, binding)
    del row["config_summary"]
    if binding.metadata:
        row["metadata"] = binding.metadata
    function = hub.registry.find(binding.namespace, binding.function_id)
    row["trigger"] = type_detail(hub, binding.provider)
    row["function"] = function_detail(hub, function) if function is not None else None
    return row


# --- workers


@attrs.frozen
class ListWorkers:
    search: str | None = None
    runtime: str | None = None
    status: str | None = None
    include_internal: bool | None = None
    """Ours: also those without a process id, such as browsers, and those that have not said who they are."""


def list_workers(hub: Hub, asked: Asked) -> object:
    """`engine::workers::list`: without those on sockets that have not told a process id, unless they are asked for."""
    wanted = read_input("engine::workers::list", asked, ListWorkers)
    rows: Iterable[Row] = [
        engine_row(hub),
        *(
            worker_row(each)
            for each in hub.sessions.values()
            if each.in_process or each.info.pid is not None or wanted.include_internal
        ),
    ]
    rows = [
        row
        for row in rows
        if wanted.runtime in (None, row["runtime"])
        and wanted.status in (None, row["status"])
        and _finds(wanted.search, *(str(row[field] or "") for field in ("name", "id", "description")))
    ]
    return {"workers": sorted(rows, key=lambda row: (row["name"] or row["id"], row["id"]))}


@attrs.frozen
class DescribeWorker:
    name: str
    namespace: str | None = None


def describe_worker(hub: Hub, asked: Asked) -> object:
    """`engine::workers::info`"""
    wanted = read_input("engine::workers::info", asked, DescribeWorker)
    name = wanted.name
    namespaces = hub.registry.namespaces_of_worker(name)
    if name == ENGINE_NAME and DEFAULT_NAMESPACE not in namespaces:
        namespaces = sorted([*namespaces, DEFAULT_NAMESPACE])
    if not namespaces:
        raise CallError(ErrorCode.NOT_FOUND, f"Worker '{name}' is not connected.")
    chosen = _the_namespace(namespaces, wanted.namespace)
    if chosen is None:
        where = ", ".join(namespaces)
        raise CallError(
            ErrorCode.NOT_FOUND,
            f"Worker '{name}' is not connected in the requested namespace; it is connected in namespace(s): {where}."
            if wanted.namespace is not None
            else f"Worker '{name}' is ambiguous: it is connected in namespace(s): {where}. "
            "Pass `namespace` to disambiguate.",
        )
    session = hub.registry.worker(chosen, name)
    row = engine_row(hub) if session is None else worker_row(session)
    if session is not None and session.info.pid is not None:
        row["pid"] = session.info.pid
    row["internal"] = session is None or session.internal
    metrics = latest_metrics(session, asked.now) if session is not None else None
    if metrics is not None:
        row["latest_metrics"] = metrics
    functions = [function for function in hub.registry if function.owner is session]
    targets = {(function.namespace, function.id) for function in functions}
    providers = [provider for provider in hub.triggers.providers() if provider.session is session]
    return {
        "worker": row,
        "functions": [function_row(function) for function in sorted(functions, key=lambda each: each.id)],
        "trigger_types": [type_row(each) for each in sorted(providers, key=lambda each: (each.type, each.namespace))],
        "registered_triggers": [
            binding_row(hub, binding)
            for binding in live_bindings(hub)
            if (binding.namespace, binding.function_id) in targets
        ],
    }


INTROSPECTION: Final[dict[str, tuple[Builtin, str]]] = {
    "engine::functions::list": (list_functions, "the functions that there are"),
    "engine::functions::info": (describe_functions, "one function, or several, with schemas and bindings"),
    "engine::triggers::list": (list_triggers, "the trigger types that there are"),
    "engine::triggers::info": (describe_trigger, "one trigger type, with its schemas"),
    "engine::registered-triggers::list": (list_bindings, "the bindings of functions to trigger types"),
    "engine::registered-triggers::info": (describe_binding, "one binding, with its trigger type and function"),
    "engine::workers::list": (list_workers, "the workers that there are"),
    "engine::workers::info": (describe_worker, "one worker, with what it offers"),
}
