"""Functions whose code is behind a URL, which the engine calls (protocol, section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from ..records import settings

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@settings
class BearerAuth:
    """`Authorization: Bearer …`. The token is in this variable of the engine's environment."""

    token_key: str

    def to_json(self) -> dict[str, str]:
        """Return it as the wire has it."""
        return {"type": "bearer", "token_key": self.token_key}


@settings
class ApiKeyAuth:
    """A header with a key. The key is in this variable of the engine's environment."""

    header: str
    value_key: str

    def to_json(self) -> dict[str, str]:
        """Return it as the wire has it."""
        return {"type": "api_key", "header": self.header, "value_key": self.value_key}


@settings
class HmacAuth:
    """A signature of time and body. The secret is in this variable of the engine's environment."""

    secret_key: str

    def to_json(self) -> dict[str, str]:
        """Return it as the wire has it."""
        return {"type": "hmac", "secret_key": self.secret_key}


def _without_query(url: str) -> str:
    """Return a URL as it may be shown, because queries can hold secrets."""
    return repr(url.partition("?")[0])


@settings
class ExternalCall:
    """Where an external function is, and how the engine calls it."""

    url: str = attrs.field(repr=_without_query)
    method: Method = "POST"
    timeout_seconds: float | None = None
    """None: the engine's default, 30 s."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    auth: BearerAuth | ApiKeyAuth | HmacAuth | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the `invocation` block of the function's registration."""
        block: dict[str, Any] = {"url": self.url, "method": self.method}
        if self.timeout_seconds is not None:
            block["timeout_ms"] = max(1, round(self.timeout_seconds * 1000))
        if self.headers:
            block["headers"] = dict(self.headers)
        if self.auth is not None:
            block["auth"] = self.auth.to_json()
        return block
