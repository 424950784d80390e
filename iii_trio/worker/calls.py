"""Calls that wait for an answer, and the session they were made in."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, final

import msgspec
import trio
from msgspec import Raw

from ..errors import CallError
from ..text import sendable
from ..transport.link import Link
from ..wire import (
    MAX_MESSAGE_BYTES,
    NULL,
    Action,
    CancelInvocation,
    ErrorCode,
    InvocationResult,
    InvokeFunction,
    Ping,
    WireError,
    encode,
    from_json,
)
from .context import CURRENT
from .failures import contain
from .payload import check_text, encode_payload

Origin: TypeAlias = Literal["handler", "engine", "link"]

_NO_ERROR = (b"null", b"false")
_error_body = msgspec.json.Decoder(WireError)


def _nothing() -> None:
    """Do nothing."""


class AwaitedCall(Protocol):
    """What a session settles."""

    @property
    def invocation_id(self) -> str:
        """The id by which the answer finds it."""

    def settle(
        self, answer: InvocationResult | None = None, *, lost: str | None = None, unread: str | None = None
    ) -> None:
        """Take the result, or learn why there is none: a lost link, or an answer that cannot be read."""


class PendingCall(msgspec.Struct, eq=False):
    """A call that waits for its answer."""

    function_id: str
    invocation_id: str
    then: Callable[[], object] = _nothing
    """Called once, when the call is settled. It must not wait."""
    waiter: trio.lowlevel.Task | None = None
    """The task that waits until the call is settled. It is woken instead of `then`."""
    settled: bool = False
    answer: InvocationResult | None = None
    lost: str | None = None
    unread: str | None = None
    """The fault of an answer that could not be read."""

    def settle(
        self, answer: InvocationResult | None = None, *, lost: str | None = None, unread: str | None = None
    ) -> None:
        """Resolve the call with a result, a lost link or an unreadable answer."""
        self.answer, self.lost, self.unread = answer, lost, unread
        self.settled = True
        if self.waiter is not None:
            trio.lowlevel.reschedule(self.waiter)
        else:
            contain(self.then, what="the callback of a call")

    async def wait_settled(self) -> None:
        """Wait until the call is settled. At most one task may wait, and `then` is not called.

        If cancelled: nothing changes.
        """
        if self.settled:
            await trio.lowlevel.checkpoint()
            return
        # An Event would do, but costs more than the rest of the wait.
        self.waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)

    def _stop_waiting(self, _: Callable[[], object]) -> trio.lowlevel.Abort:
        self.waiter, self.then = None, _nothing
        return trio.lowlevel.Abort.SUCCEEDED

    def value(self) -> Any:
        """Return the value of the settled call. Raises CallError."""
        result = self.result()
        if result == NULL:  # most handlers return nothing
            return None
        try:
            return from_json(bytes(result)) if result else None
        except ValueError as problem:
            raise self._failed(ErrorCode.DESERIALIZATION_ERROR, f"the answer cannot be read: {problem}") from None

    def result(self) -> Raw:
        """Return the value of the settled call as it came, unread. Raises CallError."""
        answer = self.answer
        # An unreadable answer still belongs to this call, and its caller must not wait for ever.
        if self.unread is not None:
            raise self._failed(ErrorCode.DESERIALIZATION_ERROR, f"the answer cannot be read: {self.unread}")
        # A settled call without an answer lost its link, so the outcome of its handler is unknown.
        if answer is None:
            text = f"the link to the engine was lost before the answer: {self.lost}"
            raise self._failed(ErrorCode.INVOCATION_STOPPED, text, origin="link")
        error = error_in(answer.error)
        if error is not None:
            origin: Origin = "engine" if answer.by_engine else "handler"
            raise self._failed(error.code, error.message, error.stacktrace, origin)
        return answer.result

    def _failed(self, code: str, message: str, stacktrace: str | None = None, origin: Origin = "handler") -> CallError:
        return CallError(
            code,
            message,
            stacktrace=stacktrace,
            function_id=self.function_id,
            invocation_id=self.invocation_id,
            origin=origin,
        )


class Cancellable(Protocol):
    """A call that a handler answers, with a task or without one."""

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the handler, or keep it from starting."""


