"""The facts of calls and channels that are recorded. They hold no payload and no text of an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..observed import CallFacts, ChannelFacts, TraceSource
from ..wire import Action, InvokeFunction
from ..wire.bounds import CARRY_JOBS
from .channel import Channel
from .effects import CallEnded, Effect
from .session import WorkerSession

_UNOBSERVED: Final = "engine::log::"
"""The functions that write a line of a log. A record of each call would tell nothing more than the line."""


def name_of(session: WorkerSession | None) -> str:
    """Return a worker's name, or its id while it has none. An end without a session belongs to nobody known."""
    if session is None:
        return ""
    return session.info.name or session.id


def observe_call(
    traces: TraceSource,
    caller: WorkerSession,
    callee: WorkerSession | None,
    message: InvokeFunction,
    now: float,
    *,
    action: Action | None = None,
    by_engine: bool = False,
) -> CallFacts | None:
    """Begin the facts of a call, or return None if it is not recorded. Ask whether the source is active before calling.

    `by_engine` says that the engine answers it itself. `callee` is None then, and for a function that does not exist.
    """
    # Most calls are outside of all traces, and need no more than this.
    if message.traceparent is None and not traces.may_begin_trace(now):
        return None
    function_id = message.function_id
    if by_engine and function_id.startswith(_UNOBSERVED):
        return None
    enqueued = action is not None and action.type == "enqueue"
    # Calls to and from the engine's own modules are of interest within a trace only, but a job begins one of its own.
    is_job = enqueued or function_id in CARRY_JOBS
    own_trace = not caller.internal and (is_job or not (by_engine or (callee is not None and callee.internal)))
    if message.traceparent is None and not own_trace:
        return None
    name = name_of(caller)
    place = traces.place(message.traceparent, function_id, name, now, may_begin_trace=own_trace)
    if place is None:
        return None
    facts = CallFacts(*place, now, function_id, name, caller.id)
    if callee is not None:
        facts.callee, facts.callee_id, facts.is_internal = name_of(callee), callee.id, callee.internal
    elif by_engine:
        facts.is_internal = True
    facts.namespace = message.namespace
    if enqueued and action is not None:
        facts.queue = action.queue or ""
    return facts


def observe_channel(
    traces: TraceSource, owner: WorkerSession, channel: Channel, traceparent: str | None, now: float
) -> ChannelFacts | None:
    """Begin the facts of a new channel, or return None if it is not recorded."""
    if not traces.active or (traceparent is None and (owner.internal or not traces.may_begin_trace(now))):
        return None
    name = name_of(owner)
    place = traces.place(traceparent, "channel", name, now, may_begin_trace=not owner.internal)
    return None if place is None else ChannelFacts(*place, now, channel.id, name)


def end_call(facts: CallFacts, outcome: str, code: str, emit: Callable[[Effect], None]) -> None:
    """Give back the facts of a call that has ended, with the code of its error if it has one."""
    facts.outcome, facts.code = outcome, code
    emit(CallEnded(facts))
