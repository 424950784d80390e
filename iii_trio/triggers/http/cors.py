"""Cross-origin requests: which pages may read a response (the Fetch standard, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ...records import frozen

_VARY = "origin, access-control-request-method, access-control-request-headers"


def _texts(values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, list | tuple):
        raise TypeError("a list of strings is expected")
    return tuple(values)


@frozen
class Cors:
    """Which origins and methods are allowed. Empty, or with a `*` in it, a list allows all."""

    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    allowed_methods: tuple[str, ...] = attrs.field(default=(), converter=_texts)

    def headers(self, origin: str | None) -> list[tuple[str, str]]:
        """Return the headers that every response carries."""
        allowed = self._allowed(origin)
        # Without the header the browser keeps the response from the page.
        if allowed is None:
            return [("vary", _VARY)]
        return [
            ("access-control-allow-origin", allowed),
            ("access-control-expose-headers", "*"),
            ("vary", _VARY),
        ]

    def preflight(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the headers of the answer to a preflight request."""
        found = self.headers(headers.get("origin"))
        # Only an allowed origin is told more.
        if len(found) > 1:
            every = not self.allowed_methods or "*" in self.allowed_methods
            methods = "*" if every else ", ".join(method.upper() for method in self.allowed_methods)
            asked = headers.get("access-control-request-headers", "*")
            found += [("access-control-allow-methods", methods), ("access-control-allow-headers", asked)]
        return found

    def _allowed(self, origin: str | None) -> str | None:
        if not self.allowed_origins or "*" in self.allowed_origins:
            return "*"
        return origin if origin in self.allowed_origins else None


PERMISSIVE = Cors()
"""What holds without a `cors` setting, as in iii: any page may read any response."""


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a request asks for permission only, and is not meant for a handler."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers
