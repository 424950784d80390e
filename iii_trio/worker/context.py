"""The call that is being answered, for the code that answers it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

import attrs

from ..wire import JsonValue


@attrs.frozen
class CallInfo:
    """The call that is being answered."""

    invocation_id: str
    function_id: str
    caller: str | None
    """The id of the worker that called; None where the engine did, or the payload is no object."""
    metadata: JsonValue
    """The metadata that travelled beside the payload, or None."""
    traceparent: str | None
    baggage: str | None


CURRENT: Final[ContextVar[CallInfo | None]] = ContextVar("iii_trio_current_call", default=None)


def current_call() -> CallInfo:
    """The call that this task is answering. Raises LookupError outside of a handler."""
    call = CURRENT.get()
    if call is None:
        raise LookupError("no call is being answered here: current_call() works within a handler")
    return call
