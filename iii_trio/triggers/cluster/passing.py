"""Calls that are passed on to another worker's function: over a link to another node, or to this node's own engine."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

import attrs
import trio

from ...errors import CallError, ConnectionFailed
from ...lowlevel import InlineCall, PendingCall, WorkerSession, call_by, session_of
from ...wire import Close, ErrorCode, InvocationResult
from ...worker import Worker
from .records import Key
from .together import BothWays

_NOT_RUN: Final = frozenset({ErrorCode.FUNCTION_NOT_FOUND, ErrorCode.ENGINE_DRAINING})
"""The errors of an engine that has not given the call to a handler."""
_CLOSED: Final = str(Close.SERVICE_RESTART.value)
"""How a link ends whose engine has closed."""
_MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Payloads of the calls that wait for one connection. An engine keeps as much for a worker that takes nothing."""


@attrs.define(eq=False)
class PassedCall:
    """A call on its way. `tries` counts the engines that were asked."""

    call: InlineCall
    key: Key
    tries: int = 0
    passing: Passing | None = None
    """Where it waits for its answer. None: it has not been sent."""
    invocation_id: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.invocation_id = self.call.invocation_id or ""

    def settle(
        self, answer: InvocationResult | None = None, *, lost: str | None = None, unread: str | None = None
    ) -> None:
        """As `AwaitedCall.settle`."""
        passing = self.passing
        if passing is not None:
            passing.settled(self, answer, lost, unread)


@final
class Passing:
    """The calls that are passed on by one connection of one worker. They wait until it is there, and while it is full.

    `to` names the engine there. `on_not_run` is given a call that it has refused unread, with its error. `ways` are those
    in which calls and answers come and go.
    """

    def __init__(self, to: str, on_not_run: Callable[[PassedCall, CallError], object], ways: BothWays) -> None:
        self._to = to
        self._on_not_run = on_not_run
        self._ways = ways
        self._session: WorkerSession | None = None
        self._calls: dict[str, PassedCall] = {}
        """By their ids."""
        self._waiting: OrderedDict[str, PassedCall] = OrderedDict()
        """Those that have not been sent."""
        self._waiting_bytes = 0
        self._arrived = trio.Event()

    def __len__(self) -> int:
        return len(self._calls)

    def connect(self, worker: Worker) -> WorkerSession:
        """Pass calls on by the connection that the worker has now. Raises ConnectionFailed if that is lost already."""
        session = self._session = session_of(worker)
        if session is None:
            raise ConnectionFailed("the link was lost")
        self._send_waiting(session)
        return session

    def pass_on(self, passed: PassedCall) -> None:
        """Have the call answered by the function there."""
        call, id_ = passed.call, passed.invocation_id
        # Callers in different namespaces have different relays, and would share one answer.
        if id_ in self._calls:
            text = f"An invocation with the id {id_} is under way already"
            call.fail(CallError(ErrorCode.INVOCATION_ERROR, text, origin="engine"))
            return
        passed.tries += 1
        passed.passing = None
        session = self._session
        # The order of the calls is kept.
        if session is None or self._waiting or not session.link.has_room or session.link.ended is not None:
            size = len(call.payload)
            if self._waiting and self._waiting_bytes + size > _MAX_WAITING_BYTES:
                text = f"{self._to} does not take what waits for it; the call was not delivered"
                call.fail(CallError(ErrorCode.CHANNEL_SEND_FAILED, text, origin="engine"))
                return
            self._waiting[id_] = passed
            self._waiting_bytes += size
            self._arrived.set()
        self._calls[id_] = passed
        call.when_cancelled(functools.partial(self._cancel, passed))
        if not self._waiting and session is not None:
            self._send(session, passed)

    def _send(self, session: WorkerSession, passed: PassedCall) -> None:
        passed.passing = self
        self._ways.calls.hold(session.link)
        try:
            call_by(session, passed.call.passed_on(passed.key.id, passed.key.namespace), passed)
        except CallError as error:  # it is too large
            del self._calls[passed.invocation_id]
            passed.call.fail(error)

    def settled(
        self, passed: PassedCall, answer: InvocationResult | None, lost: str | None, unread: str | None
    ) -> None:
        """Pass the answer of a call on, or the reason why there is none. Harmless for one that was given up."""
        if self._calls.pop(passed.invocation_id, None) is None:
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
                # Before it closes, an engine answers each call that it has taken.
                if error.origin == "link" and self._closed_in_order:
                    text = f"{self._to} closed before it read the call"
                    self._on_not_run(passed, CallError(ErrorCode.ENGINE_DRAINING, text, origin="engine"))
                    return
                if error.origin == "link":
                    text = f"Invocation stopped: its node is gone: {error.message}"
                    error = CallError(error.code, text, origin="engine")
                passed.call.fail(error)
        else:
            passed.call.answer_raw(bytes(result) or b"null")

    async def send_waiting(self) -> None:
        """Send the calls that found the link full, until it is over. Only once it is connected."""
        session = self._session
        assert session is not None
        while True:
            await self._arrived.wait()
            await session.link.wait_room()
            if session.link.ended is not None:
                return  # those that were not sent may go elsewhere
            self._arrived = trio.Event()
            self._send_waiting(session)

    def _send_waiting(self, session: WorkerSession) -> None:
        with self._ways.calls:
            while self._waiting and session.link.has_room:
                _, passed = self._waiting.popitem(last=False)
                self._waiting_bytes -= len(passed.call.payload)
                self._send(session, passed)
        if self._waiting:
            self._arrived.set()

    def stop(self, why: str) -> list[PassedCall]:
        """Answer the calls that were sent, because no answer can come any more. Return the others: they may go elsewhere."""
        error = CallError(ErrorCode.INVOCATION_STOPPED, f"Invocation stopped: {why}", origin="engine")
        calls, self._calls = self._calls, {}
        unsent, self._waiting = self._waiting, OrderedDict()
        self._waiting_bytes = 0
        for id_, passed in calls.items():
            if id_ not in unsent:
                self._give_up(passed, why)
                passed.call.fail(error)
        return list(unsent.values())

    @property
    def _closed_in_order(self) -> bool:
        ended = self._session.link.ended if self._session is not None else None
        return ended is not None and ended.code == _CLOSED

    def _cancel(self, passed: PassedCall, reason: str) -> None:
        if self._calls.pop(passed.invocation_id, None) is not None:
            if self._waiting.pop(passed.invocation_id, None) is not None:
                self._waiting_bytes -= len(passed.call.payload)
            self._give_up(passed, reason)
        # It is still answered, so that nothing is kept for it.
        passed.call.fail(CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))

    def _give_up(self, passed: PassedCall, reason: str) -> None:
        # One that waits has not been made there.
        if self._session is not None and passed.passing is self:
            self._session.give_up(passed, reason)
