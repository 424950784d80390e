"""What commands add to an error of a call, where the words of their user are the cause."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Final

import trio

import iii_trio

from ..errors import CallError, ConnectionFailed
from ..wire import DEFAULT_NAMESPACE, ErrorCode
from .calling import Deadline, call
from .exits import Failure
from .output import complain
from .payload import json_hint

_ALL: Final = {"include_internal": True}
_SECONDS: Final = 2.0
"""How long an engine is asked for what a hint says. It must not hold up the command."""


async def call_named(
    worker: iii_trio.Worker,
    function: str,
    payload: Any,
    pairs: Sequence[str],
    *,
    namespace: str | None,
    deadline: Deadline,
) -> Any:
    """Call the function that the user named, with the payload that has these `key=value` pairs, and return its result.

    Raises what `call` raises. The text of a CallError ends with a hint, if the name or a pair is the cause.
    """
    try:
        return await call(worker, function, payload, namespace=namespace, deadline=deadline)
    except CallError as error:
        problem = error
    # A handler passes on the error about a function that it misses itself.
    if problem.code == ErrorCode.FUNCTION_NOT_FOUND and problem.origin == "engine":
        hint = await _name_hint(worker, function, namespace or DEFAULT_NAMESPACE)
        raise CallError(problem.code, f"{problem.message.removesuffix('.')}. {hint}")
    raise CallError(problem.code, problem.message + json_hint(problem.message, pairs))


async def _name_hint(worker: iii_trio.Worker, function: str, namespace: str) -> str:
    """Say which function may have been meant, if the engine tells in time."""
    from .tables import ask_list  # here, because it loads what draws tables

    rows: list[Any] = []
    with trio.move_on_after(_SECONDS):
        try:
            rows = (await ask_list(worker, "engine::functions::list", "functions", _ALL))["functions"]
        # An engine may not list its functions to everybody, and the error itself is to be told.
        except (CallError, ConnectionFailed, Failure):
            pass
    elsewhere = [row["namespace"] for row in rows if row["function_id"] == function]
    if elsewhere:
        return f"Say --namespace {elsewhere[0]}"
    near = difflib.get_close_matches(function, [row["function_id"] for row in rows if row["namespace"] == namespace], 1)
    return (f"Did you mean `{near[0]}`? " if near else "") + "`iii-trio functions` lists those that there are"


async def tell_if_missing(worker: iii_trio.Worker, function: str, namespace: str | None) -> None:
    """Complain if no worker offers a function that a job waits for. An engine that does not tell is believed to have it."""
    with trio.move_on_after(_SECONDS):
        try:
            about = {"function_id": function, "namespace": namespace or DEFAULT_NAMESPACE}
            await worker.trigger("engine::functions::info", about)
        except CallError as error:
            if error.code == ErrorCode.NOT_FOUND:
                where = "" if namespace is None else f" in namespace {namespace}"
                complain(f"no worker offers {function}{where} now; the job waits for one")
        # The job is kept, and the command has done its work.
        except ConnectionFailed:
            pass
