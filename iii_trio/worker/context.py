"""The call that is being answered, for the code that answers it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import msgspec

from ..wire import JsonValue


class CallInfo(msgspec.Struct, frozen=True):
    """The call that is being answered."""

    invocation_id: str
    function_id: str
    caller: str | None
    """The id of the worker that called; None where the engine did, or the payload is not an object."""
    metadata: JsonValue
    """The metadata that travelled beside the payload, or None."""
    traceparent: str | None
    baggage: str | None


CURRENT: Final[ContextVar[CallInfo | None]] = ContextVar("iii_trio_current_call", default=None)


def current_call() -> CallInfo:
    """Return the call that this task is answering. Raises LookupError outside of a handler."""
    call = CURRENT.get()
    if call is None:
        raise LookupError("no call is being answered here: current_call() works within a handler")
    return call


@contextmanager
def within_trace(traceparent: str | None, baggage: str | None) -> Iterator[None]:
    """Send these trace headers with the calls that are made in the block and in the tasks that it starts."""
    token = CURRENT.set(CallInfo("", "", None, None, traceparent, baggage))
    try:
        yield
    finally:
        CURRENT.reset(token)
