"""The whole engine without I/O: the ledgers, and what may happen to them.

Everything here is synchronous: a step cannot be interrupted, so a teardown needs no claims and no locks. Every input
gives back the effects that the shell has to perform before the next input.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from ..config import EngineConfig
from ..errors import CallError
from ..wire import (
    FEATURE,
    CancelInvocation,
    Close,
    ErrorCode,
    InvocationResult,
    InvokeFunction,
    JsonValue,
    Message,
    Ping,
    Pong,
    Reattach,
    RegisterFunction,
    RegisterService,
    RegisterTrigger,
    RegisterTriggerType,
    TriggerRegistrationResult,
    Undecodable,
    UnregisterFunction,
    UnregisterTrigger,
    UnregisterTriggerType,
    WorkerRegistered,
    decode,
    encode,
)
from ..wire.otlp import Telemetry, telemetry_kind
from . import calls, registration, telemetry, trigger_requests
from .absences import Absences
from .announcements import Announcements
from .builtins import register_builtins
from .channel import Channel
from .channels import Channels
from .effects import Effects, HangUp, Log, Send
from .newcomers import Newcomers
from .quota import detach
from .registry import Registry
from .session import Session, SessionEvent, SessionState
from .triggers import Triggers


class Hub:
    """An engine's decisions.

    `new_id` makes ids and secrets (UUID v4 text, unguessable outside simulations). Times are seconds of any one clock.
    """

    def __init__(
        self, config: EngineConfig, new_id: Callable[[], str], *, version: str | None = None, started_at_ms: int = 0
    ) -> None:
        self.config = config
        self.new_id = new_id
        self.version = version
        self.started_at_ms = started_at_ms
        self.id = new_id()
        self.look: Callable[[Channel, float], Mapping[str, JsonValue]] = lambda channel, now: {}
        """What the shell knows of a channel's bytes (clause C7.1)."""
        self.count: Callable[[], Mapping[str, JsonValue]] = dict
        """What the shell knows of how much there is of everything."""
        self.may_be_leaving: Callable[[Session], bool] = lambda session: False
        """What the shell knows: whether something that a session has sent, maybe its Close, was not read yet."""
        self.sessions: dict[str, Session] = {}
        self.registry = Registry()
        self.channels = Channels(config.channels, config.limits, new_id)
        self.channels.serve_sessions(self.sessions)
        self.absences = Absences(self.channels)
        self.triggers = Triggers()
        self.announcements = Announcements(self)
        self.newcomers = Newcomers(self, registration.register_worker)
        self.draining = False
        self._modules = 0
        self._graces: list[tuple[float, str]] = []
        self._extra: Effects = []
        self._last: Effects = []
        register_builtins(self)

    @property
    def guests(self) -> int:
        """How many sessions there are, the engine's own modules left out."""
        return len(self.sessions) - self._modules

    # --- inputs

    def connected(
        self,
        now: float,
        now_ms: int,
        *,
        peer: str | None,
        in_process: bool,
        max_channels: int | None = None,
        internal: bool = False,
    ) -> tuple[Session, Effects]:
        """A worker's link is up. `max_channels`: as many it may own; None: as many as the limits say."""
        session = Session(
            id=self.new_id(),
            reattach_token=self.new_id(),
            channel_secret=self.new_id(),
            connected_at=now,
            connected_at_ms=now_ms,
            peer=peer,
            in_process=in_process,
            max_channels=max_channels,
            internal=internal,
        )
        self.sessions[session.id] = session
        self._modules += internal
        heapq.heappush(self._graces, (now + self.config.timeouts.registration_grace_seconds, session.id))
        hello = WorkerRegistered(session.id, session.reattach_token, (FEATURE,), session.channel_secret)
        told = Log(logging.DEBUG, f"worker {session.id} connected", {"session": session.id, "peer": peer or ""})
        event = self.announcements.worker("worker_connected", session.id)
        return session, [Send(session.id, encode(hello)), told, *event]

    def received(self, session: Session, text: bytes | bytearray, now: float) -> Effects:
        """A session sent a message. Total: whatever it is, it harms at most the session that sent it."""
        if session.state.current is SessionState.GONE:
            return []
        message = decode(text)
        if type(message) is Undecodable:
            if (kind := telemetry_kind(text)) is not None:
                return self.telemetry(kind, text, {"session": session.id}, now)
            if not text.strip():
                return []
        return self.handle(session, message, now)

    def telemetry(self, kind: Telemetry, message: bytes | bytearray, about: dict[str, str], now: float) -> Effects:
        """Telemetry has come, from a session or by a connection of its own, as `about` says."""
        return telemetry.take(self, kind, message, about, now)

    def handle(self, session: Session, message: Message | Undecodable, now: float) -> Effects:
        """What a message of this session leads to."""
        handler = _HANDLERS.get(type(message))
        if handler is None:
            return []  # a type that only engines send
        if type(message) in _REGISTRATIONS:
            if session.state.current is SessionState.UNNAMED:
                return registration.hold_back(self, session, message, now)  # type: ignore[arg-type]
            detach(message)
        effects = handler(self, session, message, now)
        self.announcements.look(now)
        return effects

    def undelivered(self, session_id: str, invocation_id: str) -> Effects:
        """A `Deliver` found its callee's outbox full."""
        return calls.undelivered(self, session_id, invocation_id)

    def disconnected(
        self, session: Session, reason: str, now: float, *, may_come_back: bool = False, left: bool = False
    ) -> Effects:
        """A session's link is over: all of clause C4.5 in this one step, in its order. Harmless the second time.

        One that `may_come_back` was lost, and did not leave: with a grace configured, its channels wait (clause C4.6).
        `left` says that the worker ended the session on purpose, so that no call is to blame for its end.
        """
        if session.state.is_final:
            return []
        session.state.advance(SessionEvent.LEFT)
        del self.sessions[session.id]
        self._modules -= session.internal
        session.held_back.clear()
        cause = f"{session.label} is gone: {reason}"
        grace = self.config.timeouts.reattach_grace_seconds
        effects: Effects = []
        if may_come_back and grace:
            self.absences.begin(session, cause, now + grace)
        else:
            effects += self.channels.session_ended(session, cause, now)
        effects += calls.session_ended(self, session, reason, left=left)
        effects += self.triggers.session_ended(session)
        self.registry.remove_all_of(session)
        effects += self.triggers.types_released(session)
        effects += self.announcements.worker("worker_disconnected", session.id)
        self.announcements.look(now)
        effects.append(Log(session.notable, cause, {"session": session.id}))
        return effects + self.newcomers.gone(session, now)

    def tick(self, now: float) -> Effects:
        """Time has passed: do what is due."""
        effects = self.channels.expire(now)
        effects += self.absences.expire(now)
        effects += self.triggers.expire(now)
        effects += self.newcomers.expire(now)
        while self._graces and self._graces[0][0] <= now:
            _, session_id = heapq.heappop(self._graces)
            session = self.sessions.get(session_id)
            if session is not None and session.state.current is SessionState.UNNAMED:
                effects += registration.waited_long_enough(self, session, now)
        effects += self.announcements.expire(now)
        return effects

    def next_due(self) -> float | None:
        """When `tick` has something to do, at the latest; None if never."""
        earliest = self.channels.next_due()
        for due in (
            self.absences.next_due(),
            self._grace_due(),
            self.triggers.next_due(),
            self.newcomers.next_due(),
            self.announcements.next_due(),
        ):
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    def reconfigure(self, config: EngineConfig) -> None:
        """What is decided from now on follows this configuration; what is decided already stays."""
        self.config = config
        self.channels.reconfigure(config.channels, config.limits)

    def drain(self) -> None:
        """From now on, no new calls (but of the engine itself) and no new channels."""
        self.draining = True

    def send_away(
        self, session: Session, code: int, reason: str, now: float, *, may_come_back: bool = False
    ) -> Effects:
        """The engine ends a session: its calls are answered, its link is closed with the reason, and it is gone."""
        if session.state.is_final:
            return []
        told = [*calls.sent_away(session, reason), HangUp(session.id, code, reason)]
        return told + self.disconnected(session, reason, now, may_come_back=may_come_back)

    def close(self, reason: str, now: float) -> Effects:
        """The engine shuts down: calls and channels end, then every link (SDKs try again elsewhere upon this code)."""
        effects = self.channels.close_all(reason, now)
        sessions = list(self.sessions.values())
        for session in sessions:  # all are told before the first is hung up on
            effects += calls.callee_left(session, reason, left=True)
        for session in sessions:
            effects += self.send_away(session, Close.SERVICE_RESTART, reason, now)
        return effects

    # --- for the handlers

    def check_open(self) -> None:
        """Raise CallError if the engine takes nothing new."""
        if self.draining:
            raise CallError(ErrorCode.ENGINE_DRAINING, "The engine is shutting down and takes no new calls.")

    def also(self, effects: Effects) -> None:
        """Have these effects performed with those of the call under way, before its answer."""
        self._extra += effects

    def last(self, effects: Effects) -> None:
        """Have these effects performed behind the answer of the call under way."""
        self._last += effects

    @contextmanager
    def step(self) -> Iterator[Effects]:
        """A step of its own within another: what it led to, in its order, is in the list that this gives, at its end.

        What is appended to the list stands between `also` and `last`, where an answer does.
        """
        extra, last = self._extra, self._last
        self._extra, self._last = [], []
        led_to: Effects = []
        try:
            yield led_to
        finally:
            led_to[:] = [*self._extra, *led_to, *self._last]
            self._extra, self._last = extra, last

    def take_last_effects(self) -> Effects:
        """What `last` collected."""
        effects, self._last = self._last, []
        return effects

    def take_effects(self) -> Effects:
        """What `also` collected."""
        effects, self._extra = self._extra, []
        return effects

    def by_secret(self, worker_id: str, secret: str) -> Session | None:
        """The session that `Iii-Session` names (clause C8.2), or None if the secret is not its own."""
        session = self.sessions.get(worker_id)
        return session if session is not None and registration.same(secret, session.channel_secret) else None

    def _grace_due(self) -> float | None:
        while self._graces:
            session = self.sessions.get(self._graces[0][1])
            if session is not None and session.state.current is SessionState.UNNAMED:
                return self._graces[0][0]
            heapq.heappop(self._graces)
        return None