class WorkerSession(msgspec.Struct, eq=False):
    """One link, and the calls that are under way on it."""

    link: Link
    worker_id: str
    reattach_token: str | None
    channel_secret: str | None
    supports_extensions: bool
    """Whether the engine announced iii-trio.v1 (clause C8.1)."""
    pending: dict[str, AwaitedCall] = msgspec.field(default_factory=dict)
    running: dict[str, Cancellable] = msgspec.field(default_factory=dict)
    outcomes: dict[str, trio.Event] = msgspec.field(default_factory=dict)
    pings: deque[trio.Event] = msgspec.field(default_factory=deque)
    """One for each ping whose pong has not come, in their order."""
    answers_held_since: float | None = None
    """Since when answers wait for those of other calls, whose handlers start soon: Trio's time. None: none wait."""

    def send(self, call: AwaitedCall, text: bytes) -> None:
        """Send a call. Its answer or the loss of the link settles it."""
        self.pending[call.invocation_id] = call
        self.link.send(text)
        # A link that is lost already will not settle a call that comes after.
        if self.link.ended is not None and self.pending.pop(call.invocation_id, None) is not None:
            call.settle(lost=self.link.ended.reason)

    def answer(self, text: bytes) -> None:
        """Send an answer."""
        if self.answers_held_since is None:
            self.link.send(text)
        else:
            self.link.send_later(text)

    def send_answers(self) -> None:
        """Send the answers that wait, and let no more wait."""
        if self.answers_held_since is not None:
            self.answers_held_since = None
            self.link.flush_output()

    def give_up(self, call: AwaitedCall, reason: str) -> None:
        """Give a call up. Its handler is cancelled, if the engine supports the extensions. Harmless once it is settled."""
        # Other engines do not know the message, and a settled call has no handler left to cancel.
        if self.pending.pop(call.invocation_id, None) is not None and self.supports_extensions:
            self.link.send(encode(CancelInvocation(call.invocation_id, sendable(reason))))

    async def ping(self) -> bool:
        """Wait until the engine has read everything that was sent before. Return False if the link was lost.

        Pongs have no names, and come in the order of the pings. If cancelled: nothing changes.
        """
        await self.link.wait_room()
        pong = trio.Event()
        self.pings.append(pong)
        self.link.send(encode(Ping()))
        # No pong comes on a lost link, and `lose` may have run before this ping was in the queue.
        if self.link.ended is None:
            await pong.wait()
        return self.link.ended is None

    def lose(self, reason: str) -> None:
        """Settle the calls that wait on a lost link, and cancel the handlers that answer calls of it."""
        pending, self.pending = self.pending, {}
        for call in pending.values():
            contain(functools.partial(call.settle, lost=reason), what="the end of a call")
        # A copy, because a cancelled handler removes its own entry.
        for running in list(self.running.values()):
            running.cancel(f"the link to the engine was lost: {reason}")
        for event in (*self.outcomes.values(), *self.pings):
            event.set()


@final
class CallHandle:
    """A call that was made without a task."""

    __slots__ = ("_call", "_session")

    def __init__(self, session: WorkerSession, call: PendingCall) -> None:
        self._session = session
        self._call = call

    def value(self) -> Any:
        """Return the value of a settled call. Raises CallError."""
        return self._call.value()

    @property
    def settled(self) -> bool:
        """Whether the call has its answer, or its link is lost."""
        return self._call.settled

    def result(self) -> Raw:
        """Return the value of a settled call as it came, unread. Raises CallError."""
        return self._call.result()

    def when_settled(self, then: Callable[[], object]) -> None:
        """Call this instead of the callback that was given before. It must not wait. Only while the call is not settled."""
        self._call.then = then

    async def wait_settled(self) -> None:
        """As `PendingCall.wait_settled`."""
        await self._call.wait_settled()

    def give_up(self, reason: str) -> None:
        """Give the call up, so that its callback is not called. Harmless once it is settled."""
        self._session.give_up(self._call, reason)


def error_in(body: Raw) -> WireError | None:
    """Return the error that a message carries, or None. A body of no known shape becomes the error's text."""
    # Most results have none. Engines write a missing error in several ways.
    if not body or bytes(body) in _NO_ERROR:
        return None
    try:
        return _error_body.decode(bytes(body))
    except msgspec.DecodeError:
        return WireError("UNKNOWN", bytes(body).decode(errors="replace"))


def call_text(
    function_id: str,
    invocation_id: str | None,
    payload: Any,
    *,
    namespace: str | None,
    metadata: Any,
    traceparent: str | None,
    baggage: str | None,
    action: Action | None,
) -> bytes:
    """Return a call as a message. The trace headers default to those of the call that is being answered.

    Raises CallError `serialization_error` or `payload_too_large`, and `function_not_found` for an empty id. Raises
    MisuseError for a text that cannot be sent.
    """
    # A job without a function would wait for one for ever.
    if not function_id or function_id.isspace():
        raise CallError(ErrorCode.FUNCTION_NOT_FOUND, f"the function's id is empty ({function_id!r}); name a function")
    around = CURRENT.get()
    # A call made by a handler belongs to the trace of the call that is being answered.
    if around is not None:
        traceparent = traceparent or around.traceparent
        baggage = baggage or around.baggage
    message = InvokeFunction(
        function_id=function_id,
        invocation_id=invocation_id,
        data=Raw(encode_payload(payload, "the payload")),
        traceparent=traceparent,
        baggage=baggage,
        action=action,
        namespace=namespace,
    )
    if metadata is not None:
        message.metadata = Raw(encode_payload(metadata, "the metadata"))
    try:
        text = encode(message)
    except UnicodeEncodeError:
        texts = {"`namespace`": namespace, "`traceparent`": traceparent, "`baggage`": baggage}
        for what, value in texts.items():
            if value is not None:
                check_text(value, what)
        check_text(function_id, "the function's id")
        raise
    return checked(text, function_id)


def checked(text: bytes, function_id: str) -> bytes:
    """Return the text of a call. Raises CallError `payload_too_large`."""
    if len(text) > MAX_MESSAGE_BYTES:
        problem = f"the call is {len(text)} bytes as JSON, the limit is {MAX_MESSAGE_BYTES}: use a channel"
        raise CallError(ErrorCode.PAYLOAD_TOO_LARGE, problem, function_id=function_id)
    return text
