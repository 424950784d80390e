"""Exceptions at the worker's boundary. Failures are described to others, and cancellations go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio

from ..errors import CallError, ChannelBroken, IIIError
from ..nursery import leaves
from ..report import get_logger
from ..text import error_text, sendable
from ..wire import ErrorCode

LOGGER: Final = get_logger("iii_trio.worker")


def describe(error: BaseException | None, *, named: bool = False) -> tuple[str, str | None]:
    """Return the reason and the code by which another worker learns of an exception (clause C5.3).

    With `named` the reason begins with the type's name, unless the exception is one of ours. A caller needs it: the text
    of a KeyError is only its key. Neither holds a lone surrogate, and no code of the exception's class makes this raise.
    """
    if error is None:
        return "closed", None
    # Of a nursery's group, the first failure says most.
    error = min(leaves(error), key=lambda leaf: isinstance(leaf, trio.Cancelled))
    if isinstance(error, trio.Cancelled):
        return sendable(error.reason or "cancelled"), ErrorCode.INVOCATION_CANCELLED
    if isinstance(error, CallError):
        return sendable(error.message), sendable(error.code)
    if isinstance(error, ChannelBroken):
        return sendable(error.reason), sendable(error.code)
    name = sendable(type(error).__name__)
    text = error_text(error)
    if text and named and not isinstance(error, IIIError):
        text = f"{name}: {text}"
    return text or name, ErrorCode.INVOCATION_FAILED


def contain(callback: Callable[..., object], *arguments: Any, what: str) -> None:
    """Call a user's callback. An exception in it is logged, because it must not end the worker."""
    try:
        callback(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: ASYNC103
        LOGGER.exception("%s raised", what)
