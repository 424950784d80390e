"""Calls that are passed on to another worker's function: over a link to another node, or to this node's own engine."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Final, final

import attrs
import trio
from msgspec import Raw

from ...errors import CallError, ConnectionFailed
from ...lowlevel import InlineCall, PendingCall, WorkerSession, call_by, session_of, wait_can_call
from ...wire import ErrorCode, InvocationResult, InvokeFunction
from ...worker import Worker
from .records import Key
from .together import BothWays

_NOT_RUN: Final = frozenset({ErrorCode.FUNCTION_NOT_FOUND, ErrorCode.ENGINE_DRAINING})
"""The errors of an engine that has not given the call to a handler."""


@attrs.define(eq=False)
class PassedCall:
    """A call on its way. `tries` counts the engines that were asked."""

    call: InlineCall
    key: Key
    tries: int = 0
    passing: Passing | None = None
    """Where it waits for its answer."""

    @property
    def invocation_id(self) -> str:
        """The id of the call."""
        return self.call.invocation_id or ""

    def settle(
        self, answer: InvocationResult | None = None, *, lost: str | None = None, unread: str | None = None
    ) -> None:
        """As `AwaitedCall.settle`."""
        passing = self.passing
        if passing is not None:
            passing.settled(self, answer, lost, unread)


@final
class Passing:
    """The calls that are passed on by one connection of one worker.

    `on_not_run` is given a call that the engine there has refused unread, with its error. `ways` are those in which
    they come and go. Raises ConnectionFailed if the connection is lost already.
    """

    def __init__(
        self,
        worker: Worker,
        on_not_run: Callable[[PassedCall, CallError], object],
        ways: BothWays,
    ) -> None:
        session = session_of(worker)
        if session is None:
            raise ConnectionFailed("the link was lost")
        self.session: WorkerSession = session
        """The connection."""
        self._worker = worker
        self._on_not_run = on_not_run
        self._ways = ways
        self._calls: dict[PassedCall, None] = {}
        self._waiting: deque[tuple[PassedCall, InvokeFunction]] = deque()
        self._arrived = trio.Event()

    def __len__(self) -> int:
        return len(self._calls)

    def pass_on(self, passed: PassedCall) -> None:
        """Have the call answered by the function there."""
        passed.tries += 1
        passed.passing = None
        self._calls[passed] = None
        passed.call.when_cancelled(functools.partial(self._cancel, passed))
        message = passed.call.passed_on(passed.key.id, passed.key.namespace)
        # The order of the calls is kept.
        if self._waiting or not self.session.link.has_room:
            message.data = Raw(bytes(message.data))
            self._waiting.append((passed, message))
            self._arrived.set()
        else:
            self._send(passed, message)

    def _send(self, passed: PassedCall, message: InvokeFunction) -> None:
        passed.passing = self
        self._ways.calls.hold(self.session.link)
        try:
            call_by(self.session, message, passed)
        except CallError as error:  # it is too large
            del self._calls[passed]
            passed.call.fail(error)

    def settled(
        self, passed: PassedCall, answer: InvocationResult | None, lost: str | None, unread: str | None
    ) -> None:
        """Pass the answer of a call on, or the reason why there is none. Harmless for one that was given up."""
        if self._calls.pop(passed, passed) is not None:
            return
        self._ways.answers.hold(passed.call.link)
        # Most calls succeed.
        if answer is not None and not answer.error:
            passed.call.answer_raw(bytes(answer.result) or b"null")
            return
        read = PendingCall(passed.key.id, passed.invocation_id)
        read.settle(answer, lost=lost, unread=unread)
        try:
            result = read.result()
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
                with self._ways.calls:
                    while self._waiting and self.session.link.has_room:
                        passed, message = self._waiting.popleft()
                        if passed in self._calls:  # else it was cancelled
                            self._send(passed, message)

    def stop(self, why: str) -> None:
        """Answer all calls, because no answer can come any more."""
        error = CallError(ErrorCode.INVOCATION_STOPPED, f"Invocation stopped: {why}", origin="engine")
        calls, self._calls = self._calls, {}
        self._waiting.clear()
        for passed in calls:
            self._give_up(passed, why)
            passed.call.fail(error)

    def _cancel(self, passed: PassedCall, reason: str) -> None:
        if self._calls.pop(passed, passed) is None:
            self._give_up(passed, reason)
        # It is still answered, so that nothing is kept for it.
        passed.call.fail(CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))

    def _give_up(self, passed: PassedCall, reason: str) -> None:
        # One that waits for room has not been made there.
        if passed.passing is self:
            self.session.give_up(passed, reason)
