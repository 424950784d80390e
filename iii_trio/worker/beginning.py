"""How handlers begin: in the order of their calls, however many come at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

import trio

from ..wire import InvokeFunction
from .answer import answer
from .calls import Session
from .open_call import InlineCall

if TYPE_CHECKING:
    from .worker import Worker


@final
class Beginnings:
    """The calls that have come and whose handlers have not begun.

    Tasks that were started together begin in any order. So a task is nobody's until it has begun: then it answers the
    call that has waited longest.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: deque[tuple[Session, InvokeFunction, trio.CancelScope]] = deque()

    def add(self, session: Session, call: InvokeFunction) -> None:
        """A call has come. If the worker is leaving, the engine will say that it was stopped."""
        worker = self._worker
        declared = worker.offers.functions.get(call.function_id)
        if declared is not None and declared.prompt is not None:
            InlineCall(session, call).ask(declared.prompt)
        elif not worker.tasks.cancel_scope.cancel_called:
            scope = trio.CancelScope()
            if call.invocation_id is not None:
                session.running[call.invocation_id] = scope  # a cancellation may come before it has begun
            self._waiting.append((session, call, scope))
            worker.tasks.start_soon(self._answer)

    async def _answer(self) -> None:
        await answer(self._worker, *self._waiting.popleft())
