"""The records that are kept, which are spans, lines of logs and measurements of the engine and of workers."""

from __future__ import annotations

import logging
import re
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from ...observed import LogLine
from ...report import visible

Attributes = dict[str, Any]

_SECRET: Final = frozenset({
    "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "api_key", "access_token",
    "refresh_token", "password", "secret", "credential",
})  # fmt: skip
"""The names of attributes whose values are never kept. The last part of a longer name counts as well."""
_USERINFO: Final = r"(?<=://)[^/?#\s]*@"
_PARAMETER: Final = r"(?P<name>(?:^|[?&;#])[^?&;#=\s]{1,128}=)[^&;#\s]+"
_SECRET_PARAMETER: Final = (
    r".*(?:token|signature|secret|password|credential|api[-_]?key)"
    r"|sig|key|pwd|passwd|jwt|auth|authorization|awsaccesskeyid"
)
"""The names of parameters of a URL whose values are never kept, in small letters."""
REDACTED: Final = "[REDACTED]"
_MAX_DEPTH: Final = 64
"""Levels of lists and maps in which secrets are looked for. Deeper ones are not kept, because a worker decides the depth."""
BASE_BYTES: Final = 900
"""The memory of a record without its texts, measured."""
STATUS: Final = {0: "unset", 1: "ok", 2: "error"}


class Resource(msgspec.Struct, gc=False):
    """The service that made a record."""

    service: str
    attributes: Attributes
    size: int = 0
    """The memory that each of its records is counted with for it, in bytes."""


class Scope(msgspec.Struct, frozen=True, gc=False):
    """The library that made a record."""

    name: str | None = None
    version: str | None = None


class Event(msgspec.Struct, gc=False):
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: Attributes


class SpanLink(msgspec.Struct, gc=False):
    """Another span that this one has to do with."""

    trace_id: str
    span_id: str
    trace_state: str
    attributes: Attributes
    flags: int = 0


class StoredSpan(msgspec.Struct, gc=False):
    """One span. Times are in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    status_text: str | None
    attributes: Attributes
    events: list[Event]
    links: list[SpanLink]
    resource: Resource
    scope: Scope
    flags: int
    trace_state: str
    size: int
    """The memory that it is counted with, in bytes."""
    pending: bool = False
    """Whether it had not ended when its service sent it."""

    @property
    def internal(self) -> bool:
        """Whether it is work of the engine itself or of one of its modules."""
        return self.attributes.get("iii.function.kind") == "internal"


class StoredLog(msgspec.Struct, gc=False):
    """One line of a log."""

    time_ns: int
    observed_ns: int
    severity: int
    severity_text: str
    body: str
    attributes: Attributes
    trace_id: str | None
    span_id: str | None
    resource: Resource
    scope: Scope
    size: int
    """The memory that it is counted with, in bytes."""


class Buckets(msgspec.Struct, gc=False):
    """The distribution of a histogram."""

    counts: list[int]
    bounds: list[float]
    low: float | None = None
    """The smallest value. None: it is not known."""
    high: float | None = None


class StoredPoint(msgspec.Struct, gc=False):
    """One measurement of a worker or of the engine."""

    name: str
    kind: str
    """`gauge`, `sum` or `histogram`."""
    unit: str
    time_ns: int
    value: float | int
    """Of a histogram: its sum."""
    count: int | None
    attributes: Attributes
    resource: Resource
    size: int
    """The memory that it is counted with, in bytes."""
    start_ns: int = 0
    """The beginning of the time that a sum or a histogram is about. 0: it is not known."""
    is_delta: bool = False
    """Whether it is about the time since the last measurement, and not about all time."""
    is_monotonic: bool = False
    """Whether a sum never falls."""
    buckets: Buckets | None = None
    scope: Scope = Scope()


def keep_log(line: LogLine, now_ns: int, resource: Resource, scope: Scope) -> StoredLog:
    """Return a line of the engine's log, or of `engine::log::*`, as it is kept."""
    body, attributes, severity = clean(line.body), redacted(line.attributes), _severity(line.level)
    return StoredLog(
        now_ns,
        now_ns,
        severity,
        severity_text(severity),
        body,
        attributes,
        line.trace_id,
        line.span_id,
        resource if line.service == resource.service else Resource(line.service, {"service.name": line.service}),
        scope,
        size_of(body, attributes),
    )


def _severity(level: int) -> int:
    """Return OTLP's number of a level of `logging`."""
    # Trace is 1, debug 5, info 9, warning 13 and error 17. Python's levels are ten apart from 10 on.
    return 1 if level < logging.DEBUG else min(17, (level // 10 - 1) * 4 + 5)


def log_level(severity: int) -> int:
    """Return the level of `logging` for a severity number of OTLP."""
    for min_severity, level in ((17, logging.ERROR), (13, logging.WARNING), (9, logging.INFO)):
        if severity >= min_severity:
            return level
    return logging.DEBUG if severity else logging.INFO


def redacted(attributes: Attributes, depth: int = 0) -> Attributes:
    """Return attributes without the values whose names say that they are secret, within maps and URLs as well."""
    return {key: REDACTED if is_secret(key) else _without_secrets(value, depth) for key, value in attributes.items()}


def _without_secrets(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        # Libraries for HTTP put the whole URL into an attribute (`url.full`, `http.url`), and those for databases theirs.
        if "@" in value:
            value = re.sub(_USERINFO, f"{REDACTED}@", value)
        return re.sub(_PARAMETER, _without_parameter, value) if "=" in value else value
    if not isinstance(value, dict | list):
        return value
    if depth >= _MAX_DEPTH:
        return REDACTED
    return (
        redacted(value, depth + 1) if isinstance(value, dict) else [_without_secrets(each, depth + 1) for each in value]
    )


def _without_parameter(match: re.Match[str]) -> str:
    name = unquote(match["name"]).strip("?&;#=").lower()
    return match["name"] + REDACTED if re.fullmatch(_SECRET_PARAMETER, name) else match[0]


def is_secret(name: str) -> bool:
    """Return whether an attribute of this name holds a secret."""
    # `http.request.header.authorization` is as secret as `authorization`.
    name = name.lower()
    return name in _SECRET or name.rsplit(".", 1)[-1] in _SECRET


def severity_text(severity: int) -> str:
    """Return the name of a severity number of OTLP."""
    for low, name in ((21, "FATAL"), (17, "ERROR"), (13, "WARN"), (9, "INFO"), (5, "DEBUG"), (1, "TRACE")):
        if severity >= low:
            return name
    return ""


def clean(text: str) -> str:
    """Return a line without colours and control characters."""
    # Most lines have no colours, and splitting costs.
    if "\x1b" in text:
        text = _without_colours(text)
    return visible(text.replace("\n", " "))


def _without_colours(text: str) -> str:
    first, *rest = text.split("\x1b[")
    parts = [first]
    for part in rest:
        # A control sequence ends with its first letter.
        end = next((at for at, letter in enumerate(part) if "@" <= letter <= "~"), len(part) - 1)
        parts.append(part[end + 1 :])
    return "".join(parts)


def size_of(name: str, attributes: Attributes, extra: int = 0) -> int:
    """Return the memory that a record with these texts is counted with."""
    return BASE_BYTES + extra + len(name) + sum(len(key) + len(str(value)) for key, value in attributes.items())
