"""Text that can always be sent: values and exceptions as Unicode without lone surrogates."""

from __future__ import annotations

import traceback


def sendable(value: object) -> str:
    """Return a value as text that JSON can hold. A lone surrogate becomes `?`."""
    text = value if type(value) is str else _as_text(value)
    return text if text.isascii() else text.encode(errors="replace").decode()


def error_text(error: BaseException) -> str:
    """Return what an exception says of itself, or nothing if its own `__str__` fails."""
    return sendable(error)


def named_error(error: BaseException) -> str:
    """Return an exception's type and its text, in one line. Never raises."""
    text = " ".join(error_text(error).split())
    name = sendable(type(error).__name__)
    return f"{name}: {text}" if text else name


def traceback_text(error: BaseException) -> str | None:
    """Return the traceback of an exception as text, or None if it cannot be formatted."""
    try:
        return sendable("".join(traceback.format_exception(error)))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: ASYNC103 - the exception's own code runs here, and may raise anything
        return None  # noqa: ASYNC104


def _as_text(value: object) -> str:
    try:
        return str.__str__(value if isinstance(value, str) else str(value))  # plain, also of a subclass
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: ASYNC103 - the value's own code runs here, and may raise anything
        return ""  # noqa: ASYNC104


def count_of(count: int, what: str) -> str:
    """Return a number of things, for people: `1 job`, `2 jobs`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
