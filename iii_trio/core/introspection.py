"""Engine functions that list and describe functions, trigger types, bindings and workers."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from ..errors import CallError
from ..structure import FunctionInput
from ..wire import DEFAULT_NAMESPACE, ErrorCode
from .gauges import latest_metrics
from .paging import Key, Paged, reply_with_list
from .registry import Function
from .request import Request
from .session import WorkerSession
from .state import ENGINE_NAME, State
from .views import (
    Row,
    binding_row,
    binding_worker,
    engine_row,
    function_detail,
    function_row,
    function_worker,
    is_internal,
    live_bindings,
    readable,
    type_detail,
    type_row,
    type_worker,
    with_standbys,
    worker_row,
)
from .visibility import sees_binding, sees_function, sees_type, visible_functions

_MAX_IDS: Final = 32


def _finds(needle: str | None, *texts: str | None) -> bool:
    """Return whether a search finds one of these texts, ignoring case."""
    return not needle or any(needle.lower() in text.lower() for text in texts if text)


# --- functions


class ListFunctions(Paged, frozen=True):
    search: str | None = None
    prefix: str | None = None
    worker: str | None = None
    workers: list[str] | None = None
    include_internal: bool | None = None


def list_functions(state: State, request: Request) -> None:
    """List functions (`engine::functions::list`)."""
    params = request.read(ListFunctions)
    workers = None
    if params.worker is not None or params.workers is not None:
        workers = {*([params.worker] if params.worker is not None else []), *(params.workers or [])}
    found = []
    for function in state.registry:
        if is_internal(function) and not params.include_internal:
            continue
        if not sees_function(request.session, function):
            continue
        if params.prefix is not None and not function.id.startswith(params.prefix):
            continue
        if workers is not None and function_worker(function, function.id) not in workers:
            continue
        if _finds(params.search, function.id, function.description):
            found.append(function)

    def key(function: Function) -> Key:
        return _rank(function.id, params.search), function.id, function.namespace

    reply_with_list(request, "functions", found, key, partial(with_standbys, state), params)


def _rank(function_id: str, needle: str | None) -> int:
    """Return how well an id fits a search: 0 at its start or as a segment, 1 anywhere, 2 only by its description."""
    if not needle:
        return 0
    id_, needle = function_id.lower(), needle.lower()
    if id_.startswith(needle) or needle in id_.split("::"):
        return 0
    return 1 if needle in id_ else 2


class DescribeFunctions(FunctionInput, frozen=True):
    function_id: str | None = None
    function_ids: list[str] | None = None
    namespace: str | None = None


def describe_functions(state: State, request: Request) -> None:
    """Describe one function or several (`engine::functions::info`)."""
    params = request.read(DescribeFunctions)
    # One function is answered with its description, several with a list in which unknown ones are errors.
    if params.function_id is not None and params.function_ids is not None:
        raise CallError(ErrorCode.INVALID_ARGUMENTS, "pass either `function_id` or `function_ids`, not both")
    if params.function_id is not None:
        function = _find_function(state, params.function_id, params.namespace)
        if not sees_function(request.session, function):
            raise CallError(ErrorCode.FORBIDDEN, f"Function '{function.id}' is not visible to this session.")
        request.reply(function_detail(state, function))
        return
    ids = params.function_ids
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
            function = _find_function(state, function_id, params.namespace)
        except CallError:
            rows.append({"function_id": function_id, "error": "not_found"})
            continue
        if sees_function(request.session, function):
            rows.append(function_detail(state, function))
        else:
            rows.append({"function_id": function_id, "error": "forbidden"})
    request.reply({"functions": rows})


def _find_function(state: State, function_id: str, namespace: str | None) -> Function:
    """Return the function of an id without a namespace. Unlike in a call, the only one of its id is found anywhere."""
    namespaces = state.registry.namespaces_of(function_id)
    if not namespaces:
        raise CallError(ErrorCode.NOT_FOUND, f"Function '{function_id}' is not registered.")
    chosen = _choose_namespace(namespaces, namespace)
    function = state.registry.find(chosen, function_id) if chosen is not None else None
    # Several namespaces have the id, and none of them is the default or the named one.
    if function is None:
        raise CallError(
            ErrorCode.NOT_FOUND,
            f"Function '{function_id}' is ambiguous: it is registered in namespace(s): {', '.join(namespaces)}. "
            "Pass `namespace` to select one.",
        )
    return function


def _choose_namespace(namespaces: list[str], named: str | None) -> str | None:
    """Return the namespace that was named, or else `default`, or else the only one."""
    if named is not None:
        return named if named in namespaces else None
    if DEFAULT_NAMESPACE in namespaces:
        return DEFAULT_NAMESPACE
    return namespaces[0] if len(namespaces) == 1 else None


# --- trigger types


class ListTriggers(Paged, frozen=True):
    search: str | None = None
    prefix: str | None = None
    worker: str | None = None
    include_internal: bool | None = None


def list_triggers(state: State, request: Request) -> None:
    """List trigger types (`engine::triggers::list`)."""
    params = request.read(ListTriggers)
    found = []
    for provider in state.triggers.providers():
        if provider.type.startswith("engine::") and not params.include_internal:
            continue
        if not sees_type(request.session, provider):
            continue
        if params.prefix is not None and not provider.type.startswith(params.prefix):
            continue
        if params.worker is not None and type_worker(provider) != params.worker:
            continue
        if _finds(params.search, provider.type, provider.description):
            found.append(provider)
    reply_with_list(request, "triggers", found, lambda each: (each.type, each.namespace), type_row, params)


class DescribeTrigger(FunctionInput, frozen=True):
    id: str
    namespace: str | None = None


def describe_trigger(state: State, request: Request) -> None:
    """Describe one trigger type (`engine::triggers::info`)."""
    params = request.read(DescribeTrigger)
    namespace = params.namespace or DEFAULT_NAMESPACE
    provider = state.triggers.provider(namespace, params.id)
    if provider is None or not sees_type(request.session, provider):
        text = f"Trigger type '{params.id}' is not registered in namespace '{namespace}'."
        raise CallError(ErrorCode.NOT_FOUND, text)
    request.reply(type_detail(state, provider))


# --- bindings


class ListBindings(Paged, frozen=True):
    search: str | None = None
    trigger_type: str | None = None
    function_id: str | None = None
    worker: str | None = None
    include_internal: bool | None = None
    include_waiting: bool | None = None
    """An extension: include the bindings that wait for a provider. Their rows have a field `waiting`."""


def list_bindings(state: State, request: Request) -> None:
    """List the bindings in force, and those that wait for a provider if asked (`engine::registered-triggers::list`)."""
    params = request.read(ListBindings)
    found = []
    for binding in state.triggers:
        if not binding.live and not params.include_waiting:
            continue
        if binding.function_id.startswith("engine::") and not params.include_internal:
            continue
        if not sees_binding(state, request.session, binding):
            continue
        if params.trigger_type not in (None, binding.trigger_type):
            continue
        if params.function_id not in (None, binding.function_id):
            continue
        if not _finds(params.search, binding.id, binding.trigger_type, binding.function_id):
            continue
        if params.worker in (None, binding_worker(state, binding)):
            found.append(binding)
    reply_with_list(request, "registered_triggers", found, lambda each: (each.id,), partial(binding_row, state), params)


class DescribeBinding(FunctionInput, frozen=True):
    id: str


def describe_binding(state: State, request: Request) -> None:
    """Describe one binding (`engine::registered-triggers::info`)."""
    params = request.read(DescribeBinding)
    binding = state.triggers.get(params.id)
    if binding is None or binding.provider is None or not sees_binding(state, request.session, binding):
        raise CallError(ErrorCode.NOT_FOUND, f"Registered trigger '{params.id}' was not found.")
    row = binding_row(state, binding)
    del row["config_summary"]
    if binding.metadata:
        row["metadata"] = readable(binding.metadata)
    function = state.registry.find(binding.namespace, binding.function_id)
    row["trigger"] = type_detail(state, binding.provider)
    row["function"] = function_detail(state, function) if function is not None else None
    request.reply(row)


# --- workers


class ListWorkers(Paged, frozen=True):
    search: str | None = None
    runtime: str | None = None
    status: str | None = None
    include_internal: bool | None = None
    """An extension: include workers without a process id, such as browsers, sessions without a name, and relays."""


def list_workers(state: State, request: Request) -> None:
    """List workers (`engine::workers::list`).

    Workers on sockets without a process id, and the sessions by which engines pass calls on, are left out unless
    `include_internal` is set.
    """
    params = request.read(ListWorkers)
    rows: Iterable[Row] = [
        _seen_by(state, request.session, engine_row(state), None),
        *(
            _seen_by(state, request.session, worker_row(state, each), each)
            for each in state.sessions.values()
            if params.include_internal or ((each.in_process or each.info.pid is not None) and not each.relays)
        ),
        # A guarded session is shown what is at its own engine.
        *((dict(row) for row in state.workers_elsewhere) if request.session.access is None else ()),
    ]
    rows = [
        row
        for row in rows
        if params.runtime in (None, row["runtime"])
        and params.status in (None, row["status"])
        and _finds(params.search, *(str(row[field] or "") for field in ("name", "id", "description")))
    ]
    reply_with_list(request, "workers", rows, _by_name, lambda row: row, params)


def _by_name(row: Row) -> Key:
    return str(row["name"] or row["id"]), str(row["id"])


def _seen_by(state: State, viewer: WorkerSession, row: Row, owner: WorkerSession | None) -> Row:
    """Leave the functions that a guarded session may not call out of a worker's row."""
    if viewer.access is not None:
        row["functions"] = functions = visible_functions(state, viewer, owner)
        row["function_count"] = len(functions)
    return row


