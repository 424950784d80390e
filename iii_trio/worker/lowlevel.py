"""Calls and handlers without a task, for modules with many small calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import trio

from ..transport.frames import Buffer
from ..transport.link import Identity, WatchesChannels
from ..wire import ChannelEnded, InvokeFunction, encode
from .calls import AwaitedCall, CallHandle, PendingCall, WorkerSession, call_text, checked
from .ends import ChannelReader, ChannelWriter
from .function_spec import FunctionSpec, Registered, check_function_id
from .inline import InlineHandler
from .trigger_binding import TriggerBinding
from .worker import Worker


def can_call(worker: Worker) -> bool:
    """Return whether `call_nowait` may be called now, because there is a connection and its output has room."""
    session = worker._membership.session
    # A link that is over stays the session's for a turn, and a call on it would be settled before it has a handle.
    return session is not None and session.link.ended is None and session.link.has_room


async def wait_can_call(worker: Worker) -> None:
    """Wait until `can_call`. Raises ConnectionFailed when that cannot come. If cancelled: nothing changes."""
    while not can_call(worker):
        await (await worker._wait_session()).link.wait_room()


def call_nowait(worker: Worker, message: InvokeFunction, then: Callable[[], object]) -> CallHandle:
    """Make a call without a task that waits for it. Only while `can_call`.

    `then` is called once, when the call is settled, and must not wait. It is called before the handle is returned if the
    link ends while the call is sent. The message is sent as it is, with an
    `invocation_id` that is made here if it has none. Raises CallError `payload_too_large`.
    """
    session = worker._membership.session
    assert session is not None
    invocation_id = message.invocation_id
    if invocation_id is None:
        invocation_id = message.invocation_id = worker._environment.new_id()
    call = PendingCall(message.function_id, invocation_id, then)
    session.send(call, checked(encode(message), message.function_id))
    return CallHandle(session, call)


async def begin_call(
    worker: Worker,
    function_id: str,
    payload: Any,
    *,
    namespace: str | None = None,
    metadata: Any = None,
    traceparent: str | None = None,
    baggage: str | None = None,
) -> CallHandle:
    """Make a call as `Worker.trigger` does, and return once it is on its way. The caller gives it up if it does not wait.

    Raises CallError for a payload that cannot be sent, and ConnectionFailed. If cancelled: the call was not made.
    """
    call = PendingCall(function_id, worker._environment.new_id())
    text = call_text(
        function_id,
        call.invocation_id,
        payload,
        namespace=worker._namespace_of(function_id, namespace),
        metadata=metadata,
        traceparent=traceparent,
        baggage=baggage,
        action=None,
    )
    session = worker._membership.session or await worker._wait_session()
    # Other tasks run while the answer is awaited.
    if session.link.has_room:
        await trio.lowlevel.checkpoint_if_cancelled()
    else:
        await session.link.wait_room()
    session.send(call, text)
    return CallHandle(session, call)


def watch_channel(worker: Worker, channel_id: str, changed: Callable[[], object] | None) -> bool:
    """Call back once, when an end of the channel is attached or closed, or the channel has ended. None: never mind.

    The callback must not wait, and must not call the engine. Returns False where the worker's engine cannot tell.
    """
    address = worker._ends._address
    # An isinstance check of a protocol would take 10 µs.
    if not hasattr(address, "watch_channel"):
        return False
    cast(WatchesChannels, address).watch_channel(channel_id, changed)
    return True


async def receive_pieces(reader: ChannelReader) -> list[Buffer | str]:
    """Receive what comes next: texts whole, and bytes in pieces of any size, so that a relay copies nothing.

    Read an end in this way only, or with `receive` only. Raises as `ChannelReader.receive`. If cancelled: nothing is lost.
    """
    return await reader._receive_pieces()


def send_now(writer: ChannelWriter, item: bytes) -> bool:
    """Send an item if that needs no waiting, without a checkpoint. Otherwise return False, and `send` is to be used.

    Only an end that is attached in the engine's process takes items so.
    """
    return writer._send_now(item)


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

    Raises MisuseError if the id is taken or no id, and ConnectionFailed if the worker has left.
    """
    check_function_id(function_id)
    return worker._register(FunctionSpec.from_inline_handler(function_id, handler, description))


def relay_function(
    worker: Worker,
    function_id: str,
    handler: InlineHandler,
    *,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    request_format: Any = None,
    response_format: Any = None,
) -> Registered:
    """Offer a function that is answered without a task, or describe it again. It may stand by for another worker's.

    As `register_inline_handler`, but an id that this worker offers already keeps its place at the engine.
    """
    spec = FunctionSpec.from_inline_handler(
        function_id, handler, description, metadata, request_format, response_format, stands_by=True
    )
    worker._registrations.put(spec)
    return Registered(spec, worker._registrations.withdraw)


def session_of(worker: Worker) -> WorkerSession | None:
    """Return the link that the worker has now, with the calls that are under way on it, or None without one."""
    return worker._membership.session


def call_by(session: WorkerSession, message: InvokeFunction, call: AwaitedCall) -> None:
    """Make a call that a session settles. Only while its link has room.

    It is settled within this step if the link is over. Raises CallError `payload_too_large`.
    """
    session.send(call, checked(encode(message), message.function_id))


async def wait_link_lost(worker: Worker) -> None:
    """Wait until the link that the worker has now is lost. Return at once without one. If cancelled: nothing changes."""
    membership = worker._membership
    session = membership.session
    await trio.lowlevel.checkpoint()
    while session is not None and membership.session is session:
        await membership.changed.park()


def identity_of(worker: Worker) -> Identity | None:
    """Return the session by which the worker holds the ends of channels, or None without one (clause C8.2)."""
    return worker._ends._identity(None)


def relay_channel_ends(worker: Worker, on_ended: Callable[[ChannelEnded], object]) -> None:
    """Have a callback called when the engine tells how a channel ended of which the worker owns or holds an end."""
    worker._ends.on_ended = on_ended


def new_id(worker: Worker) -> str:
    """Return a new id (UUID v4) from the worker's environment, which a simulation may have seeded."""
    return worker._environment.new_id()


def end_binding(binding: TriggerBinding, *, owner_gone: bool) -> None:
    """Remove a binding that was made for another worker: withdrawn, or because that worker is gone."""
    if owner_gone:
        binding.end_for_owner()
    else:
        binding.unregister()
