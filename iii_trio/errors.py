"""Everything iii_trio raises on purpose.

    IIIError
    ├── MisuseError          you, here and now: wrong arguments, wrong order
    │   └── IllegalTransition         a state machine got an event that its state does not allow
    ├── ConfigError          a configuration that cannot be used; names file, line and key
    ├── PeerError            the other side broke a rule of the wire
    │   ├── FrameError         … of RFC 6455; carries the close code to answer with
    │   └── MessageError       … of the worker protocol
    ├── ConnectionFailed     no connection, or no longer one
    │   ├── Rejected           the engine refused this worker for good
    │   ├── AttachRefused      the engine refused a channel end; carries the HTTP status
    │   └── ListenFailed       no server can listen at an address; tells whether the address is in use
    ├── ModuleFailed         a module of an engine could not start; names the module and the cause
    ├── StorageError         jobs cannot be kept where they are to be; names the place, the cause, and the mend
    ├── CallError            a call gave no value; `code` is what travels
    └── ChannelBroken        a channel's other end is gone before the clean end (also a trio.BrokenResourceError)

The ends of a channel also raise Trio's own words: `trio.EndOfChannel` after a clean end,
`trio.ClosedResourceError` after one's own close, `trio.BusyResourceError` for two at once.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal, TypeAlias, cast

import trio

OutcomeName: TypeAlias = Literal[
    "completed",
    "aborted",
    "writer_lost",
    "reader_cancelled",
    "reader_lost",
    "owner_lost",
    "expired",
    "engine_closed",
]
"""How a channel ended, in one word (clause C4.7)."""


class IIIError(Exception):
    """The root of all errors that iii_trio raises on purpose. All of them can be pickled and copied."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore `args` and the attributes, because the constructors of subclasses take other arguments than `args`."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[IIIError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> IIIError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class MisuseError(IIIError):
    """The caller's own doing, raised at once and without any effect."""


class IllegalTransition(MisuseError):
    """A state table has no transition for this event in the current state."""

    def __init__(self, state: Enum, event: Enum) -> None:
        super().__init__(f"{state} has no transition for {event}")
        self.state = state
        self.event = event


class ConfigError(IIIError):
    """A configuration that cannot be used. The text names file, line and key, and how to mend it."""


class PeerError(IIIError):
    """The other side broke a rule of the wire."""


class FrameError(PeerError):
    """A frame that RFC 6455 does not allow, or that is too large.

    `code` is the close code that answers it (1002, 1007 or 1009). `reason` names the fault.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class MessageError(PeerError):
    """A message that the worker protocol does not allow."""


class ConnectionFailed(IIIError):
    """There is no connection to the engine, or no longer one. The text names the address and the cause."""


class Rejected(ConnectionFailed):
    """The engine refused this worker for good. `code` is the reason (`WORKER_NAMESPACE_CONFLICT`)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AttachRefused(ConnectionFailed):
    """The engine refused to attach a channel's end.

    `status` is the HTTP status: 403 wrong direction or secret, 404 unknown channel or key, 409 end already
    attached, 503 draining. (410, a channel that has ended, is raised as `ChannelBroken`.)
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class ListenFailed(ConnectionFailed):
    """No server can listen at an address. `in_use` tells whether another server listens there."""

    def __init__(self, message: str, *, in_use: bool = False) -> None:
        super().__init__(message)
        self.in_use = in_use


class ModuleFailed(IIIError):
    """A module could not start, for a reason that it does not explain itself. The text names the module and the cause."""


class StorageError(IIIError):
    """A store failed. The text names the place, the cause, and the way to mend it."""


class CallError(IIIError):
    """A call gave no value.

    `code` and `message` are texts that travel. `function_id` and `invocation_id` name the call where known. `stacktrace` is
    the handler's, if it sent one. `origin` names the side that made the error. It is `handler` (or an engine that does not
    tell), `engine`, or `link` if the link was lost. Raise it in a handler to answer with a code of your own. Any other
    exception is answered as `invocation_failed`. The constructor raises TypeError if `code` or `message` is not a string.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        stacktrace: str | None = None,
        function_id: str | None = None,
        invocation_id: str | None = None,
        origin: Literal["handler", "engine", "link"] = "handler",
    ) -> None:
        # A handler's mistake is told here, with its line, and not later by the code that sends the error.
        for name, value in (("code", code), ("message", message)):
            if not isinstance(value, str):
                raise TypeError(f"CallError takes two strings, (code, message): {name} is {_in_words(value)}")
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.stacktrace = stacktrace
        self.function_id = function_id
        self.invocation_id = invocation_id
        self.origin = origin

    def __str__(self) -> str:
        where = f" (calling {self.function_id})" if self.function_id else ""
        return f"{self.code}: {self.message}{where}"


def _in_words(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


class ChannelBroken(trio.BrokenResourceError, IIIError):
    """A channel ended, and not by its clean end (clauses C4.7 and C4.8).

    `outcome` is the way in one word. `reason` is the text that came with it. `code` is the error code that the other end
    gave to `abort`, or the outcome where it gave none.
    """

    def __init__(self, outcome: str, reason: str, *, code: str | None = None) -> None:
        super().__init__(f"{outcome}: {reason}" if reason else outcome)
        self.outcome = cast(OutcomeName, outcome)  # a newer engine may have more
        self.reason = reason
        self.code = code or outcome
