"""Queue the engine's own events, so that many listeners are told in slices.

One event for thousands of listeners would keep all other workers waiting. A slice is told at once, and the rest at the next
ticks. Events that wait are joined: a worker that came and went meanwhile is of no interest to listeners that were told of
neither.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

import msgspec

from .binding import TriggerBinding

SLICE_LISTENERS: Final = 256
SLICE_BYTES: Final = 1024 * 1024
"""The listeners that one step tells, and the bytes that it writes to them. One listener is told in any case."""

CONNECTED: Final = "worker_connected"
DISCONNECTED: Final = "worker_disconnected"


class WorkerEvent(msgspec.Struct, eq=False):
    """An event about one worker, for the bindings with numbers above `after` and up to `upto`."""

    name: str
    worker_id: str
    after: int
    upto: int


@final
class EventQueue:
    """The events that not every listener was told of yet."""

    def __init__(self) -> None:
        self._events: deque[WorkerEvent] = deque()
        self._waiting: dict[str, list[WorkerEvent]] = {}
        """Events that nobody was told of yet, by worker."""
        self._current: WorkerEvent | None = None
        self._listeners: deque[str] = deque()
        """The bindings that the current event is still for."""
        self._of_functions: dict[str, None] = {}
        """The bindings to be told of the functions, oldest first."""
        self._functions = -1, b""
        """The event about the functions, and the number of changes that it is made from."""

    def __bool__(self) -> bool:
        return bool(self._listeners or self._events or self._of_functions)

    def __len__(self) -> int:
        return len(self._events) + bool(self._listeners) + bool(self._of_functions)

    # --- about workers

    def add_worker_event(self, name: str, worker_id: str, last_number: int) -> None:
        """Add an event for all bindings up to the number `last_number`, and join it with the ones that wait."""
        after, waiting = 0, self._waiting.pop(worker_id, [])
        if name == DISCONNECTED:
            for event in waiting:
                self._events.remove(event)
                # Listeners that were not told that the worker came need not be told that it left.
                after = event.upto if event.name == CONNECTED else after
            waiting = []
        elif waiting and waiting[-1].name == name:
            waiting[-1].upto = last_number
            self._waiting[worker_id] = waiting
            return
        if after >= last_number:
            return
        event = WorkerEvent(name, worker_id, after, last_number)
        self._events.append(event)
        if name != DISCONNECTED:
            self._waiting[worker_id] = [*waiting, event]

    def next_worker_event(self, listeners: Sequence[TriggerBinding]) -> tuple[WorkerEvent, str] | None:
        """Return an event and the id of the binding that is to be told of it next.

        `listeners` are all bindings to the type, in the order of their numbers.
        """
        while not self._listeners:
            if not self._events:
                self._current = None
                return None
            event = self._current = self._events.popleft()
            if (waiting := self._waiting.get(event.worker_id)) is not None:
                waiting.remove(event)
                if not waiting:
                    del self._waiting[event.worker_id]
            first = bisect_right(listeners, event.after, key=_number)
            last = bisect_right(listeners, event.upto, key=_number)
            self._listeners.extend(each.id for each in listeners[first:last])
        assert self._current is not None
        return self._current, self._listeners.popleft()

    # --- about functions

    def add_function_listeners(self, binding_ids: Iterable[str]) -> None:
        """Add bindings that are to be told of the functions. One that waits already is told once."""
        self._of_functions.update(dict.fromkeys(binding_ids))

    def next_function_listener(self) -> str | None:
        """Return the id of the binding that is to be told of the functions next."""
        if not self._of_functions:
            self._functions = -1, b""
            return None
        binding_id = next(iter(self._of_functions))
        del self._of_functions[binding_id]
        return binding_id

    def functions_event(self, changes: int, make: Callable[[], bytes]) -> bytes:
        """Return the event about the functions after so many changes. It is made once for all listeners."""
        if self._functions[0] != changes:
            self._functions = changes, make()
        return self._functions[1]


def _number(binding: TriggerBinding) -> int:
    return binding.number


@final
class Slice:
    """The listeners and bytes that are left to one step."""

    def __init__(self) -> None:
        self._listeners = SLICE_LISTENERS
        self._bytes = SLICE_BYTES

    def __bool__(self) -> bool:
        return self._listeners > 0 and self._bytes > 0

    def take(self, size: int) -> None:
        """Count a listener that was told in `size` bytes."""
        self._listeners -= 1
        self._bytes -= size
