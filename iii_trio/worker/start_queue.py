"""Starts handlers in the order of their calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import final

import trio

from ..wire import InvokeFunction
from .answer import answer
from .call_context import CallContext
from .calls import WorkerSession
from .function_spec import FunctionSpec
from .inline import InlineCall


@final
class CallStartQueue:
    """The calls that have come and have no running handler yet.

    Trio starts tasks that were spawned together in any order. So a task belongs to no call until it runs. Then it answers
    the call that has waited longest.
    """

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        context: CallContext,
        run: Callable[[Callable[[], Awaitable[object]]], bool],
    ) -> None:
        self._functions = functions
        self._context = context
        self._run = run
        self._waiting: deque[tuple[WorkerSession, InvokeFunction, FunctionSpec | None, trio.CancelScope]] = deque()

    def add(self, session: WorkerSession, call: InvokeFunction) -> None:
        """Start the handler of a call. A leaving worker ignores the call, and the engine stops it."""
        spec = self._functions.get(call.function_id)
        # Inline handlers never wait, so a task would only cost time and order.
        if spec is not None and spec.inline is not None:
            InlineCall(session, call)._run(spec.inline)
        elif self._run(self._answer):
            scope = trio.CancelScope()
            # A void call has no id that a cancellation could name.
            if call.invocation_id is not None:
                session.running[call.invocation_id] = scope  # a cancellation may come before the handler starts
            self._waiting.append((session, call, spec, scope))

    async def _answer(self) -> None:
        await answer(self._context, *self._waiting.popleft())
