"""Functions that another worker runs for the one that registered them (protocol, section 9).

A worker registers such a function with an `invocation` block, which says where its code is. Calls of it are given to the
worker that offers `engine::external::invoke`, together with the block.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from ..wire import DEFAULT_NAMESPACE, ErrorCode, WireError, to_json
from .registry import Function
from .session import WorkerSession
from .state import State

INVOKE: Final = "engine::external::invoke"
CHECK: Final = "engine::external::check"
NO_INVOKER: Final = "it is to be invoked over HTTP, for which this engine has no module"


def destination(state: State, function: Function, data: bytes) -> tuple[WorkerSession, str, bytes] | WireError:
    """Return the session that runs a function, with the id and the payload for it, or the reason why there is none."""
    if function.owner is None:
        return WireError(ErrorCode.FUNCTION_NOT_INVOKABLE, f"Function {function.id} is not a function of a worker")
    if not function.invocation:
        return function.owner, function.local_id or function.id, data
    invoker = find_invoker(state, INVOKE)
    if invoker is None:
        return WireError(ErrorCode.FUNCTION_NOT_INVOKABLE, f"The function cannot be invoked: {NO_INVOKER}")
    return invoker, INVOKE, to_json({**description(function), "data": Raw(data)})


def find_invoker(state: State, function_id: str) -> WorkerSession | None:
    """Return the worker that offers this function of invokers. A guarded session is none, because it is not trusted."""
    found = state.registry.find(DEFAULT_NAMESPACE, function_id)
    if found is None or found.owner is None or found.owner.access is not None:
        return None
    return found.owner


def description(function: Function) -> dict[str, object]:
    """Return the fields that tell an invoker of a function."""
    return {
        "function_id": function.id,
        "namespace": function.namespace,
        "invocation": function.invocation,
        "guarded": function.owner is not None and function.owner.access is not None,
    }
