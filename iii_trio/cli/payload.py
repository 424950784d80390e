"""The payload of a call, from `--json` and `key=value` arguments."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from .exits import UsageError


def make_payload(text: str | None, pairs: Sequence[str]) -> Any:
    """Return the payload that `--json TEXT` and `key=value` say; the pairs override its keys. `{}` where nothing is said.

    A pair's value is JSON if it can be read as JSON, else text. Raises UsageError.
    """
    payload: Any = {} if text is None else _read_json(text)
    if not pairs:
        return payload
    # Keys can only be merged into an object.
    if not isinstance(payload, dict):
        raise UsageError(f"--json is {_kind(payload)}, which has no keys for {pairs[0]!r}; give an object, or no pairs")
    return {**payload, **read_pairs(pairs)}


def with_ref(payload: Any, key: str, ref: object) -> dict[str, Any]:
    """Return the payload with a channel's ref under `key`. Raises UsageError where the key is taken or there are no keys."""
    if not isinstance(payload, dict):
        raise UsageError(f"--json is {_kind(payload)}, but the channel goes under the key {key!r}; give an object")
    # Overwriting the user's own value would surprise.
    if key in payload:
        raise UsageError(f"{key!r} is the key of the channel; name another one with --as, or leave out {key}=…")
    return {**payload, key: ref}


def read_pairs(pairs: Sequence[str]) -> Mapping[str, Any]:
    """`["n=1", "name=Ada"]` → `{"n": 1, "name": "Ada"}`. Raises UsageError."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        # A bare word is most likely a forgotten key.
        if not equals or not key:
            raise UsageError(f"{pair!r} is not a key=value pair; write for example name={pair.strip('=') or 'value'}")
        # Taking the last one silently would hide a typing mistake.
        if key in found:
            raise UsageError(f"{key!r} is given twice; keep one of the two")
        found[key] = _json_or_text(value)
    return found


def json_hint(problem: str, pairs: Sequence[str]) -> str:
    """Return the hint for an error about a text, if the value of its pair was read as JSON. Otherwise return no text."""
    for pair in pairs:
        key, _, value = pair.partition("=")
        is_text = isinstance(_json_or_text(value), str)
        if not is_text and re.search(rf"(?<![\w.]){re.escape(key)}: expected a string\b", problem):
            quoted = shlex.quote(f"{key}={json.dumps(value, ensure_ascii=False)}")
            return f"; {value} was read as JSON, so write {quoted} for a string"
    return ""


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant)
    # Plain text is the common case, so it needs no quotes.
    except (ValueError, RecursionError):
        return value


def _read_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise UsageError(f"--json is not JSON: {error.msg} at character {error.pos + 1} of {text[:60]!r}") from None
    # Constants such as NaN and deeply nested text are not syntax errors to the parser.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--json is not JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} does not exist in JSON")


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
