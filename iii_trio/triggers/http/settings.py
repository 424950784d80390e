"""Settings of the HTTP module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from attrs import validators

from ...config import Tls
from ...records import settings
from .cors import Cors

_positive: Any = validators.gt(0)


@settings
class Middleware:
    """A function that every request passes before its route. Smaller priorities come first."""

    function_id: str
    priority: int = 0


@settings
class HttpLimits:
    """What one client, and all together, may take."""

    head_bytes: int = attrs.field(default=64 * 1024, validator=_positive)
    """The largest head of a request. A larger one is answered with 431."""
    json_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=_positive)
    """The largest JSON body, which is kept as a whole. A larger one is answered with 413. Other bodies have no bound."""
    json_total_bytes: int = attrs.field(default=256 * 1024 * 1024, validator=_positive)
    """The JSON bodies that are kept at one time. A request that would exceed it is answered with 503."""
    connections: int = attrs.field(default=10_000, validator=_positive)
    """Connections at one time. One more is answered with 503."""
    head_seconds: float = attrs.field(default=10.0, validator=_positive)
    """The time for a head to come, from its first byte or from the start of the connection."""
    idle_seconds: float = attrs.field(default=75.0, validator=_positive)
    """How long a connection may wait for its next request."""
    body_seconds: float = attrs.field(default=60.0, validator=_positive)
    """How long a client may send nothing of a body that the handler waits for."""
    stalled_seconds: float = attrs.field(default=60.0, validator=_positive)
    """How long a client may take nothing of a response before the connection is cut."""
    total_seconds: float | None = attrs.field(default=None, validator=validators.optional(_positive))
    """The longest that a request may take, from its head to the end of its response. None: no bound."""
    wait_seconds: float = attrs.field(default=10.0, validator=_positive)
    """How long a request waits for others to end, where `concurrency_request_limit` is reached, before it gets 503."""


def _in_order(middleware: Iterable[Middleware]) -> tuple[Middleware, ...]:
    return tuple(sorted(middleware, key=lambda one: one.priority))


@settings
class HttpConfig:
    """The HTTP module: one listener, and what holds for its requests."""

    host: str = "127.0.0.1"
    port: int = attrs.field(default=3111, validator=validators.and_(validators.ge(0), validators.le(65535)))
    unix: str | None = None
    """The path of a unix socket to listen at instead."""
    mode: int = attrs.field(default=0o600, validator=validators.and_(validators.ge(0), validators.le(0o777)))
    """The file mode of that socket, whatever the umask is."""
    descriptors: tuple[int, ...] = ()
    """Listening sockets to take instead, such as those of systemd. They stay open for a restart of the module."""
    tls: Tls | None = None
    default_timeout: float = attrs.field(default=30_000, validator=_positive)
    """Milliseconds from a request's head to the head of its response, and for one call of a middleware function."""
    concurrency_request_limit: int = attrs.field(default=1024, validator=_positive)
    """Requests at one time, bodies and responses included."""
    cors: Cors | None = None
    """None: any page may read any response."""
    middleware: tuple[Middleware, ...] = attrs.field(default=(), converter=_in_order)
    limits: HttpLimits = attrs.field(factory=HttpLimits)

    @property
    def timeout_seconds(self) -> float:
        """`default_timeout` in seconds."""
        return self.default_timeout / 1000
