"""Track whether the set of functions has changed since listeners were last told."""

from __future__ import annotations

from typing import Final, final

from .registry import Registry

SETTLING_SECONDS: Final = 0.1
"""The time in seconds from the first change to the event, so that a hundred registrations are one event."""


@final
class FunctionChanges:
    """The functions that the listeners of `engine::functions-available` were last told of.

    Nothing is compared and no timer runs while there are no listeners.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._told: frozenset[tuple[str, str]] | None = None
        """The functions at the last event, or at the first binding. None without listeners."""
        self._seen_changes = 0
        self._due: float | None = None

    def check(self, now: float, *, listened: bool) -> None:
        """Start the settling time if the functions have changed. Call this after each change of functions or bindings."""
        registry = self._registry
        # Without listeners there is no baseline to compare with, and nothing is due.
        if not listened:
            self._told = self._due = None
            registry.gone.clear()
        # The first listener is told of changes from now on.
        elif self._told is None:
            self._told, self._seen_changes = registry.keys(), registry.changes
            registry.gone.clear()
        elif self._seen_changes != registry.changes:
            self._seen_changes = registry.changes
            self._due = self._due if self._due is not None else now + SETTLING_SECONDS

    def next_due(self) -> float | None:
        """Return when the settling time is over, or None."""
        return self._due

    def take_change(self, now: float) -> bool:
        """Return whether the settling time is over and there is a change to tell."""
        if self._due is None or now < self._due:
            return False
        self._due = None
        registry = self._registry
        functions, gone = registry.keys(), set(registry.gone)
        registry.gone.clear()
        # A function that has gone and come back is a change too: a listener may wait for it after a failed call.
        if functions == self._told and not gone & functions:
            return False
        self._told = functions
        return True
