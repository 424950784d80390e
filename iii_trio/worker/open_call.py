"""A call that is answered without a task: at once, or when there is something to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from msgspec import Raw

from ..wire import InvokeFunction, to_json
from .answer import answer_error, answer_result
from .calls import Session


@final
class InlineCall:
    """Has to be answered once, by `answer` or by `fail`. Its caller may have cancelled meanwhile: nothing tells."""

    __slots__ = ("_message", "_session")

    def __init__(self, session: Session, message: InvokeFunction) -> None:
        self._session = session
        self._message = message

    @property
    def payload(self) -> Raw:
        """Its JSON, as it came."""
        return self._message.data or Raw(b"null")

    @property
    def traceparent(self) -> str | None:
        return self._message.traceparent

    @property
    def baggage(self) -> str | None:
        return self._message.baggage

    def ask(self, prompt: InlineHandler) -> None:
        """Have it answered; what `prompt` raises is the answer."""
        try:
            prompt(self)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a bug in here must not end the worker
            self.fail(error)

    def answer(self, value: object) -> None:
        """Its value, that JSON can hold."""
        answer_result(self._session, self._message, to_json(value))

    def fail(self, error: BaseException) -> None:
        """There is no value."""
        answer_error(self._session, self._message, error)


InlineHandler = Callable[[InlineCall], object]
"""Sees to a call, now or later, without waiting; may raise CallError. Calls are given to it in their order."""