class DescribeWorker(FunctionInput, frozen=True):
    name: str
    namespace: str | None = None


def describe_worker(state: State, request: Request) -> None:
    """Describe one worker (`engine::workers::info`)."""
    params = request.read(DescribeWorker)
    name = params.name
    namespaces = state.registry.namespaces_of_worker(name)
    # The engine's own functions look like those of a worker of this name.
    if name == ENGINE_NAME and DEFAULT_NAMESPACE not in namespaces:
        namespaces = sorted([*namespaces, DEFAULT_NAMESPACE])
    if not namespaces:
        raise CallError(ErrorCode.NOT_FOUND, f"Worker '{name}' is not connected.")
    chosen = _choose_namespace(namespaces, params.namespace)
    # The error names the namespaces in which the worker is, so that the caller can choose one.
    if chosen is None:
        where = ", ".join(namespaces)
        raise CallError(
            ErrorCode.NOT_FOUND,
            f"Worker '{name}' is not connected in the requested namespace; it is connected in namespace(s): {where}."
            if params.namespace is not None
            else f"Worker '{name}' is ambiguous: it is connected in namespace(s): {where}. "
            "Pass `namespace` to disambiguate.",
        )
    session = state.registry.worker(chosen, name)
    row = engine_row(state) if session is None else worker_row(state, session)
    viewer = request.session
    row = _seen_by(state, viewer, row, session)
    if session is not None and session.info.pid is not None:
        row["pid"] = session.info.pid
    row["internal"] = session is None or session.internal
    metrics = latest_metrics(session, request.now) if session is not None else None
    if metrics is not None:
        row["latest_metrics"] = metrics
    functions = [function for function in state.registry.owned_by(session) if sees_function(viewer, function)]
    targets = {(function.namespace, function.id) for function in functions}
    providers = [
        provider
        for provider in state.triggers.providers()
        if provider.session is session and sees_type(viewer, provider)
    ]
    request.reply(
        {
            "worker": row,
            "functions": [function_row(function) for function in sorted(functions, key=lambda each: each.id)],
            "trigger_types": [
                type_row(each) for each in sorted(providers, key=lambda each: (each.type, each.namespace))
            ],
            "registered_triggers": [
                binding_row(state, binding)
                for binding in live_bindings(state)
                if (binding.namespace, binding.function_id) in targets
            ],
        }
    )
