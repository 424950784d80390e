"""Starts handlers in the order of their calls."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

import trio

from ..errors import CallError
from ..wire import ErrorCode, InvokeFunction
from .answer import answer
from .call_context import CallContext
from .calls import WorkerSession
from .context import CURRENT
from .function_spec import FunctionSpec
from .inline import InlineCall
from .received_call import ReceivedCall
from .replies import reply_error

_MAX_IDLE: Final = 64  # tasks that wait for a call; each takes a few kB
_TOGETHER: Final = 0.0005  # seconds; an answer waits no longer for others, but for the step of one handler


@final
class CallStartQueue:
    """The calls that have come and have no running handler yet, and the tasks that run handlers.

    Trio starts tasks that were spawned together in any order. So a task belongs to no call until it runs. Then it answers
    the call that has waited longest. A task that has answered one waits for another, because a task costs more than many a
    handler. Its scope serves for all calls that were not cancelled.
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
        self._variables = contextvars.copy_context()
        """The context variables of the code that opened the worker. Every handler starts with them."""
        self._variables.run(CURRENT.set, None)
        self._waiting: deque[ReceivedCall] = deque()
        self._idle: list[trio.lowlevel.Task] = []
        """The tasks that wait for a call. The last one that came is the next to run."""

    def add(self, session: WorkerSession, message: InvokeFunction) -> None:
        """Start the handler of a call. A leaving worker ignores the call, and the engine stops it."""
        spec = self._functions.get(message.function_id)
        # Inline handlers never wait, so a task would only cost time and order.
        if spec is not None and spec.inline is not None:
            InlineCall(session, message)._run(spec.inline)
        elif self._idle or self._start_task():
            call = ReceivedCall(session, message, spec)
            if message.traceparent is not None:
                call.watch_wait()
            # A void call has no id that a cancellation could name.
            if message.invocation_id is not None:
                session.running[message.invocation_id] = call  # a cancellation may come before the handler starts
            self._waiting.append(call)
            if self._idle:
                trio.lowlevel.reschedule(self._idle.pop())

    def _start_task(self) -> bool:
        return self._variables.run(self._run, self._answer)

    async def _answer(self) -> None:
        """Answer a call, and then others for which it waits."""
        clean = contextvars.copy_context()
        await self._answer_in_one_scope(clean)
        while self._may_wait(clean):
            await self._wait_for_call()
            await self._answer_in_one_scope(clean)

    async def _answer_in_one_scope(self, clean: contextvars.Context) -> None:
        """Answer the first call, and then others for which it waits, until one is cancelled."""
        with trio.CancelScope() as scope:
            while True:
                try:
                    await trio.lowlevel.checkpoint_if_cancelled()  # the worker may have left before the handler starts
                except trio.Cancelled:
                    self._waiting[0].session.send_answers()  # no later call will: it is this task's own that waits
                    raise
                call = self._take()
                call.scope = scope
                await answer(self._context, call)
                if call.cancelled or not self._may_wait(clean):  # a cancelled call may have cancelled the scope
                    break
                await self._wait_for_call()
        # A cancelled call is still answered, so that nothing waits for it at the engine.
        if scope.cancelled_caught:
            reply_error(call.session, call.message, CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))

    def _take(self) -> ReceivedCall:
        """Return the call that has waited longest. The answers of calls that start in the same turn leave together."""
        call = self._waiting.popleft()
        session = call.session
        # Every call that waits has a task that runs soon, so the last one sends what the others have answered.
        since = session.answers_held_since
        if since is not None and (not self._waiting or trio.current_time() - since > _TOGETHER):
            session.send_answers()
        if self._waiting and session.answers_held_since is None:
            session.answers_held_since = trio.current_time()
        return call

    async def _wait_for_call(self) -> None:
        task = trio.lowlevel.current_task()

        def give_up(_: Callable[[], object]) -> trio.lowlevel.Abort:
            self._idle.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._idle.append(task)
        await trio.lowlevel.wait_task_rescheduled(give_up)

    def _may_wait(self, clean: contextvars.Context) -> bool:
        """Return whether this task may wait for another call. Context variables of one handler must not reach the next."""
        if len(self._idle) >= _MAX_IDLE:
            return False
        try:
            return contextvars.copy_context() == clean
        except Exception:
            return False  # a value that cannot be compared has changed
