"""Refs, the small JSON values that name channel ends, and the request targets at which ends are attached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeGuard
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import attrs

from ..errors import MessageError
from ..records import frozen
from .codes import Direction
from .json import JsonValue


@frozen
class Ref:
    """The name of one end of one channel. Its access key opens this direction only (clause C1.2)."""

    channel_id: str
    access_key: str = attrs.field(repr=False)
    direction: Direction = attrs.field(converter=Direction)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the ref as it stands in a payload."""
        return {"channel_id": self.channel_id, "access_key": self.access_key, "direction": str(self.direction)}

    @classmethod
    def from_json(cls, value: Mapping[str, JsonValue]) -> Ref:
        """Read a ref. Raises MessageError if `value` is not a ref."""
        if not is_ref(value):
            raise MessageError(f"not a channel ref: {value!r}; it needs channel_id, access_key and direction")
        return cls(str(value["channel_id"]), str(value["access_key"]), Direction(str(value["direction"])))


def is_ref(value: object) -> TypeGuard[Mapping[str, JsonValue]]:
    """Return whether SDKs take a JSON value for a ref.

    It has three strings, one of which is a known direction. It may have other keys.
    """
    return (
        (type(value) is dict or isinstance(value, Mapping))  # the check of the abstract class costs more than the rest
        and isinstance(value.get("channel_id"), str)
        and isinstance(value.get("access_key"), str)
        and value.get("direction") in ("read", "write")
    )


def find_refs(value: JsonValue, path: str = "") -> Iterator[tuple[str, Ref]]:
    """Yield each ref in a JSON value with its path, as in `"a.b.0.c"`. The path of the value itself is empty."""
    waiting: list[tuple[str, JsonValue]] = [(path, value)]
    # This is a loop and not a recursion, because payloads may be nested deeply.
    while waiting:
        at, item = waiting.pop()
        if is_ref(item):
            yield at, Ref.from_json(item)
        elif isinstance(item, dict):
            waiting.extend((f"{at}.{key}" if at else key, inner) for key, inner in reversed(item.items()))
        elif isinstance(item, list):
            waiting.extend((f"{at}.{i}" if at else str(i), inner) for i, inner in reversed(list(enumerate(item))))


PREFIX = "/ws/channels/"


def attach_target(ref: Ref, base: str = "/") -> str:
    """Return the request target of an end, which is a path below that of `base`, and a query."""
    parts = urlsplit(base)
    query = urlencode(
        [*parse_qsl(parts.query, keep_blank_values=True), ("key", ref.access_key), ("dir", ref.direction)]
    )
    return f"{parts.path.rstrip('/')}{PREFIX}{quote(ref.channel_id, safe='')}?{query}"


def read_attach_target(path: str, query: str) -> Ref:
    """Read the ref of a request target.

    Raises MessageError if `key` or `dir` is missing, or if `dir` is neither `read` nor `write`.
    """
    named = _parameters(query)
    if not named.get("key"):
        raise MessageError("the query parameter `key` (the ref's access_key) is missing")
    if named.get("dir") not in ("read", "write"):
        raise MessageError("the query parameter `dir` must be `read` or `write`")
    return Ref(path.removeprefix(PREFIX), named["key"], named["dir"])


def _parameters(query: str) -> dict[str, str]:
    """Return the parameters of a query. SDKs append theirs to those of the address, so the last one of a name counts."""
    if "%" in query or "+" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    # Ids and keys need no escapes, and the parser takes four times as long.
    pairs = [each.partition("=") for each in query.split("&")]
    return {name: value for name, _, value in pairs}
