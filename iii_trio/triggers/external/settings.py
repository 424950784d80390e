"""Settings of the module for external functions."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import validators

from ...records import settings

_positive: Any = validators.gt(0)


def _texts(values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise TypeError("a list of strings is expected")
    return tuple(values)


@settings
class ExternalConfig:
    """Where calls may go, and what one of them may take."""

    url_allowlist: tuple[str, ...] = attrs.field(default=("*",), converter=_texts)
    """Patterns of hosts, in which `*` stands for any text. Empty: all hosts."""
    block_private_ips: bool = True
    """Whether addresses of this machine and of private networks are refused."""
    require_https: bool = True
    secrets: tuple[str, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(_texts))
    """Patterns of the environment variables that `auth` may name.

    None: any variable for workers that are trusted, and none for sessions of a guarded listener.
    """
    response_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=_positive)
    """The largest body of a response. A larger one fails its call."""
    connections: int = attrs.field(default=100, validator=_positive)
    """Calls that are made at one time. Further ones wait, within their own timeout."""
