"""Calls that are answered without a task, at once or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from msgspec import Raw

from ..transport.link import Link
from ..wire import NULL, InvokeFunction, to_json
from .calls import WorkerSession
from .failures import contain
from .replies import reply_error, reply_result


@final
class InlineCall:
    """A call that has to be answered once, by `answer` or by `fail`."""

    __slots__ = ("_message", "_session", "_watched")

    def __init__(self, session: WorkerSession, message: InvokeFunction) -> None:
        self._session = session
        self._message = message
        self._watched = False

    @property
    def invocation_id(self) -> str | None:
        """The id of the call."""
        return self._message.invocation_id

    @property
    def link(self) -> Link:
        """The link over which it is answered."""
        return self._session.link

    @property
    def payload(self) -> Raw:
        """The payload's JSON, as it came."""
        return self._message.data or NULL

    @property
    def traceparent(self) -> str | None:
        """The trace header of the call."""
        return self._message.traceparent

    @property
    def baggage(self) -> str | None:
        """The baggage header of the call."""
        return self._message.baggage

    @property
    def metadata(self) -> Raw:
        """The call's metadata as it came. Empty: none."""
        return self._message.metadata

    def passed_on(self, function_id: str, namespace: str) -> InvokeFunction:
        """Return this call as one of another engine's function. Its id stays the same, as logs and traces name it."""
        message = self._message
        return InvokeFunction(
            function_id,
            message.invocation_id,
            message.data or NULL,
            message.traceparent,
            message.baggage,
            metadata=message.metadata,
            namespace=namespace,
        )

    def when_cancelled(self, callback: Callable[[str], object]) -> None:
        """Call back, with the reason, if the caller cancels before the answer, or the link is lost.

        The callback must not wait. Without one, a cancellation is not told.
        """
        # A void call has no id that a cancellation could name.
        if self._message.invocation_id is not None:
            self._watched = True
            self._session.running[self._message.invocation_id] = _Cancellation(callback)

    def answer(self, value: object) -> None:
        """Answer with a value that JSON can hold. Raises TypeError or ValueError for any other."""
        self.answer_raw(to_json(value))

    def answer_raw(self, result: bytes) -> None:
        """Answer with JSON that is sent as it is."""
        if self._watched:
            self._done()
        reply_result(self._session, self._message, result)

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        if self._watched:
            self._done()
        reply_error(self._session, self._message, error)

    def _done(self) -> None:
        self._session.running.pop(self._message.invocation_id or "", None)

    def _run(self, handler: InlineHandler) -> None:
        try:
            handler(self)
        # Ctrl-C is for the whole process, and no fault of this handler.
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: ASYNC103 - a bug in the handler must not end the worker
            self.fail(error)


@final
class _Cancellation:
    """The place of a task's cancel scope among the handlers that run."""

    def __init__(self, callback: Callable[[str], object]) -> None:
        self._callback = callback

    def cancel(self, reason: str | None = None) -> None:
        """Pass the cancellation on."""
        contain(self._callback, reason or "cancelled", what="the cancellation of a call")


InlineHandler = Callable[[InlineCall], object]
"""Handles a call without waiting. It may answer later, and may raise CallError. Calls come in their order."""
