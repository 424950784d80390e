"""decode(text) → Message, encode(Message) → text. Envelopes are decoded here, payloads are not."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Final

import msgspec

from .bounds import MAX_ERROR_MESSAGE, MAX_INVOCATION_ID, MAX_NAME
from .diagnosis import explain, top_level_strings
from .gate import KEPT, SHORT, cut, why_unreadable
from .messages import Message

_decoder: Final = msgspec.json.Decoder(Message)
_encoder: Final = msgspec.json.Encoder()
_CHUNK: Final = 1024 * 1024

encode: Final = _encoder.encode


class Undecodable(msgspec.Struct, frozen=True):
    """A text that is not a message, with the names found in it, so that the peer that waits can be answered.

    `type` is empty where not even that could be read. `names` holds `id`, `trigger_type` and `function_id`.
    """

    problem: str
    type: str = ""
    invocation_id: str | None = None
    names: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def function_id(self) -> str:
        """The id of the function, or an empty text."""
        return self.names.get("function_id", "")


def decode(text: bytes | bytearray | memoryview, *, checked: bool = False) -> Message | Undecodable:
    """Decode a message's envelope and check the rest of it (see `gate`), unless it was `checked` before.

    It never raises. A text that is not a message, or that a peer could not read, comes back as `Undecodable`.
    Text and binary messages are read alike and checked for UTF-8, also in the parts that are passed on unparsed.
    """
    plain = bytes(text) if type(text) is memoryview else text
    try:
        message: Message = _decoder.decode(plain)
    except RecursionError:
        return _undecodable(plain, "nested too deeply")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _undecodable(plain, str(error))
    if checked:
        return message
    # The decoder skips payloads without a look at their bytes. ASCII is always UTF-8, and most messages are ASCII.
    if not plain.isascii() and (problem := _not_utf8(plain)) is not None:
        return _undecodable(plain, problem)
    # Short messages cannot be deep or hold a long integer, and most messages are short.
    if len(plain) > SHORT and (problem := why_unreadable(plain)) is not None:
        return _undecodable(plain, problem)
    check = KEPT.get(type(message))
    if check is not None and (problem := check(message)) is not None:
        return _undecodable(plain, problem)
    return message


def _not_utf8(text: bytes | bytearray) -> str | None:
    # In pieces, because the decoded text of a large message may take four times its size.
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(text), _CHUNK):
            decoder.decode(text[at : at + _CHUNK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return f"it is not UTF-8: {error.reason}"
    return None


def _undecodable(text: bytes | bytearray, problem: str) -> Undecodable:
    found = top_level_strings(text)
    invocation_id = found.get("invocation_id")
    # An id that is too long would be sent back in the answer.
    if invocation_id is not None and len(invocation_id) > MAX_INVOCATION_ID:
        invocation_id = None
    names: dict[str, str] = {
        name: found[name][:MAX_NAME] for name in ("id", "trigger_type", "function_id") if name in found
    }
    return Undecodable(
        cut(problem, MAX_ERROR_MESSAGE) + explain(text, problem),
        found.get("type", "")[:MAX_NAME],
        invocation_id,
        names,
    )
