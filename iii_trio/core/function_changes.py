"""Track the functions that each listener of `engine::functions-available` was last told of.

A set of functions is kept as the registry's fingerprint. Two sets are compared only by their fingerprints.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, final

from .binding import TriggerBinding
from .registry import Registry

SETTLING_SECONDS: Final = 0.1
"""The time in seconds from the first change to the event, so that a hundred registrations are one event."""
_MAX_REMEMBERED: Final = 4096


@final
class FunctionChanges:
    """The last set of functions told to each listener, by the id of its binding.

    Nothing is compared and no timer runs while there are no listeners.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._told: dict[str, int | None] = {}
        """None: the listener has to be told in any case."""
        self._remembered: OrderedDict[str, int | None] = OrderedDict()
        """The entries of listeners that are gone and may come back with a binding of the same id."""
        self._seen_changes = 0
        self.due: float | None = None

    def bound(self, binding: TriggerBinding, now: float) -> None:
        """Add a listener. It is told of the functions if they differ from those that it was last told of."""
        current = self._registry.fingerprint
        if binding.id in self._told:
            # The binding replaces one of the same id.
            told = self._told[binding.id]
        elif binding.id in self._remembered:
            # The listener lost its connection. It may have missed changes.
            told = self._remembered.pop(binding.id)
        elif binding.owner is not None and binding.owner.functions:
            # Workers register functions and bind in one burst. A new listener knows none of its own functions.
            told = None
        else:
            told = current
        self._told[binding.id] = told
        if told != current:
            self._settle(now)

    def unbound(self, binding_id: str) -> None:
        """Remove a listener that was withdrawn."""
        self._told.pop(binding_id, None)

    def lost(self, binding_ids: Iterable[str]) -> None:
        """Remove the listeners of a session that has ended, and remember what they were told."""
        for binding_id in binding_ids:
            if binding_id in self._told:
                self._remembered[binding_id] = self._told.pop(binding_id)
        while len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def check(self, now: float) -> None:
        """Start the settling time if the functions have changed. Call this after each change of functions or bindings."""
        registry = self._registry
        if not self._told:
            # Without listeners nothing is due, and the changes are of no interest.
            self.due = None
            self._seen_changes = registry.changes
            registry.gone.clear()
        elif self._seen_changes != registry.changes:
            self._seen_changes = registry.changes
            self._settle(now)

    def next_due(self) -> float | None:
        """Return when the settling time is over, or None."""
        return self.due

    def take_untold(self, now: float) -> set[str]:
        """Return the ids of the bindings to be told now, and count them as told."""
        if self.due is None or now < self.due:
            return set()
        self.due = None
        gone, current = set(self._registry.gone), self._registry.fingerprint
        self._registry.gone.clear()
        # A function that has gone and come back is a change too: a listener may wait for it after a failed call.
        came_back = any(self._registry.find(*key) is not None for key in gone)
        untold = {binding_id for binding_id, told in self._told.items() if came_back or told != current}
        self._told.update(dict.fromkeys(untold, current))
        return untold

    def _settle(self, now: float) -> None:
        self.due = self.due if self.due is not None else now + SETTLING_SECONDS
