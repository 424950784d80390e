"""The sections of the page: the engine functions that are asked, and the parts of their answers that are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec


class Section(msgspec.Struct, frozen=True):
    """One part of the page."""

    name: str
    function_id: str
    payload: Mapping[str, Any]
    rows: str | None = None
    """The key of its list in the answer. None: the answer is shown whole."""
    is_paged: bool = False
    """Whether the function can be asked for a part of its list."""


_RECENT: Final = 100
"""The traces and lines of the log that are shown, the newest first."""
SECTIONS: Final = (
    Section("statistics", "engine::statistics", {}),
    Section("workers", "engine::workers::list", {"include_internal": True}, "workers", is_paged=True),
    Section("functions", "engine::functions::list", {"include_internal": False}, "functions", is_paged=True),
    Section(
        "triggers",
        "engine::registered-triggers::list",
        {"include_waiting": True},
        "registered_triggers",
        is_paged=True,
    ),
    Section("channels", "engine::channels::list", {}, "channels", is_paged=True),
    Section("ended", "engine::channels::ended", {}, "channels"),
    Section("queues", "engine::queue::list", {}, "queues"),
    Section(
        "traces", "engine::traces::list", {"sort_by": "start_time", "sort_order": "desc", "limit": _RECENT}, "spans"
    ),
    Section("logs", "engine::logs::list", {"limit": _RECENT}, "logs"),
)


def request(section: Section, limit: int) -> dict[str, Any]:
    """Build the payload that asks for a section with at most `limit` rows."""
    return {**section.payload, "limit": limit} if section.is_paged else dict(section.payload)


def encode(section: Section, answer: Any, limit: int) -> bytes:
    """Encode a section for the page: `{"rows": […], "more": false}` with at most `limit` rows, or the answer whole.

    None stands for a function that the engine does not have.
    """
    # Numbers and the like have no rows to cut.
    if answer is None or section.rows is None:
        return msgspec.json.encode(answer)
    rows = answer.get(section.rows) or []
    more = answer.get("after") is not None or len(rows) > limit
    return msgspec.json.encode({"rows": rows[:limit], "more": more})


class Board(msgspec.Struct, eq=False):
    """The encoded sections, and the number of the change that made each of them."""

    change: int = 0
    _sections: dict[str, tuple[int, bytes]] = msgspec.field(default_factory=dict)

    def put(self, name: str, encoded: bytes) -> None:
        """Keep a section, and count a change if it differs from the one before."""
        known = self._sections.get(name)
        # Most sections stay as they were, and need not travel again.
        if known is None or known[1] != encoded:
            self.change += 1
            self._sections[name] = self.change, encoded

    def event(self, since: int) -> bytes | None:
        """Build the server-sent event with all sections that changed after `since`. Return None if there are none."""
        new = [f'"{name}":'.encode() + encoded for name, (at, encoded) in self._sections.items() if at > since]
        return b"data: {" + b",".join(new) + b"}\n\n" if new else None
