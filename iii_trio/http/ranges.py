"""Which bytes of a file a request wants, and whether it wants any: RFC 9110 sections 13 and 14, without a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

from ..records import frozen

MAX_RANGES: Final = 16
"""Ranges of one request. More are served as the whole file (RFC 9110 section 14.2 permits it)."""
_RANGE: Final = re.compile(r"[ \t]*(\d{0,18})-(\d{0,18})[ \t]*")
_TAG: Final = re.compile(r'(W/)?("[^"]*")')


@frozen
class Version:
    """What a client compares with what it has."""

    size: int
    mtime_ns: int

    @property
    def etag(self) -> str:
        """A strong tag: another content has another one, as far as the file system tells."""
        return f'"{self.mtime_ns:x}-{self.size:x}"'

    @property
    def modified(self) -> datetime:
        """The time of the last change, in whole seconds."""
        return datetime.fromtimestamp(self.mtime_ns // 1_000_000_000, UTC)

    @property
    def last_modified(self) -> str:
        """The time of the last change, as HTTP writes it."""
        return format_datetime(self.modified, usegmt=True)


def precondition(headers: Mapping[str, str], version: Version) -> int | None:
    """Return 412 or 304 if the request's conditions decide so, None if the file is to be sent (section 13.2.2)."""
    if (tags := headers.get("if-match")) is not None:
        if not _matches(tags, version, weak=False):
            return 412
    elif (since := _date(headers.get("if-unmodified-since"))) is not None and version.modified > since:
        return 412
    if (tags := headers.get("if-none-match")) is not None:
        return 304 if _matches(tags, version, weak=True) else None
    if (since := _date(headers.get("if-modified-since"))) is not None and version.modified <= since:
        return 304
    return None


def wanted_ranges(headers: Mapping[str, str], version: Version) -> list[range] | None:
    """Return the ranges that a request wants: None for the whole file, and none at all if nothing can satisfy it."""
    unit, _, text = headers.get("range", "").partition("=")
    # RFC 9110 lets a server ignore units that it does not know.
    if unit.strip().lower() != "bytes":
        return None
    if (only_if := headers.get("if-range")) is not None:
        same = only_if.strip() == version.etag if '"' in only_if else _date(only_if) == version.modified
        # The client has parts of another version, so it needs the whole file.
        if not same:
            return None
    found = []
    pieces = text.split(",")
    for piece in pieces:
        match = _RANGE.fullmatch(piece)
        # An invalid header is ignored as RFC 9110 section 14.2 permits.
        if match is None or match[0].strip() == "-":
            return None
        first, last = match[1], match[2]
        # Without a first position the number is a suffix length (RFC 9110 section 14.1.2).
        if not first:
            wanted = range(max(0, version.size - int(last)), version.size)
        else:
            if last and int(last) < int(first):
                return None
            wanted = range(int(first), min(int(last) + 1, version.size) if last else version.size)
        if len(wanted):
            found.append(wanted)
    if len(pieces) > MAX_RANGES or sum(map(len, found)) > version.size:  # an attack, or no gain
        return None
    return found


def _matches(tags: str, version: Version, *, weak: bool) -> bool:
    if tags.strip() == "*":
        return True
    return any(tag == version.etag and (weak or not is_weak) for is_weak, tag in _TAG.findall(tags))


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
