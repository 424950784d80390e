"""The functions that a worker offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import msgspec
from msgspec import Raw

from ..errors import MisuseError
from ..wire import ABSENT, RegisterFunction, UnregisterFunction, encode
from .handler_signature import Handler, HandlerSignature
from .inline import InlineHandler
from .registration import Withdraw, checked_description, derived_json, given_json

if TYPE_CHECKING:
    from .external import ExternalCall


class FunctionSpec(msgspec.Struct, eq=False):
    """One function that a worker offers. It has a signature, an inline handler, or code behind a URL."""

    id: str
    text: bytes
    """The message that registers it."""
    signature: HandlerSignature | None = None
    inline: InlineHandler | None = None
    stands_by: bool = False
    """Whether another worker is expected to have the id, so that a refusal is no news."""
    refused: str | None = None
    """The reason if the engine refused it, because another worker has it, or because it may not be called."""

    @classmethod
    def from_handler(
        cls,
        function_id: str,
        handler: Handler,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        request_format: Any = None,
        response_format: Any = None,
        forbid_extra_keys: bool = False,
    ) -> FunctionSpec:
        """Read a handler's signature, and derive from it what was not given.

        Raises MisuseError for an id or a handler that no call could reach, and for values that cannot be sent.
        """
        check_function_id(function_id)
        signature = HandlerSignature.from_handler(function_id, handler, forbid_extra_keys=forbid_extra_keys)
        if request_format is None:
            request = derived_json(signature.request_schema(), f"the parameters of {function_id}", "request_format")
        else:
            request = given_json(request_format, f"`request_format` of {function_id}")
        if response_format is None:
            response = derived_json(signature.response_schema(), f"the value of {function_id}", "response_format")
        else:
            response = given_json(response_format, f"`response_format` of {function_id}")
        text = _text(function_id, description or first_line(handler), metadata, request, response)
        return cls(function_id, text, signature)

    @classmethod
    def from_inline_handler(
        cls,
        function_id: str,
        handler: InlineHandler,
        description: str | None,
        metadata: Mapping[str, Any] | None = None,
        request_format: Any = None,
        response_format: Any = None,
        *,
        stands_by: bool = False,
    ) -> FunctionSpec:
        """Describe a function that is answered without a task. Raises MisuseError for values that cannot be sent."""
        request = given_json(request_format, f"`request_format` of {function_id}")
        response = given_json(response_format, f"`response_format` of {function_id}")
        text = _text(function_id, description, metadata, request, response)
        return cls(function_id, text, inline=handler, stands_by=stands_by)

    @classmethod
    def external_function(cls, function_id: str, call: ExternalCall, description: str | None) -> FunctionSpec:
        """Describe a function that the engine calls at a URL. Raises MisuseError for an id or a call that is none."""
        from .external import ExternalCall  # here, because most workers have no such functions

        check_function_id(function_id)
        # The URL alone is not shown, because it may hold a secret.
        if not isinstance(call, ExternalCall):
            raise MisuseError(
                f"an external function is called by an ExternalCall, not by a value of type {type(call).__name__}: "
                f'write register_external_function("{function_id}", iii_trio.http.ExternalCall("https://…"))'
            )
        return cls(function_id, _text(function_id, description, invocation=_invocation(function_id, call)))

    def message(self) -> bytes:
        """Return the message that registers it. It is made before, so that this cannot fail on a later link."""
        return self.text

    def withdrawal(self) -> bytes:
        """Return the message that takes it back."""
        return encode(UnregisterFunction(self.id))

    def renew(self) -> None:
        """Forget a refusal on the last link."""
        self.refused = None


def _text(
    function_id: str,
    description: str | None,
    metadata: Mapping[str, Any] | None = None,
    request: Raw = ABSENT,
    response: Raw = ABSENT,
    invocation: Raw = ABSENT,
) -> bytes:
    """Return the message that registers a function. Raises MisuseError for values that cannot be sent."""
    message = RegisterFunction(
        id=function_id,
        description=checked_description(description, function_id),
        request_format=request,
        response_format=response,
        metadata=given_json(metadata, f"`metadata` of {function_id}"),
        invocation=invocation,
    )
    return encode(message)


def _invocation(function_id: str, call: ExternalCall) -> Raw:
    """Return an external call as JSON. Raises MisuseError for one that cannot be sent."""
    try:
        block = call.to_json()
    # There is no such number of milliseconds.
    except (OverflowError, ValueError):
        raise MisuseError(
            f"`timeout_seconds` of {function_id} is {call.timeout_seconds}; give a number of seconds, or leave it out"
        ) from None
    return given_json(block, f"the call of {function_id}")


def check_function_id(function_id: str) -> None:
    """Raise MisuseError for an id under which a function could not be called."""
    if not isinstance(function_id, str):
        raise MisuseError(no_function_id(function_id))
    if not function_id or not function_id.isprintable() or any(letter.isspace() for letter in function_id):
        raise MisuseError(f"{function_id!r} is not a function id: write it like 'orders::price', without spaces")


def no_function_id(value: object) -> str:
    """Return the error about a value that stands in the place of a function's id."""
    # SDKs of iii take one request. Its payload is large or secret at times, so it is not shown.
    if isinstance(value, Mapping) and isinstance(value.get("function_id"), str):
        return (
            f"the first argument is a function's id, and not a request of type {type(value).__name__}: write "
            f'trigger("{value["function_id"]}", payload), and `namespace` and `action` as further arguments'
        )
    shown = repr(value) if isinstance(value, int | float | bytes | None) else f"a value of type {type(value).__name__}"
    return f"a function's id is a string, not {shown}"


def first_line(documented: Any) -> str | None:
    """Return the first line of a docstring, if there is one."""
    doc = getattr(documented, "__doc__", None)
    return doc.strip().splitlines()[0] if isinstance(doc, str) and doc.strip() else None


@final
class Registered:
    """A function that a worker offers. Made by `Worker.register_function`."""

    def __init__(self, spec: FunctionSpec, withdraw: Withdraw) -> None:
        self._spec = spec
        self._withdraw = withdraw

    @property
    def id(self) -> str:
        """The function's id."""
        return self._spec.id

    @property
    def refused(self) -> str | None:
        """The reason if the engine refused it, because another worker has it or its URL may not be called."""
        return self._spec.refused

    def unregister(self) -> None:
        """Offer the function no longer. Calls under way go on. A second time is harmless."""
        self._withdraw(self._spec)
