"""Calls and handlers without a task, for modules with many small calls."""

from __future__ import annotations

from collections.abc import Callable

from ..wire import InvokeFunction, encode
from .calls import CallHandle, PendingCall, checked
from .function_spec import Registered
from .inline import InlineHandler
from .worker import Worker


def can_call(worker: Worker) -> bool:
    """Return whether `call_nowait` may be called now, because there is a connection and its output has room."""
    session = worker._membership.session
    return session is not None and session.link.has_room


async def wait_can_call(worker: Worker) -> None:
    """Wait until `can_call`. Raises ConnectionFailed when that cannot come. If cancelled: nothing changes."""
    while not can_call(worker):
        await (await worker._wait_session()).link.wait_room()


def call_nowait(worker: Worker, message: InvokeFunction, then: Callable[[], object]) -> CallHandle:
    """Make a call without a task that waits for it. Only while `can_call`.

    `then` is called once, when the call is settled, and must not wait. The message is sent as it is, with an
    `invocation_id` that is made here. Raises CallError `payload_too_large`.
    """
    session = worker._membership.session
    assert session is not None
    call = PendingCall(message.function_id, worker._environment.new_id(), then)
    message.invocation_id = call.invocation_id
    session.send(call, checked(encode(message), message.function_id))
    return CallHandle(session, call)


def flush(worker: Worker) -> None:
    """Send the calls and answers of this turn of the loop now, instead of gathering more."""
    if worker._membership.session is not None:
        worker._membership.session.link.flush_output()


def register_inline_handler(
    worker: Worker, function_id: str, handler: InlineHandler, *, description: str | None = None
) -> Registered:
    """Offer a function that is answered without a task.

    `handler(call)` is called at once, in the order of the calls, and must not wait. It calls `call.answer(value)` or
    `call.fail(error)` once, now or later. An exception that it raises is the answer.

    Raises MisuseError if the id is taken or no id.
    """
    return worker._register_inline_handler(function_id, handler, description=description)


def new_id(worker: Worker) -> str:
    """Return a new id (UUID v4) from the worker's environment, which a simulation may have seeded."""
    return worker._environment.new_id()
