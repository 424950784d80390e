"""Names and reasons out of a text that is not a message, from its first bytes, its last, and those near the fault.

The time is bounded, whatever the size of the text: about a millisecond (decision 0014).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

HEAD_BYTES: Final = 64 * 1024
TAIL_BYTES: Final = 2 * 1024
NEAR_BYTES: Final = 64
MAX_TOKENS: Final = TAIL_BYTES
"""Tokens that are looked at, from each end. The last bytes have no more, so they are always read to their end."""

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'  # a string, or the start of one that was cut off
_OUTERMOST: Final = b"(?s)" + _STRING + rb'|[{}\[\],:]|[^{}\[\],:"]++'
_DEEPER: Final = rb"(?s)[{\[]++|[}\]]++|(?:[^\"{}\[\]]++|" + _STRING + rb")++"
_END_OF_STRING: Final = rb'(?s)(?:[^"\\]++|\\.)*+"'
_BYTE: Final = r"\(byte (\d+)\)"
_NO_NUMBER: Final = rb"[:\[,]\s*+-?(NaN|Infinity)\b"
_LONE_SURROGATE: Final = rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F].."


def top_level_strings(text: bytes | bytearray | memoryview) -> dict[str, str]:
    """Return the string fields of the outermost object that stand in its first and its last bytes.

    The strict decoder refuses such texts (NaN, lone surrogates, depth, a missing end), and a tolerant decoder would
    fail on depth. Of two fields of one name the first counts.
    """
    found: dict[str, str] = {}
    head = bytes(text[:HEAD_BYTES])
    read_whole = False
    for _, key, value in _pairs(head, _DEEPER):
        _add(found, key, value)
        read_whole = not key and len(head) == len(text)
    if not read_whole:
        _add_from_tail(found, _tail(text))
    return found


def _tail(text: bytes | bytearray | memoryview) -> bytes:
    """Return the last bytes of a text, but for a first one that a backslash before it escapes."""
    start = max(0, len(text) - TAIL_BYTES)
    before = bytes(text[max(0, start - HEAD_BYTES) : start])
    # Of two backslashes the first escapes the second.
    is_escaped = (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
    return bytes(text[start + is_escaped :])


def _pairs(text: bytes, deeper: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield depth, key and value of fields that are strings. A last item without key holds the depth at the end."""
    # They are compiled here and not at the import, because most engines never see an unreadable text.
    outermost, other = re.compile(_OUTERMOST), re.compile(deeper)
    depth = at = 0
    key: bytes | None = None
    after_colon = False
    for _ in range(MAX_TOKENS):
        match = (outermost if depth == 1 else other).match(text, at)
        if match is None:
            break
        at = match.end()
        token = match[0]
        # A token may open or close several levels at once.
        if token[:1] in b"{[":
            depth += len(token)
            key, after_colon = None, False
        elif token[:1] in b"}]":
            depth -= len(token)
            key, after_colon = None, False
        # Fields of inner objects are of no interest. In the tail every depth counts until the end is known.
        elif depth != 1 and deeper is not _OUTERMOST:
            continue
        elif token == b",":
            key, after_colon = None, False
        elif token == b":":
            after_colon = True
        elif token[:1] == b'"':
            if not after_colon:
                key = token
            elif key is not None:
                yield depth, key, token
    # The text was read to its end, so that its depth there is known.
    if at == len(text):
        yield depth, b"", b""


def _add_from_tail(found: dict[str, str], tail: bytes) -> None:
    """Add the fields of the outermost object that its last bytes hold."""
    # The tail may begin inside a string. Of the two readings, one ends outside of a string, and that is the right one.
    end_of_string = re.match(_END_OF_STRING, tail)
    readings = [tail] if end_of_string is None else [tail, tail[end_of_string.end() :]]
    for reading in readings:
        pairs = list(_pairs(reading, _OUTERMOST))
        if not pairs or pairs[-1][1] or not reading.rstrip().endswith(b"}"):
            continue
        # Depths count from the start of the tail. The end of the text is at depth 0.
        outermost = pairs[-1][0] + 1
        if any(depth < outermost for depth, _, _ in pairs[:-1]):
            continue
        if _ends_in_string(reading):
            continue
        for depth, key, value in pairs[:-1]:
            if depth == outermost:
                _add(found, key, value)
        return


def _ends_in_string(text: bytes) -> bool:
    return text.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') % 2 == 1


def _add(found: dict[str, str], key: bytes, value: bytes) -> None:
    if not key:
        return
    try:
        name, content = json.loads(key), json.loads(value)
        content.encode()
    # The text may be cut off, or hold a lone surrogate.
    except ValueError:
        return
    found.setdefault(name, content)


def explain(text: bytes | bytearray | memoryview, problem: str) -> str:
    """Return what to do about a fault that Python's own JSON allows and JSON does not, or an empty text."""
    found = re.search(_BYTE, problem)
    # The place that the decoder names is the likeliest one, so it is looked at first.
    places = [bytes(text[:HEAD_BYTES])]
    if found is not None:
        at = int(found[1])
        places.insert(0, bytes(text[max(0, at - NEAR_BYTES) : at + NEAR_BYTES]))
    for place in places:
        if (match := re.search(_NO_NUMBER, place)) is not None:
            return f"; {match[1].decode()} is not JSON: send null, or a string, in its place"
    for place in places:
        if (match := re.search(_LONE_SURROGATE, place)) is not None:
            shown = match[0].decode(errors="replace")
            return f"; {shown} is half a character (a lone surrogate), which is not valid Unicode"
    return ""
