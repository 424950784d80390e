"""How long the parts of a message may be that the engine keeps or reads itself."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from ..errors import CallError
from .codes import ErrorCode

MAX_DEPTH: Final = 512
"""Levels of lists and objects in one message, its envelope included. The Python SDK fails at about 985."""
MAX_DIGITS: Final = 4300
"""Digits of an integer. Python refuses to read longer ones (`sys.int_info.default_max_str_digits`)."""
MAX_NAME: Final = 1024
"""Characters of a function id, trigger id, trigger type, namespace, queue or worker name."""
MAX_INVOCATION_ID: Final = 128
MAX_DESCRIPTION: Final = 64 * 1024
MAX_TRACE: Final = 64 * 1024
"""Characters of `traceparent` and of `baggage`."""
MAX_ERROR_CODE: Final = 256
MAX_ERROR_MESSAGE: Final = 8 * 1024
MAX_STACKTRACE: Final = 64 * 1024
MAX_ERROR_BYTES: Final = 128 * 1024
"""Bytes of an error's JSON. A longer one loses its unknown fields."""
MAX_ENGINE_INPUT_BYTES: Final = 1024 * 1024
"""Bytes of the payload of a function that the engine or one of its modules answers itself."""

Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
InvocationId: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_INVOCATION_ID)]
Description: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_DESCRIPTION)]
Trace: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_TRACE)]

CARRY_JOBS: Final = frozenset({"engine::queue::enqueue", "iii::durable::publish"})
"""Functions whose payload holds the payload of a job. It may be larger than that of other functions of the engine."""


def bad_input(function_id: str, problem: str) -> CallError:
    """Return the error for an input that a function cannot read."""
    return CallError(ErrorCode.DESERIALIZATION_ERROR, f"Failed to deserialize input for {function_id}: {problem}")


def check_engine_input(function_id: str, size: int) -> None:
    """Refuse a payload that would hold up the engine. Raises CallError with `payload_too_large`."""
    # The payload of a job is passed on, so that only its message's size bounds it.
    if size > MAX_ENGINE_INPUT_BYTES and function_id not in CARRY_JOBS:
        problem = (
            f"The payload of {function_id} is {size} bytes; functions of the engine take at most "
            f"{MAX_ENGINE_INPUT_BYTES}. Send less in one call."
        )
        raise CallError(ErrorCode.PAYLOAD_TOO_LARGE, problem)


def check_name(function_id: str, field: str, value: str | None) -> None:
    """Refuse a name that is too long to be kept. Raises CallError with `deserialization_error`."""
    if value is not None and len(value) > MAX_NAME:
        raise bad_input(function_id, f"`{field}` has {len(value)} characters; at most {MAX_NAME} are allowed")
