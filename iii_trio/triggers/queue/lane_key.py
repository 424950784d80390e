"""The names of lanes."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...wire import from_json, to_json


class LaneKey(msgspec.Struct, frozen=True):
    """The name of a lane: a queue, or one subscriber of a topic."""

    kind: Literal["queue", "topic"]
    name: str
    """The name of the queue, or of the topic."""
    namespace: str = ""
    function_id: str = ""

    @property
    def text(self) -> str:
        """A JSON list, for stores."""
        parts = (self.kind, self.name) if self.kind == "queue" else (self.kind, self.name, *self.subscriber)
        return to_json(parts).decode()

    @classmethod
    def parse(cls, text: str) -> LaneKey:
        """Read a lane's text. Raises ValueError."""
        match from_json(text.encode()):
            case ["queue", str(name)]:
                return cls("queue", name)
            case ["topic", str(name), str(namespace), str(function_id)]:
                return cls("topic", name, namespace, function_id)
        raise ValueError(f"{text} names no queue, and no subscriber of a topic")

    @property
    def subscriber(self) -> tuple[str, str]:
        """The namespace and the id of the subscriber's function."""
        return self.namespace, self.function_id
