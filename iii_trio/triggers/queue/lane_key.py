"""The name of a lane."""

from __future__ import annotations

from typing import Literal

import attrs

from ...wire import from_json, to_json


@attrs.frozen
class LaneKey:
    """Which lane: of a queue, or of one of the subscribers of a topic."""

    kind: Literal["queue", "topic"]
    name: str
    """Of the queue, or of the topic."""
    namespace: str = ""
    function_id: str = ""

    @property
    def text(self) -> str:
        """For stores: a JSON list."""
        parts = (self.kind, self.name) if self.kind == "queue" else (self.kind, self.name, *self.subscriber)
        return to_json(parts).decode()

    @classmethod
    def parse(cls, text: str) -> LaneKey:
        parts = from_json(text.encode())
        assert isinstance(parts, list)
        return cls(*parts)  # type: ignore[arg-type]

    @property
    def subscriber(self) -> tuple[str, str]:
        return self.namespace, self.function_id
