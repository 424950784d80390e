"""Calls that are answered without a task, at once or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from msgspec import Raw

from ..wire import InvokeFunction, to_json
from .calls import WorkerSession
from .replies import reply_error, reply_result


@final
class InlineCall:
    """A call that has to be answered once, by `answer` or by `fail`. A cancellation by its caller is not told."""

    __slots__ = ("_message", "_session")

    def __init__(self, session: WorkerSession, message: InvokeFunction) -> None:
        self._session = session
        self._message = message

    @property
    def payload(self) -> Raw:
        """The payload's JSON, as it came."""
        return self._message.data or Raw(b"null")

    @property
    def traceparent(self) -> str | None:
        """The trace header of the call."""
        return self._message.traceparent

    @property
    def baggage(self) -> str | None:
        """The baggage header of the call."""
        return self._message.baggage

    def answer(self, value: object) -> None:
        """Answer with a value that JSON can hold. Raises TypeError or ValueError for any other."""
        reply_result(self._session, self._message, to_json(value))

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        reply_error(self._session, self._message, error)

    def _run(self, handler: InlineHandler) -> None:
        try:
            handler(self)
        # Ctrl-C is for the whole process, and no fault of this handler.
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: ASYNC103 - a bug in the handler must not end the worker
            self.fail(error)


InlineHandler = Callable[[InlineCall], object]
"""Handles a call without waiting. It may answer later, and may raise CallError. Calls come in their order."""
