"""Payloads between Python and the wire, where refs become live ends and live ends become refs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, final

import attrs
import msgspec

from ..errors import CallError, MisuseError
from ..structure import to_builtin, with_taught_forms
from ..wire import ErrorCode, JsonValue, Ref, is_ref
from .ends import ChannelReader, ChannelWriter

End = ChannelReader | ChannelWriter


def _as_json(value: Any) -> Any:
    if isinstance(value, ChannelReader | ChannelWriter):
        return value.ref
    return to_builtin(value)


_encode: Final = msgspec.json.Encoder(enc_hook=_as_json).encode


def encode_payload(value: Any, what: str) -> bytes:
    """Return a payload, result or metadata as JSON. Channel ends in it become their refs, and count as passed on.

    attrs classes and dataclasses become objects. Raises CallError `serialization_error`, naming the place of the fault.
    """
    try:
        value = with_taught_forms(value)
        text = _encode(value)
        _check_nothing_is_made_up(value)
        return text
    except RecursionError:
        problem = "it is nested too deeply, or contains itself"
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        where, fault = _at_fault(value, "") or ("", error)
        problem = f"{where}: {fault}" if where else str(fault)
    raise CallError(ErrorCode.SERIALIZATION_ERROR, f"{what} cannot be sent as JSON: {problem}")


_BACKSLASH: Final = ord("\\")
_JSON: Final = frozenset({str, int, bool, type(None)})


def _check_nothing_is_made_up(value: Any) -> None:
    """Raise ValueError for values that the encoder would change: NaN into null, bytes into base64."""
    waiting = [value]
    for item in waiting:  # it grows meanwhile
        kind = type(item)
        if kind is dict:
            for key, inner in item.items():
                if type(key) is not str and not isinstance(key, str):
                    raise ValueError("a key that is not text")
                if type(inner) not in _JSON:
                    waiting.append(inner)
        elif kind is list or kind is tuple:
            waiting += [inner for inner in item if type(inner) not in _JSON]
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError(f"{item} is not JSON")
        elif attrs.has(kind):
            waiting += [getattr(item, field.name) for field in attrs.fields(kind)]
        elif isinstance(item, bytes | bytearray | memoryview):
            raise ValueError("bytes are not JSON: stream them through a channel, or choose an encoding")


def _at_fault(value: Any, path: str) -> tuple[str, Exception] | None:
    """Return the path of the first value inside that cannot be encoded, and its error."""
    items: list[tuple[str, Any]] = []
    if attrs.has(type(value)):
        value = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
    for where, inner in items:
        try:
            inner = with_taught_forms(inner)
            _encode(inner)
            _check_nothing_is_made_up(inner)
        except Exception as error:
            return _at_fault(inner, where) or (where, error)
    return None


def check_text(value: object, what: str) -> None:
    """Raise MisuseError for a value that is not a text, or that holds a lone surrogate, which JSON cannot."""
    if not isinstance(value, str):
        raise MisuseError(f"{what} is of type {type(value).__name__}; give a text")
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MisuseError(
            f"{what} is {value!r} and cannot be sent: {value[error.start]!r} is half a character; leave it out"
        ) from None


def may_hold_refs(text: bytes) -> bool:
    """Return whether the JSON of a payload may hold a ref. Most payloads hold none."""
    # The name of a ref's key may be written with escapes. `find` is faster than `in`, which takes bytes for a number first.
    return text.find(b"channel_id") >= 0 or _BACKSLASH in text


def with_live_ends(value: JsonValue, make: Callable[[Ref], End]) -> Any:
    """Return the payload with each ref in it, at any depth, replaced by a live end that `make` returns."""
    if is_ref(value):
        return make(Ref.from_json(value))
    waiting: list[Any] = [value]
    # A loop and not a recursion, because payloads may be nested deeply.
    while waiting:
        container = waiting.pop()
        if type(container) is dict:
            items: Iterable[tuple[Any, Any]] = container.items()
        elif type(container) is list:
            items = enumerate(container)
        else:
            continue
        # To replace a value of a dict while it is walked is safe, because no key comes or goes.
        for key, inner in items:
            if type(inner) is dict and is_ref(inner):
                container[key] = make(Ref.from_json(inner))
            elif type(inner) is dict or type(inner) is list:
                waiting.append(inner)
    return value


@final
class Ends(list[End]):
    """The channel ends of a call that have not been seen to (clause C5.4)."""

    __slots__ = ()

    def let_go(self, finish: Callable[[ChannelWriter], None]) -> None:
        """End the ends of a call that returned. `finish` closes writers.

        Ends that were passed on are left alone. A writer that was neither used nor passed on delivers an empty stream.
        """
        for end in self._mine():
            # A clean end would make the part that another task has sent look whole.
            if isinstance(end, ChannelWriter) and end._in_block:
                end.abort("the handler returned while a task was within the writer's block; `detach()` hands it on")
            elif isinstance(end, ChannelWriter):
                finish(end)
            else:
                end.cancel("the handler returned")

    def break_off(self, reason: str, code: str | None) -> None:
        """End the ends of a call that raised or was cancelled by force."""
        for end in self._mine():
            end._end_by_force(reason, code)

    def _mine(self) -> list[End]:
        return [end for end in self if end._is_left_to_its_call]
