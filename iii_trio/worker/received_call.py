"""A call that has come, from its arrival to its answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from ..observed import is_sampled
from ..wire import InvokeFunction
from .calls import WorkerSession
from .function_spec import FunctionSpec


class ReceivedCall(msgspec.Struct, eq=False):
    """A call that a handler has to answer. It may be cancelled before its handler starts."""

    session: WorkerSession
    message: InvokeFunction
    spec: FunctionSpec | None
    scope: trio.CancelScope | None = None
    """The scope of its handler, once that runs."""
    cancelled: bool = False
    came_at: float | None = None
    """When it came, by `clock`. None: nobody asks how long it waits."""
    clock: trio.abc.Clock | None = None
    waited_us: int | None = None
    """How long it waited for its handler to start, in microseconds. None: it waits still, or nobody asks."""

    def watch_wait(self) -> None:
        """Measure its wait if the engine records it and knows the field of the answer."""
        # Most calls are outside of all recorded traces, and pay for no clock.
        traceparent = self.message.traceparent
        if traceparent is not None and self.session.supports_extensions and is_sampled(traceparent):
            self.clock = trio.lowlevel.current_clock()
            self.came_at = self.clock.current_time()

    def start(self) -> None:
        """Note that its handler starts now. It may be called in a thread."""
        if self.came_at is not None and self.clock is not None:
            self.waited_us = max(0, int((self.clock.current_time() - self.came_at) * 1e6))

    def starting(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Return a handler that notes its start, because a handler that runs in a thread waits for one first."""
        if self.came_at is None:
            return handler

        @functools.wraps(handler)
        def start_and_run(**arguments: Any) -> Any:
            self.start()
            return handler(**arguments)

        return start_and_run

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the handler, or keep it from starting."""
        self.cancelled = True
        if self.scope is not None:
            self.scope.cancel(reason=reason)
