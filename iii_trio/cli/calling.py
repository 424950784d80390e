"""What the commands share that call functions: a connection, and a call, within one deadline."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

import iii_trio

from ..records import frozen
from .exits import Exit, Failure


def _from_now(seconds: float | None) -> float:
    return math.inf if seconds is None else trio.current_time() + seconds


@frozen
class Deadline:
    """The time that a command has, from its making on: for the connection and for the call together."""

    seconds: float | None = None
    """None: for ever."""
    at: float = attrs.field(default=attrs.Factory(lambda self: _from_now(self.seconds), takes_self=True))

    def passed(self, what: str, why: str = "") -> Failure:
        """Return the failure for a command that is out of time. `why` says what it waited for, if that is known."""
        return Failure(Exit.TIMED_OUT, f"{what} within {self.seconds:g} s{f': {why}' if why else ''}; see --timeout")


@asynccontextmanager
async def connect(address: str, command: str, deadline: Deadline | None = None) -> AsyncIterator[iii_trio.Worker]:
    """Open a worker for one command, under a name that no other has.

    Raises ConnectionFailed, and Failure when the deadline passes before there is a connection.
    """
    deadline = deadline or Deadline()
    connected = False
    with trio.CancelScope(deadline=deadline.at) as connecting:
        async with iii_trio.open_worker(
            address, name=f"iii-trio-{command}-{socket.gethostname()}-{os.getpid()}"
        ) as worker:
            connected = True
            connecting.deadline = math.inf
            yield worker
    if connecting.cancelled_caught and not connected:
        raise deadline.passed(f"no engine answered at {address}")


async def call(
    worker: iii_trio.Worker, function: str, payload: Any, *, namespace: str | None, deadline: Deadline
) -> Any:
    """Return the function's result.

    Raises CallError, ConnectionFailed, and Failure when the time is over.
    """
    with trio.CancelScope(deadline=deadline.at):
        return await worker.trigger(function, payload, namespace=namespace)
    raise deadline.passed(f"{function} gave no answer")
