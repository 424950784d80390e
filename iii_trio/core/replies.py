"""Build results and errors, and check that their receiver can read them."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from ..wire import (
    DEFAULT_NAMESPACE,
    ErrorCode,
    InvocationResult,
    WireError,
    encode,
    to_json,
)
from .peer_limits import why_unfit
from .session import WorkerSession

_NO_ERROR: Final = frozenset({b"", b"null", b"false", b"0", b'""'})
"""The values of `error` that SDKs read as no error."""
_error_body: Final = msgspec.json.Decoder(WireError)

BLANK_NAMESPACE: Final = "`{}` is empty: it was named and left blank. Give it a name, or omit it to use `default`."


def not_found(namespaces: list[str], namespace: str | None, function_id: str) -> str:
    """Return `Function … not found in namespace …`, without its final period.

    `namespaces` are those in which the function is registered. They become a hint.
    """
    text = f"Function {function_id} not found in namespace {namespace or DEFAULT_NAMESPACE}"
    return f"{text}. It is registered in namespace(s): {', '.join(namespaces)}" if namespaces else text


def behind_guard(function_id: str) -> str:
    """Return why a function does not guard a listener: a guarded session could take its place."""
    return f"Function {function_id} belongs to a worker at a guarded listener, and has to be at another one"


def is_error(error: Raw) -> bool:
    """Return whether the `error` field of a result holds an error."""
    return bytes(error) not in _NO_ERROR


def read_error(body: Raw) -> tuple[bytes, WireError]:
    """Return an error body in a shape that every SDK reads, as JSON and decoded."""
    try:
        return bytes(body), _error_body.decode(body)
    # SDKs wait for ever if they cannot read an error, so it is replaced by one that quotes its beginning.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        excerpt = bytes(body).decode(errors="replace")[:200]
        error = WireError(
            ErrorCode.INVOCATION_FAILED, f"The worker answered with an error of no known shape: {excerpt}"
        )
        return to_json(error), error


def result_text(
    receiver: WorkerSession,
    invocation_id: str,
    function_id: str,
    result: Raw,
    traceparent: str | None,
    baggage: str | None,
) -> bytes | WireError:
    """Return a call's result as a message, or the reason why its receiver cannot read it."""
    text = encode(InvocationResult(invocation_id, function_id, result, traceparent=traceparent, baggage=baggage))
    # The caller decides between an error and silence, so the reason is returned as a value.
    unfit = why_unfit(receiver, text)
    return text if unfit is None else unfit


def error_text(
    receiver: WorkerSession,
    invocation_id: str,
    function_id: str,
    body: bytes,
    traceparent: str | None,
    baggage: str | None,
    *,
    by_engine: bool = False,
) -> bytes:
    """Return a call's error as a message. An error too large for its receiver is replaced by one that says so."""
    while True:
        text = encode(
            InvocationResult(
                invocation_id,
                function_id,
                error=Raw(body),
                traceparent=traceparent,
                baggage=baggage,
                by_engine=by_engine,
            )
        )
        unfit = why_unfit(receiver, text)
        # The replacement can be unfit as well, where the ids alone are too large. It is sent nevertheless.
        if unfit is None or len(body) <= len(shorter := to_json(unfit)):
            return text
        body = shorter
