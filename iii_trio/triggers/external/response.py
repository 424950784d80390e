"""What a response means for the caller (protocol, section 9)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from ...errors import CallError
from ...wire import JsonValue, from_json

_FAILED: Final = "HTTP request failed"
_DEFAULT_CODE: Final = "http_error"


def result(status: int, body: bytes) -> JsonValue:
    """Return the result of a call. Raises CallError with the code that the other side gave, or `http_error`."""
    if status >= 400:
        raise _failure(status, body)
    if not body.strip():
        return None
    try:
        return from_json(body)
    except ValueError as error:
        # A redirect is not followed, and its text is for people.
        if not 200 <= status < 300:
            return None
        raise CallError("invalid_response", f"The response is not JSON: {error}") from None


def _failure(status: int, body: bytes) -> CallError:
    try:
        value = from_json(body)
    except ValueError:
        value = None
    if not isinstance(value, dict) or "error" not in value:
        return CallError(_DEFAULT_CODE, f"HTTP {status} {_phrase(status)}".rstrip())
    error = value["error"]
    if isinstance(error, str):
        return CallError(_DEFAULT_CODE, error or _FAILED)
    fields = error if isinstance(error, dict) else {}
    code, message = fields.get("code"), fields.get("message")
    return CallError(
        code if isinstance(code, str) and code else _DEFAULT_CODE,
        message if isinstance(message, str) else _FAILED,
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
