"""What a worker offers, remembered so that it can be said again on every new link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from msgspec import Raw

from ..wire import ABSENT, RegisterFunction, encode, to_json
from .handler import Handler, Plan


@attrs.define(eq=False)
class Declared:
    """One function that a worker offers."""

    id: str
    plan: Plan
    description: str | None = None
    metadata: Mapping[str, Any] | None = None
    request_format: Any = None
    response_format: Any = None
    refused: str | None = None
    """Why the engine refused it, if it did: another worker has it."""

    def message(self) -> bytes:
        """How it is said to the engine."""
        return encode(
            RegisterFunction(
                id=self.id,
                description=self.description,
                request_format=_raw(self.request_format),
                response_format=_raw(self.response_format),
                metadata=_raw(self.metadata),
            )
        )


def declare(function_id: str, handler: Handler, **described: Any) -> Declared:
    """Read a handler's signature. Raises MisuseError for one that cannot be called by name."""
    return Declared(function_id, Plan.of(function_id, handler), **described)


def _raw(value: Any) -> Raw:
    return ABSENT if value is None else Raw(to_json(value))
