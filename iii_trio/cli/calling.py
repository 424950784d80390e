"""What the commands share that call functions: a connection, a call with a deadline, a result on a stream."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any, TextIO

import trio

import iii_trio

from .exits import Exit, Failure


def connect(address: str, command: str) -> AbstractAsyncContextManager[iii_trio.Worker]:
    """A worker of one command, under a name that no other has. Raises ConnectionFailed."""
    return iii_trio.open_worker(address, name=f"iii-trio-{command}-{socket.gethostname()}-{os.getpid()}")


async def call(
    worker: iii_trio.Worker, function: str, payload: Any, *, namespace: str | None, timeout: float | None
) -> Any:
    """The function's result; `timeout` in seconds, None for ever.

    Raises CallError, ConnectionFailed, and Failure when the time is over.
    """
    try:
        with trio.fail_after(math.inf if timeout is None else timeout):
            return await worker.trigger(function, payload, namespace=namespace)
    except trio.TooSlowError:
        raise Failure(Exit.TIMED_OUT, f"{function} gave no answer within {timeout:g} s; see --timeout") from None


def print_result(result: Any, stream: TextIO | None = None) -> None:
    """The result as JSON: one line for programs, indented for people."""
    stream = sys.stdout if stream is None else stream
    print(json.dumps(result, ensure_ascii=False, indent=2 if stream.isatty() else None), file=stream, flush=True)
