"""The trigger types of the engine itself: which workers there are, and which functions.

`engine::workers-available` fires at once. `engine::functions-available` fires when the set of functions has changed and
a moment has passed, so that a worker that registers a hundred functions is one event; nothing is looked at, and no
timer runs, while nobody has asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Raw

from ..wire import DEFAULT_NAMESPACE, to_json
from . import calls
from .binding import Provider
from .effects import Effects
from .rows import function_rows

if TYPE_CHECKING:
    from .hub import Hub

WORKERS: Final = "engine::workers-available"
FUNCTIONS: Final = "engine::functions-available"
SETTLING_SECONDS: Final = 0.1
"""From the first change of the functions to the event that tells of it."""

_EVENT: Final = Raw(b'{"type":"object","properties":{"event":{"type":"string"},"worker_id":{"type":"string"}}}')
_CHANGE: Final = Raw(b'{"type":"object","properties":{"event":{"type":"string"},"functions":{"type":"array"}}}')


class Announcements:
    """What those who listen have been told."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._told: frozenset[tuple[str, str]] | None = None
        """The functions at the last event, or since when somebody listens; None while nobody does."""
        self._seen = 0
        self._due: float | None = None
        for type_, description, event in (
            (WORKERS, "fires when a worker comes, goes, or says who it is", _EVENT),
            (FUNCTIONS, "fires when functions have come or gone", _CHANGE),
        ):
            hub.triggers.provide(Provider(DEFAULT_NAMESPACE, type_, None, description, call_request_format=event))

    def worker(self, event: str, worker_id: str) -> Effects:
        """A worker has come, gone, or said who it is."""
        if not self._hub.triggers.asked_for(WORKERS):
            return []
        return self._fire(WORKERS, {"event": event, "worker_id": worker_id})

    def look(self, now: float) -> None:
        """After any step: does anybody listen, and have the functions changed since?"""
        registry = self._hub.registry
        if not self._hub.triggers.asked_for(FUNCTIONS):
            self._told = self._due = None
            registry.gone.clear()
        elif self._told is None:
            self._told, self._seen = registry.keys(), registry.changes
            registry.gone.clear()
        elif self._seen != registry.changes:
            self._seen = registry.changes
            self._due = self._due if self._due is not None else now + SETTLING_SECONDS

    def next_due(self) -> float | None:
        """When to tell of a change."""
        return self._due

    def expire(self, now: float) -> Effects:
        """Log of the change, if it is one still."""
        if self._due is None or now < self._due:
            return []
        self._due = None
        registry = self._hub.registry
        functions, gone = registry.keys(), set(registry.gone)
        registry.gone.clear()
        if functions == self._told and not gone & functions:
            return []  # what has gone and come back is news: who was told that it is not there waits for it
        self._told = functions
        return self._fire(FUNCTIONS, {"event": "functions_changed", "functions": function_rows(self._hub)})

    def _fire(self, trigger_type: str, payload: object) -> Effects:
        data = to_json(payload)
        effects: Effects = []
        for binding in self._hub.triggers.of_type(trigger_type):
            if binding.provider is not None and binding.provider.session is None:  # else it is some worker's type
                effects += calls.fire(self._hub, binding, data)
        return effects
