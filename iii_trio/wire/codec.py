"""decode(text) → Message, encode(Message) → text. Envelopes are split here, payloads are not."""

from __future__ import annotations

import re
from typing import Final

import attrs
import msgspec

from .json import top_level_strings
from .messages import Message

_decoder: Final = msgspec.json.Decoder(Message)
_encoder: Final = msgspec.json.Encoder()

encode: Final = _encoder.encode


@attrs.frozen
class Undecodable:
    """A text that is no message.

    What could still be made out of it names the call that it belonged to, so that whoever waits can be told.
    `type` is empty where not even that could be read.
    """

    problem: str
    type: str = ""
    invocation_id: str | None = None
    function_id: str = ""


def decode(text: bytes | bytearray | memoryview) -> Message | Undecodable:
    """Split a message's envelope. Never raises; what cannot be read comes back as `Undecodable`.

    Text and binary messages are read alike and checked for UTF-8, also in the parts that are passed on unparsed.
    """
    try:
        message: Message = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _undecodable(bytes(text), error)
    plain = bytes(text) if isinstance(text, memoryview) else text
    if not plain.isascii():
        try:
            plain.decode()
        except UnicodeDecodeError as error:
            return _undecodable(bytes(plain), error)
    return message


def _undecodable(text: bytes, error: Exception) -> Undecodable:
    seen = top_level_strings(text)
    problem = "nested too deeply" if isinstance(error, RecursionError) else str(error) + _why_not(text)
    return Undecodable(problem, seen.get("type", ""), seen.get("invocation_id"), seen.get("function_id", ""))


_NO_NUMBER: Final = re.compile(rb"[:\[,]\s*+-?(NaN|Infinity)\b")
_LONE_SURROGATE: Final = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..")


def _why_not(text: bytes) -> str:
    """What Python's own JSON allows and JSON does not, if that is in it."""
    if (found := _NO_NUMBER.search(text)) is not None:
        return f"; {found[1].decode()} is not JSON: send null, or a text, in its place"
    if (found := _LONE_SURROGATE.search(text)) is not None:
        return f"; {found[0].decode(errors='replace')} is half a character (a lone surrogate), which is no Unicode"
    return ""
