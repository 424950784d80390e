"""The common interface of a worker's functions, trigger types and bindings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from msgspec import Raw

from ..errors import CallError, MisuseError
from ..wire import ABSENT, to_json
from .payload import check_text, encode_payload


class Registration(Protocol):
    """Something that a worker registers with the engine, on this link and on every later one."""

    @property
    def id(self) -> str:
        """The id, unique among the worker's registrations of its kind."""

    def message(self) -> bytes:
        """Return the message that registers it. It is made before, so that this cannot fail on a later link."""

    def withdrawal(self) -> bytes:
        """Return the message that takes it back."""

    def renew(self) -> None:
        """Forget the outcome on the last link, because it is about to be registered on a new one."""


Withdraw: TypeAlias = Callable[[Registration], None]
"""Takes a registration back. A second time is harmless."""


def given_json(value: Any, what: str) -> Raw:
    """Return a part of a registration as JSON, or the mark for an absent field. Raises MisuseError for any other value."""
    if value is None:
        return ABSENT
    try:
        return Raw(encode_payload(value, what))
    except CallError as error:
        raise MisuseError(
            f"{error.message}; give what JSON can hold: texts, numbers, lists, and dicts whose keys are texts"
        ) from None


def derived_json(schema: Any, what: str, instead: str) -> Raw:
    """Return a schema that was made from annotations as JSON, or the mark for an absent field.

    Raises MisuseError for one that cannot be sent, which says to give `instead`.
    """
    if schema is None:
        return ABSENT
    try:
        return Raw(to_json(schema))
    # Defaults and members of enumerations may be anything.
    except (TypeError, ValueError, OverflowError) as error:
        raise MisuseError(f"the schema of {what} cannot be sent as JSON: {error}; give `{instead}`") from None


def checked_description(description: Any, what: str) -> Any:
    """Return a description, or None. Raises MisuseError for one that is not a text that can be sent."""
    if description is not None:
        check_text(description, f"the description of {what}")
    return description
