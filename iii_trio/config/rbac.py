"""Settings of a guarded listener: the functions that decide who comes in and what a session may do there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from ..records import frozen

_MATCH: Final = r"""match\(\s*(?:"([^"]*)"|'([^']*)')\s*\)"""


def pattern_in(text: str) -> str | None:
    """Return the pattern in a text of the form `match("svc::*")`, or None for other texts."""
    found = re.fullmatch(_MATCH, text.strip())
    return None if found is None else found[1] if found[1] is not None else found[2]


def _frozen(metadata: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if metadata is None else MappingProxyType(dict(metadata))


@frozen
class FunctionFilter:
    """The functions that sessions of a guarded listener may call: by a pattern of their ids, or by their metadata.

    In a pattern `*` stands for any characters. A pattern without `*` is one id.
    A text of the form `match("…")` as a metadata value is a pattern as well.
    """

    match: str | None = None
    metadata: Mapping[str, Any] | None = attrs.field(default=None, converter=_frozen, kw_only=True)
    namespace: str = attrs.field(default="default", kw_only=True)

    def __attrs_post_init__(self) -> None:
        # With neither the filter would match nothing, and with both it is unclear which one decides.
        if (self.match is None) == (self.metadata is None):
            raise ValueError("a filter has exactly one of 'match' and 'metadata'")
        for name in ("match", "namespace"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ValueError(f"{name!r} of a filter is {value!r}: give a string that is not empty")


def _filters(filters: Iterable[FunctionFilter]) -> tuple[FunctionFilter, ...]:
    filters = tuple(filters)
    for each in filters:
        # A plain text here would not be a filter, and the mistake should show before a session is refused.
        if not isinstance(each, FunctionFilter):
            raise TypeError(f"'expose_functions' has {each!r}: give FunctionFilter objects")
    return filters


def _function_id(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError(f"{field.name!r} is {value!r}: give the id of a function")


def _function() -> Any:
    return attrs.field(default=None, validator=_function_id)


@frozen
class RbacConfig:
    """The access rules of a guarded listener. All functions named here are called in the namespace `default`.

    Without an auth function every connection comes in. Sessions then may call what `expose_functions` names.
    """

    auth_function_id: str | None = _function()
    """Decides on each connection, and says what it may do. It has to live on another listener."""
    expose_functions: tuple[FunctionFilter, ...] = attrs.field(default=(), converter=_filters)
    on_function_registration_function_id: str | None = _function()
    on_trigger_registration_function_id: str | None = _function()
    on_trigger_type_registration_function_id: str | None = _function()
