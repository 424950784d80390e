"""The functions that a worker offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import attrs

from ..errors import MisuseError
from ..wire import RegisterFunction, UnregisterFunction, encode
from .calls import optional
from .handler import Handler, Plan

if TYPE_CHECKING:
    from .offers import Offers
    from .open_call import InlineHandler


@attrs.define(eq=False)
class Declared:
    """One function that a worker offers."""

    id: str
    plan: Plan | None = None
    """None: it has a `prompt`."""
    prompt: InlineHandler | None = None
    """What answers it without a task."""
    description: str | None = None
    metadata: Mapping[str, Any] | None = None
    request_format: Any = None
    response_format: Any = None
    refused: str | None = None
    """Why the engine refused it, if it did: another worker has it."""

    def message(self) -> bytes:
        """How it is said to the engine."""
        return encode(
            RegisterFunction(
                id=self.id,
                description=self.description,
                request_format=optional(self.request_format),
                response_format=optional(self.response_format),
                metadata=optional(self.metadata),
            )
        )

    def withdrawal(self) -> bytes:
        """How it is taken back."""
        return encode(UnregisterFunction(self.id))

    def renew(self) -> None:
        """It is about to be said on a new link."""
        self.refused = None


def declare(
    function_id: str,
    handler: Handler,
    *,
    description: str | None,
    metadata: Mapping[str, Any] | None,
    request_format: Any,
    response_format: Any,
    forbid_extra_keys: bool,
) -> Declared:
    """Read a handler's signature: what was not given is made from it.

    Raises MisuseError for a handler that cannot be called by name.
    """
    check_function_id(function_id)
    plan = Plan.of(function_id, handler, forbid_extra_keys=forbid_extra_keys)
    return Declared(
        function_id,
        plan,
        description=description or first_line(handler),
        metadata=metadata,
        request_format=plan.request_schema() if request_format is None else request_format,
        response_format=plan.response_schema() if response_format is None else response_format,
    )


def check_function_id(function_id: str) -> None:
    """Raise MisuseError for an id under which nobody could call a function."""
    if not isinstance(function_id, str):
        raise MisuseError(f"a function's id is a text, not {function_id!r}")
    if not function_id or not function_id.isprintable() or any(letter.isspace() for letter in function_id):
        raise MisuseError(
            f"{function_id!r} is no function id: write it without spaces and control characters: 'orders::price'"
        )


def first_line(documented: Any) -> str | None:
    """The first line of a docstring, if there is one."""
    doc = getattr(documented, "__doc__", None)
    return doc.strip().splitlines()[0] if isinstance(doc, str) and doc.strip() else None


@final
class Registered:
    """A function that a worker offers."""

    def __init__(self, offers: Offers, declared: Declared) -> None:
        self._offers = offers
        self._declared = declared

    @property
    def id(self) -> str:
        return self._declared.id

    @property
    def refused(self) -> str | None:
        """Why the engine refused it, if it did: another worker has it in this namespace."""
        return self._declared.refused

    def unregister(self) -> None:
        """Offer it no longer; calls under way go on. Twice is harmless."""
        self._offers.withdraw(self._declared)