def _ping(hub: Hub, session: Session, message: Ping, now: float) -> Effects:
    return [Send(session.id, encode(Pong()))]


def _nothing(hub: Hub, session: Session, message: object, now: float) -> Effects:
    return []


_REGISTRATIONS: Final = frozenset(
    {RegisterFunction, UnregisterFunction, RegisterService, RegisterTrigger, UnregisterTrigger, RegisterTriggerType,
     UnregisterTriggerType}
)  # fmt: skip
"""What waits until the session's namespace is known."""

_HANDLERS: Final[Mapping[type, Callable[[Hub, Session, Any, float], Effects]]] = {
    InvokeFunction: calls.invoke,
    InvocationResult: calls.answer,
    CancelInvocation: calls.cancel,
    Undecodable: calls.undecodable,
    RegisterFunction: registration.register_function,
    UnregisterFunction: registration.unregister_function,
    RegisterService: _nothing,
    RegisterTrigger: trigger_requests.register,
    UnregisterTrigger: trigger_requests.unregister,
    RegisterTriggerType: trigger_requests.register_type,
    UnregisterTriggerType: trigger_requests.unregister_type,
    TriggerRegistrationResult: trigger_requests.provider_answered,
    Reattach: registration.reattach,
    Ping: _ping,
    Pong: _nothing,
}
