"""The whole engine without I/O. Inputs go in and effects come out.

Everything here is synchronous. An input cannot be interrupted, so a teardown needs no claims and no locks. Every input
returns the effects that the shell has to perform, in order, before the next input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ..config import EngineConfig
from ..errors import CallError
from ..observed import TraceSource
from ..wire import (
    CancelInvocation,
    Close,
    Direction,
    ErrorCode,
    InvocationResult,
    InvokeFunction,
    JsonValue,
    Message,
    Outcome,
    Ping,
    Pong,
    Reattach,
    TriggerRegistrationResult,
    Undecodable,
    decode,
    encode,
)
from ..wire.telemetry import telemetry_kind
from . import (
    admission,
    calls,
    deferred_registrations,
    engine_events,
    faults,
    gauges,
    identity,
    routing,
    trigger_handlers,
    unreadable,
    waiting,
)
from .access import Access
from .admission import Credentials
from .channel import Channel, ChannelEvent
from .channels import Refused
from .effects import Effects, PassTelemetry, Send
from .engine_functions import answer_channel_list, answer_statistics, register_engine_functions
from .exports import Export, export_registrations
from .observing import name_of
from .session import SessionState, WorkerSession
from .sessions import close_session, end_session, start_session
from .state import State


class Hub:
    """The decisions of one engine. It takes inputs and dispatches messages to their handlers.

    `new_id` makes ids and `new_secret` makes keys and tokens (UUID v4 text, unguessable outside simulations). Without
    `new_secret` both come from `new_id`. Times are seconds of any one clock.
    """

    def __init__(
        self,
        config: EngineConfig,
        new_id: Callable[[], str],
        *,
        new_secret: Callable[[], str] | None = None,
        version: str | None = None,
        started_at_ms: int = 0,
        traces: TraceSource | None = None,
    ) -> None:
        self.state = state = State(
            config,
            new_id,
            new_secret=new_secret,
            version=version,
            started_at_ms=started_at_ms,
            traces=traces,
        )
        self.sessions: Mapping[str, WorkerSession] = state.sessions
        self.registry = state.registry
        self.calls = state.calls
        self.channels = state.channels
        self.triggers = state.triggers
        engine_events.provide_engine_events(state)
        register_engine_functions(state)

    @property
    def draining(self) -> bool:
        """Whether the engine takes no new calls."""
        return self.state.draining

    @property
    def revision(self) -> int:
        """A number that rises with every change of what `exports` returns."""
        return self.registry.revision + self.triggers.revision

    def exports(self) -> Iterator[Export]:
        """Return what the workers of this engine have registered."""
        return export_registrations(self.state)

    @property
    def external_sessions(self) -> int:
        """The number of sessions, the engine's own modules left out."""
        return len(self.sessions) - self.state.internal_sessions

    # --- sessions

    def connected(
        self,
        now: float,
        now_ms: int,
        *,
        peer: str | None,
        in_process: bool,
        max_channels: int | None = None,
        internal: bool = False,
        access: Access | None = None,
        credentials: Credentials | None = None,
    ) -> tuple[WorkerSession, Effects]:
        """Start a session for a new link.

        `access` holds the rules of a guarded listener, whose auth function gets the `credentials`.
        `max_channels` bounds the channels that it may own. None uses the engine's limit.
        """
        session = start_session(
            self.state,
            now,
            now_ms,
            peer=peer,
            in_process=in_process,
            max_channels=max_channels,
            internal=internal,
            access=access,
        )
        if session.state.current is SessionState.PENDING_AUTH:
            admission.ask_auth_function(self.state, session, credentials, now)
            self._settle(now)
        return session, self.state.take_effects()

    def received(self, session: WorkerSession, text: bytes | bytearray, now: float) -> Effects:
        """Handle a message of a session. Never raises, and harms at most the session that sent it."""
        # The link may still bring messages that were read before it was closed.
        if session.state.current is SessionState.GONE:
            return []
        state = self.state
        message: Message | Undecodable | None = None
        try:
            message = decode(text)
            # Telemetry is binary, and some SDKs send blank texts. Neither is a broken message.
            if type(message) is Undecodable:
                # A connection that was not admitted yet cannot write into the log.
                if session.state.current is SessionState.PENDING_AUTH:
                    return []
                if (kind := telemetry_kind(text)) is not None:
                    return [PassTelemetry(session.id, kind, text)]
                if len(text) <= _MAX_BLANK and not text.strip():
                    return []
            if session.held is not None and waiting.hold(state, session, message, now):
                return state.take_effects()
            handler = _HANDLERS.get(type(message))
            if handler is None:
                return []  # a message that only engines send
            handler(state, session, message, now)
            # The message may have ended a session and so freed a name.
            if state.name_waiters.waiting:
                identity.retry_name_waiters(state, now)
        except Exception as error:
            faults.contain(state, session, message, error)
        if state.engine_calls.settled:
            self._settle(now)
        return state.take_effects()

    def _finish(self, now: float) -> Effects:
        """Do what an input that may have ended a session made possible, and return the effects."""
        identity.retry_name_waiters(self.state, now)
        self._settle(now)
        return self.state.take_effects()

    def _settle(self, now: float) -> None:
        """Act upon the answers to calls of the engine, and handle the messages that waited for them."""
        state, settled = self.state, self.state.engine_calls.settled
        while settled:
            call, answer = settled.popleft()
            session = call.session
            if session.state.is_final:
                continue
            held, session.held = session.held or deque(), None
            try:
                call.then(answer, now)
            except Exception as error:
                faults.log_fault(state, session, "access rules", error)
                close_session(state, session, Close.INTERNAL_ERROR, "the engine failed at its access rules", now)
            self._resume(session, held, now)
            engine_events.check_for_changes(state, now)
            identity.retry_name_waiters(state, now)

    def _resume(self, session: WorkerSession, held: deque[tuple[Message | Undecodable, int]], now: float) -> None:
        """Handle the messages that a session had held back, until it waits again."""
        while held and not session.state.is_final:
            if session.held is not None:
                session.held.extend(held)
                return
            message, size = held.popleft()
            session.held_bytes -= size
            handler = _HANDLERS.get(type(message))
            try:
                if handler is not None:
                    handler(self.state, session, message, now)
            except Exception as error:
                faults.contain(self.state, session, message, error)

    def unreadable(self, session: WorkerSession, problem: Undecodable, now: float) -> Effects:
        """Handle a message that was found to be unreadable before, as `received` handles its text."""
        state = self.state
        if session.state.current in (SessionState.GONE, SessionState.PENDING_AUTH):
            return []
        try:
            if session.held is not None and waiting.hold(state, session, problem, now):
                return state.take_effects()
            unreadable.refuse_unreadable(state, session, problem, now)
            if state.name_waiters.waiting:
                identity.retry_name_waiters(state, now)
        except Exception as error:
            faults.contain(state, session, problem, error)
        self._settle(now)
        return state.take_effects()

    def undelivered(self, session_id: str, invocation_id: str, now: float) -> Effects:
        """Refuse a call, because its callee's outbox was full (`Deliver`)."""
        calls.undelivered(self.state, session_id, invocation_id)
        self._settle(now)
        return self.state.take_effects()

    def disconnected(
        self,
        session: WorkerSession,
        reason: str,
        now: float,
        *,
        may_come_back: bool = False,
        left: bool = False,
    ) -> Effects:
        """End a session in one step, because its link is over (clause C4.5). The second time does nothing.

        `may_come_back` says that the link was lost. If a grace is configured, its channels then wait (clause C4.6).
        `left` says that the worker ended the session on purpose, so that no call caused its end.
        """
        end_session(self.state, session, reason, now, may_come_back=may_come_back, left=left)
        return self._finish(now)

    def close_session(
        self, session: WorkerSession, code: int, reason: str, now: float, *, may_come_back: bool = False
    ) -> Effects:
        """End a session from the engine's side. Its calls are answered and its link is closed with the reason."""
        close_session(self.state, session, code, reason, now, may_come_back=may_come_back)
        return self._finish(now)

    def change_rules(self, session: WorkerSession, max_channels: int | None, access: Access | None) -> None:
        """Use the changed rules of a session's listener from now on."""
        session.max_channels = max_channels
        session.access = access

    def by_secret(self, worker_id: str, secret: str) -> WorkerSession | None:
        """Return the session that `Iii-Session` names (clause C8.2), or None if the secret is not its own."""
        return identity.session_by_secret(self.state, worker_id, secret)

    # --- channels

    def attach(
        self,
        channel_id: str,
        key: str,
        direction: Direction,
        now: float,
        holder: WorkerSession | None,
        invocation_id: str | None = None,
    ) -> Channel | Refused:
        """Attach an end of a channel, for the call `invocation_id` if one is given. A refusal changes nothing."""
        channel = self.channels.attach(channel_id, key, direction, now, holder)
        if isinstance(channel, Channel) and invocation_id is not None:
            channel.invocations.append(invocation_id)
            call = self.calls.given_to(holder).get(invocation_id) if holder is not None else None
            if call is not None and call.traceparent is not None:
                channel.used_by.append(call.traceparent)
            if call is not None and call.facts is not None and channel.facts is not None:
                channel.facts.links.append(call.facts.context)
        if isinstance(channel, Channel) and channel.facts is not None:
            if direction is Direction.READ:
                channel.facts.reader = name_of(holder)
            else:
                channel.facts.writer = name_of(holder)
        return channel

    def channel_event(
        self, channel_id: str, event: ChannelEvent, reason: str, now: float, code: str | None = None
    ) -> Effects:
        """Apply an event to a channel. It is ignored if the channel has ended or does not allow it (clause C4.8)."""
        self.channels.advance(channel_id, event, reason, now, code)
        return self.state.take_effects()

    def name_home(self, home: str) -> None:
        """Put the name of this engine into the ids of channels that are created from now on."""
        self.channels.home = home

    def show_workers(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Have `engine::workers::list` show these rows, of workers of other engines, beside the engine's own."""
        self.state.workers_elsewhere = rows

    def show_gauges(self, worker_id: str, values: Mapping[str, int | float], time_ms: int, now: float) -> None:
        """Have `engine::workers::info` show these measurements of a worker, which it took at `time_ms`."""
        gauges.keep_gauges(self.state, worker_id, values, time_ms, now)

    def hold_elsewhere(self, channel_id: str, session: WorkerSession) -> None:
        """Note that a session holds an end of a channel at another engine."""
        self.state.ends_elsewhere.add(channel_id, session)

    def release_elsewhere(self, channel_id: str, session: WorkerSession) -> None:
        """Note that a session holds no end of this channel, because the other engine has refused it."""
        self.state.ends_elsewhere.remove(channel_id, session)

    def channel_ended_elsewhere(self, channel_id: str, outcome: Outcome, reason: str, code: str | None) -> Effects:
        """Tell the holders of its ends how a channel at another engine ended."""
        self.state.ends_elsewhere.ended(channel_id, outcome, reason, code)
        return self.state.take_effects()

    def engine_lost(self, home: str, reason: str) -> Effects:
        """Tell the holders of ends at another engine that its channels are lost to them."""
        self.state.ends_elsewhere.engine_lost(home, reason)
        return self.state.take_effects()

    def refuse_name(self, namespace: str, name: str, holder_id: str, node: str, now: float) -> Effects:
        """Refuse the worker that has a name here, because a worker of another engine had it before."""
        identity.refuse_name(self.state, namespace, name, holder_id, node, now)
        return self.state.take_effects()

    def touch(self, channel_id: str, now: float) -> None:
        """Restart the expiry of a channel, because a message passed (clause C2.3)."""
        self.channels.touch(channel_id, now)

    # --- the shell's answers to questions

    def unread_input_known(self, session_id: str, has_unread_input: bool, now: float) -> Effects:
        """Answer `AskUnreadInput`. A session that is unknown to the shell has no unread input."""
        identity.unread_input_known(self.state, session_id, has_unread_input, now)
        return self._finish(now)

    def sign_of_life_known(self, session_id: str, is_alive: bool, now: float) -> Effects:
        """Answer `AskSignOfLife`."""
        identity.sign_of_life_known(self.state, session_id, is_alive, now)
        return self._finish(now)

    def channel_io_known(self, question: int, statistics: Mapping[str, Mapping[str, JsonValue]]) -> Effects:
        """Answer `AskChannelIo` with the I/O statistics of each open channel, by its id."""
        # The question may have been answered already.
        request = self.state.questions.pop(question, None)
        if request is not None:
            answer_channel_list(self.state, request, statistics)
        return self.state.take_effects()

    def statistics_known(self, question: int, statistics: Mapping[str, JsonValue]) -> Effects:
        """Answer `AskStatistics`."""
        request = self.state.questions.pop(question, None)
        if request is not None:
            answer_statistics(self.state, request, statistics)
        return self.state.take_effects()

    def recording_known(self, question: int, result: Mapping[str, JsonValue] | None, error: str | None) -> Effects:
        """Answer `AskRecording` with a description of the recording, or with the reason why there is none."""
        request = self.state.questions.pop(question, None)
        if request is not None and error is not None:
            request.fail(CallError(ErrorCode.INVOCATION_FAILED, error))
        elif request is not None:
            request.reply(result)
        return self.state.take_effects()

    # --- time

    def tick(self, now: float) -> Effects:
        """Do everything that is due."""
        state = self.state
        state.channels.expire(now)
        state.lost_sessions.expire(now)
        state.triggers.expire(now)
        identity.expire_name_waiters(state, now)
        identity.expire_grace(state, now)
        engine_events.expire(state, now)
        waiting.expire(state, now)
        return self._finish(now)

    def next_due(self) -> float | None:
        """Return when `tick` has something to do, at the latest. None means never."""
        state = self.state
        earliest = state.channels.next_due()
        if state.graces:
            grace = state.next_grace()
            if grace is not None and (earliest is None or grace < earliest):
                earliest = grace
        # This is asked after every read, and nearly always nothing else has a deadline.
        if not (
            state.lost_sessions.due
            or state.triggers.waits
            or state.name_waiters.waiting
            or state.function_changes.due is not None
            or state.engine_calls.due
            or state.events
        ):
            return earliest
        for due in (
            state.lost_sessions.next_due(),
            state.triggers.next_due(),
            state.name_waiters.next_due(),
            engine_events.next_due(state),
            state.engine_calls.next_due(),
        ):
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    # --- change, and the end

    def reconfigure(self, config: EngineConfig) -> None:
        """Use this configuration from now on. Earlier decisions stay."""
        self.state.reconfigure(config)

    def drain(self) -> None:
        """Refuse new calls, but for those of engine functions, and new channels from now on."""
        self.state.draining = True

    def close(self, reason: str, now: float) -> Effects:
        """End all channels, calls and sessions. SDKs connect elsewhere upon this close code."""
        state = self.state
        state.channels.close_all(reason, now)
        sessions = list(self.sessions.values())
        # All callers are told before the first link is closed.
        for session in sessions:
            calls.callee_left(state, session, reason, left=True)
        for session in sessions:
            close_session(state, session, Close.SERVICE_RESTART, reason, now)
            identity.retry_name_waiters(state, now)
        return state.take_effects()


_MAX_BLANK: Final = 64 * 1024
"""The size in bytes of the largest blank text that is ignored. Larger ones are logged as unreadable."""


def _ping(state: State, session: WorkerSession, message: Ping, now: float) -> None:
    state.emit(Send(session.id, encode(Pong())))


_HANDLERS: Final[Mapping[type, Callable[[State, WorkerSession, Any, float], None]]] = {
    InvokeFunction: routing.invoke,
    InvocationResult: calls.answer,
    CancelInvocation: calls.cancel,
    Undecodable: unreadable.refuse_unreadable,
    **dict.fromkeys(deferred_registrations.REGISTRATIONS, deferred_registrations.register),
    TriggerRegistrationResult: trigger_handlers.provider_answered,
    Reattach: identity.reattach,
    Ping: _ping,
    Pong: deferred_registrations.ignore,
}
