"""Calls that are passed on to another worker's function: over a link to another node, or to this node's own engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, final

import attrs
import trio
from msgspec import Raw

from ...errors import CallError
from ...lowlevel import CallHandle, InlineCall, call_nowait, can_call, wait_can_call
from ...wire import ErrorCode, InvokeFunction
from ...worker import Worker
from .records import Key

_NOT_RUN: Final = frozenset({ErrorCode.FUNCTION_NOT_FOUND, ErrorCode.ENGINE_DRAINING})
"""The errors of an engine that has not given the call to a handler."""


@attrs.define(eq=False)
class PassedCall:
    """A call on its way. `tries` counts the engines that were asked."""

    call: InlineCall
    key: Key
    tries: int = 0
    handle: CallHandle | None = None

    def message(self) -> InvokeFunction:
        """Return the call as it goes on."""
        call = self.call
        return InvokeFunction(
            self.key.id,
            call.invocation_id,  # the same at all nodes, as logs and traces name it
            data=call.payload,
            traceparent=call.traceparent,
            baggage=call.baggage,
            metadata=call.metadata,
            namespace=self.key.namespace,
        )


@final
class Passing:
    """The calls that are passed on by one connection of one worker.

    `on_not_run` is given a call that the engine there has refused unread, with its error.
    """

    def __init__(self, worker: Worker, on_not_run: Callable[[PassedCall, CallError], object]) -> None:
        self._worker = worker
        self._on_not_run = on_not_run
        self._calls: dict[PassedCall, None] = {}
        self._waiting: deque[tuple[PassedCall, InvokeFunction]] = deque()
        self._arrived = trio.Event()

    def __len__(self) -> int:
        return len(self._calls)

    def pass_on(self, passed: PassedCall) -> None:
        """Have the call answered by the function there."""
        passed.tries += 1
        passed.handle = None
        self._calls[passed] = None
        passed.call.when_cancelled(lambda reason: self._cancel(passed, reason))
        message = passed.message()
        # The order of the calls is kept.
        if self._waiting or not can_call(self._worker):
            message.data = Raw(bytes(message.data))
            self._waiting.append((passed, message))
            self._arrived.set()
        else:
            self._send(passed, message)

    def _send(self, passed: PassedCall, message: InvokeFunction) -> None:
        def settled() -> None:
            # A link that was lost in this very step settles the call before there is a handle.
            if passed.handle is not None and self._calls.pop(passed, passed) is None:
                self._answer(passed, passed.handle)

        try:
            passed.handle = call_nowait(self._worker, message, settled)
        except CallError as error:  # it is too large
            del self._calls[passed]
            passed.call.fail(error)
            return
        if passed.handle.settled:
            settled()

    def _answer(self, passed: PassedCall, handle: CallHandle) -> None:
        try:
            result = handle.result()
        except CallError as error:
            # No handler has seen the call, so another one may.
            if error.origin == "engine" and error.code in _NOT_RUN:
                self._on_not_run(passed, error)
            else:
                if error.origin == "link":
                    text = f"Invocation stopped: its node is gone: {error.message}"
                    error = CallError(error.code, text, origin="engine")
                passed.call.fail(error)
        else:
            passed.call.answer_raw(bytes(result) or b"null")

    async def send_waiting(self) -> None:
        """Send the calls that found the link full, for as long as it is up."""
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while self._waiting:
                await wait_can_call(self._worker)
                while self._waiting and can_call(self._worker):
                    passed, message = self._waiting.popleft()
                    if passed in self._calls:  # else it was cancelled
                        self._send(passed, message)

    def stop(self, why: str) -> None:
        """Answer all calls, because no answer can come any more."""
        error = CallError(ErrorCode.INVOCATION_STOPPED, f"Invocation stopped: {why}", origin="engine")
        calls, self._calls = self._calls, {}
        self._waiting.clear()
        for passed in calls:
            if passed.handle is not None:
                passed.handle.give_up(why)
            passed.call.fail(error)

    def _cancel(self, passed: PassedCall, reason: str) -> None:
        if self._calls.pop(passed, passed) is None and passed.handle is not None:
            passed.handle.give_up(reason)
        # It is still answered, so that nothing is kept for it.
        passed.call.fail(CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))
