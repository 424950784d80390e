"""The handler's input is a request as JSON. Conditions and middleware get less of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw

from ...wire import MAX_DEPTH, nests_deeper
from .routes import Match

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
_MAX_FIELDS: Final = 1000
"""Fields of one query. More are refused, because each costs the handler an entry."""
_MAX_BODY_DEPTH: Final = MAX_DEPTH - 2
"""Levels of a JSON body. The call and its input, which contain it, take two of those that the engine passes on."""
LARGE_BODY_BYTES: Final = 256 * 1024
"""Bytes of a JSON body that is decoded to be checked, which takes 13 ms at most. Of larger ones the syntax is checked."""
_syntax: Final = msgspec.json.Decoder(Raw)


class BadQuery(ValueError):
    """A query that cannot be read. The text says why."""


def query_params(query: str) -> dict[str, str | list[str]]:
    """Decode a query. A name that occurs several times has the list of its values. Raises BadQuery."""
    found: dict[str, str | list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise BadQuery(f"the query has more than {_MAX_FIELDS} fields") from None
    for name, value in pairs:
        before = found.get(name)
        if before is None:
            found[name] = value
        elif isinstance(before, list):
            # The third value and later ones join the list of the first two.
            before.append(value)
        else:
            found[name] = [before, value]
    return found


def header_dict(headers: Headers) -> dict[str, str]:
    """Return headers by lower-case name.

    Repeated ones are joined (RFC 9110 section 5.3, and RFC 9113 section 8.2.3 for Cookie).
    """
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in found:
            found[name] += ("; " if name == "cookie" else ", ") + value
        else:
            found[name] = value
    return found


def is_json(content_type: str) -> bool:
    """Return whether a media type is JSON: `application/json` or any `+json`, in any case, with any parameters."""
    media = content_type.partition(";")[0].strip().lower()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def check_body(body: bytes) -> tuple[Raw | None, str | None]:
    """Check a JSON body. Returns it as it came, for the handler's input, and the error if it is not JSON.

    It is not made into values and into JSON again, because that takes two seconds for 16 MB of empty lists, in which the
    engine does nothing else. The numbers of a large body are not looked at, as those of any payload that is passed on. One
    that is out of range is an error of the handler's worker.
    """
    # An empty body is common with this content type, and no error.
    if not body:
        return None, None
    if nests_deeper(body, _MAX_BODY_DEPTH):
        return None, f"the body is nested too deeply: more than {_MAX_BODY_DEPTH} levels"
    try:
        if len(body) <= LARGE_BODY_BYTES:
            msgspec.json.decode(body)
        else:
            _syntax.decode(body)
            # The check of the syntax takes any bytes within a text.
            if not body.isascii():
                body.decode()
        return Raw(body), None
    except RecursionError:
        return None, "the body is nested too deeply"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, f"the body is not JSON: {error}"


def handler_input(
    match: Match,
    method: str,
    query: Mapping[str, str | list[str]],
    headers: Mapping[str, str],
    body: Any,
    body_error: str | None,
) -> dict[str, Any]:
    """Build what conditions get; handlers get the two channel ends besides.

    `path` is the template as its owner wrote it. `body_error` is there only for a JSON body that could not be parsed: the
    handler then has a body of null, and the exact bytes in `request_body`.
    """
    template = match.route.template
    found: dict[str, Any] = {
        "query_params": query,
        "path_params": match.parameters,
        "headers": headers,
        "path": template,
        "method": method,
        "body": body,
        "trigger": {"type": "http", "path": template, "method": match.route.method},
    }
    if body_error is not None:
        found["body_error"] = body_error
    return found


def middleware_input(
    match: Match, method: str, query: Mapping[str, str | list[str]], headers: Mapping[str, str]
) -> dict[str, Any]:
    """Build what a middleware function gets."""
    request = {"path_params": match.parameters, "query_params": query, "headers": headers, "method": method}
    return {"phase": "preHandler", "request": request, "context": {}}
