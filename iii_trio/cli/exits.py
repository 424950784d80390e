"""What exit codes mean, and what a failure is called."""

from __future__ import annotations

from enum import IntEnum

from ..errors import (
    AttachRefused,
    CallError,
    ChannelBroken,
    ConfigError,
    ConnectionFailed,
    IIIError,
    ListenFailed,
    MisuseError,
    StorageError,
)


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    """Something else than what follows; stderr says what."""
    USAGE = 2
    """Wrong arguments or a wrong configuration. Trying again does not help."""
    CALL_FAILED = 3
    """The call was answered with an error, printed as `code: message`."""
    STREAM_CUT = 4
    """The channel ended before its clean end."""
    UNREACHABLE = 69
    """No engine there, or it refused us."""
    STORAGE = 73
    """Jobs cannot be kept where they are to be."""
    ADDRESS_IN_USE = 98
    """Somebody else listens there."""
    TIMED_OUT = 124
    """No answer within `--timeout`."""
    INTERRUPTED = 130
    """SIGINT ended a command that was not done."""
    TERMINATED = 143
    """SIGTERM ended a command that was not done."""


EXIT_HELP = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the call was answered with an error, "
    "4 the stream was cut, 69 no engine there, 73 jobs cannot be kept there, 98 address in use, 124 timed out, "
    "130 and 143 interrupted."
)


class UsageError(Exception):
    """Arguments that cannot be used. The text says what, where and how to mend it."""


class Failure(Exception):
    """A command could not do its work; the text is all that its user needs, `exit_code` is what a script needs."""

    def __init__(self, exit_code: Exit, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def explain(error: BaseException) -> Failure | None:
    """Explain an expected error to the user of a command. Returns None for an unexpected one."""
    match error:
        case Failure():
            return error
        case UsageError() | ConfigError() | MisuseError():
            return Failure(Exit.USAGE, str(error))
        case CallError():
            return Failure(Exit.CALL_FAILED, f"{error.code}: {error.message}")
        case ChannelBroken() | AttachRefused():
            return Failure(Exit.STREAM_CUT, f"the stream was cut: {error}")
        # A supervisor tells a taken address from other failures by the exit code.
        case ListenFailed():
            return Failure(Exit.ADDRESS_IN_USE if error.in_use else Exit.FAILED, str(error))
        # A missing token is the usual reason for 401, and the address in the error does not tell.
        case ConnectionFailed():
            mend = "; put a token into the environment variable III_TOKEN" if "HTTP 401" in str(error) else ""
            return Failure(Exit.UNREACHABLE, f"{error}{mend}")
        case StorageError():
            return Failure(Exit.STORAGE, str(error))
        # Python's own text repeats the number of the error, which helps no user.
        case OSError():
            return Failure(Exit.FAILED, f"{error.filename}: {error.strerror}" if error.filename else str(error))
        case IIIError():
            return Failure(Exit.FAILED, str(error))
        # Nurseries wrap even a single error in a group.
        case BaseExceptionGroup() if len(error.exceptions) == 1:
            return explain(error.exceptions[0])
        case _:
            return None
