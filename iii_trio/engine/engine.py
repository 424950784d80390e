"""The engine: the hub's decisions, and the only place where its effects become actions."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Final, Protocol, assert_never

import trio

from ..config import EngineConfig
from ..core.channel import Channel, ChannelEvent
from ..core.channels import Refused
from ..core.effects import Deliver, Effects, EndChannel, Export, HangUp, Log, SealPipe, Send
from ..core.hub import Hub
from ..core.session import Session
from ..report import RateLimitedLogger
from ..transport.link import EndReason
from ..transport.memory_budget import MemoryAccount, MemoryBudget
from ..transport.pipe import Pipe
from ..transport.websocket import ReadBuffer
from ..wire import Close, Direction, Outcome, Ref
from ..wire.otlp import Telemetry, telemetry_kind
from .attached_channel import AttachedChannel
from .heartbeat import Heartbeat
from .look import as_row, count_all, look_at_channel
from .policy import AuthenticatedPeer, ListenerPolicy
from .spans import ChannelSpan, span_of

_WITHDRAWN: Final = "its token was withdrawn"
_TAKES_NOTHING: Final = "it does not take what is sent to it"


@functools.cache
def _version() -> str | None:
    try:
        return metadata.version("iii-trio")
    except metadata.PackageNotFoundError:
        return None


class SessionOutput(Protocol):
    """What carries messages to a session: a socket, or memory."""

    def put(self, message: bytes, *, bound: int) -> bool:
        """Take a message, to be sent by the next `flush`; False, and nothing taken, if more than `bound` bytes wait.

        One message may always wait, however large.
        """

    def flush(self) -> None:
        """Send what can be sent at once."""

    def input_waits(self) -> bool:
        """Whether something has come that was not read yet, be it the end of the stream."""

    def hang_up(self, code: int, reason: str) -> None:
        """End the link with a Close, behind what was put before; one that does not take it is dropped soon."""

    def challenge(self, seconds: float, answered: Callable[[bool], object]) -> None:
        """As `Shell.challenge`."""


class Shell:
    """One engine at work: its hub, the lines to its sessions, the pipes of its channels."""

    def __init__(
        self,
        config: EngineConfig,
        new_id: Callable[[], str],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.hub = Hub(config, new_id, version=_version(), started_at_ms=int(wall_clock() * 1000))
        self.hub.look = lambda channel, now: as_row(
            look_at_channel(channel, self.attached_channels.get(channel.id), now)
        )
        self.hub.count = lambda: count_all(self)
        self.hub.may_be_leaving = self._has_more_to_say
        self.buffer = ReadBuffer()
        self.lines: dict[str, SessionOutput] = {}
        self.attached_channels: dict[str, AttachedChannel] = {}
        self.memory = MemoryBudget(config.limits.memory_bytes)
        self.memory_accounts: dict[str, MemoryAccount] = {}
        """Of the sessions that have a socket, by their ids."""
        self.heartbeat = Heartbeat(config.timeouts.silent_worker_seconds)
        self.connections = 0
        self.arriving = 0
        """Connections that are let in as sessions, and whose handshake is under way."""
        self.closed = False
        self.on_channel_span: Callable[[ChannelSpan], object] | None = None
        self.on_telemetry: Callable[[Telemetry, bytes], object] | None = None
        self.at_close: dict[object, Callable[[], object]] = {}
        """What else is to be stopped when the engine closes."""
        self._logger = RateLimitedLogger(config.name)
        self._wall_clock = wall_clock
        self._unflushed: dict[SessionOutput, None] = {}
        self._nap = trio.CancelScope()
        self._settled = trio.lowlevel.ParkingLot()

    # --- sessions

    def connected(
        self,
        line: SessionOutput,
        *,
        peer: str | None,
        in_process: bool,
        max_channels: int | None = None,
        internal: bool = False,
    ) -> Session:
        """A worker's link is up."""
        session, effects = self.hub.connected(
            trio.current_time(),
            int(self._wall_clock() * 1000),
            peer=peer,
            in_process=in_process,
            max_channels=max_channels,
            internal=internal,
        )
        self.lines[session.id] = line
        self.act(effects)
        return session

    def on_messages(self, session: Session, messages: Iterable[bytes | bytearray]) -> None:
        """A session's link brought these. What they lead to is written with one write per peer."""
        now = trio.current_time()
        for message in messages:
            self._perform(self.hub.received(session, message, now))
        self._flush()
        self._mind_the_time()

    def on_telemetry_message(self, message: bytes | bytearray, about: dict[str, str]) -> None:
        """A connection that is no session brought a message. What is no telemetry means nothing."""
        kind = telemetry_kind(message)
        if kind is not None:
            self.act(self.hub.telemetry(kind, message, about, trio.current_time()))

    def disconnected(self, session: Session, reason: str, *, may_come_back: bool = False, left: bool = False) -> None:
        """A session's link is over: all of clause C4.5 before anything else happens (but for the grace of C4.6)."""
        now = trio.current_time()
        self.act(self.hub.disconnected(session, reason, now, may_come_back=may_come_back, left=left))
        self.lines.pop(session.id, None)

    def update_policy(self, old: ListenerPolicy, new: ListenerPolicy) -> None:
        """A listener's policy is another now: who came in by the old one stays, if it would be let in by the new one."""
        for session_id, line in list(self.lines.items()):
            if isinstance(line, AuthenticatedPeer) and line.policy is old:
                line.policy = new
                session = self.hub.sessions.get(session_id)
                if session is not None:
                    session.max_channels = new.limits.channels_per_session
                if not new.knows(line.token):
                    self.send_away(session_id, Close.SERVICE_RESTART, _WITHDRAWN)

    def _has_more_to_say(self, session: Session) -> bool:
        """Whether something that a session sent, maybe its Close, waits to be read."""
        line = self.lines.get(session.id)
        return line is not None and line.input_waits()

    def send_away(self, session_id: str, code: int, reason: str, *, may_come_back: bool = False) -> None:
        """End a session, which is told why."""
        session = self.hub.sessions.get(session_id)
        if session is not None:
            now = trio.current_time()
            self.act(self.hub.send_away(session, code, reason, now, may_come_back=may_come_back))

    def challenge(self, session_id: str, seconds: float, answered: Callable[[bool], object]) -> None:
        """Ping a session at once, and call `answered` exactly once: whether a sign of life came within `seconds`.

        It is called with False when the session ends before. It is called at once, within this call, for a session that
        is gone already (False) and for one in this process (True).
        """
        line = self.lines.get(session_id)
        if line is not None:
            line.challenge(seconds, answered)
        else:
            answered(False)

    # --- channels

    def attach(self, ref: Ref, holder: Session | None, invocation_id: str | None = None) -> AttachedChannel | Refused:
        """Attach an end of a channel; the caller then puts its end into the result, in the same step."""
        channel = self.hub.channels.attach(
            ref.channel_id, ref.access_key, ref.direction, trio.current_time(), holder, invocation_id
        )
        if isinstance(channel, Refused):
            return channel
        self._mind_the_time()
        attached = self.attached_channels.get(channel.id)
        if attached is None:
            account = self.memory_accounts.get(channel.owner or "")
            if account is None:
                evict = functools.partial(self.end_channel, channel.id)
                account = self.memory.open_account(f"channel {channel.id}", evict)
            pipe = Pipe(channel.buffer_size, channel.max_bytes, account.charge())
            attached = self.attached_channels[channel.id] = AttachedChannel(channel.id, pipe, account)
        return attached

    def end_channel(self, channel_id: str, reason: str) -> None:
        """End a channel for a reason of the engine's own: both ends are told `aborted`, or that nobody reads any more."""
        self.cue(channel_id, ChannelEvent.WRITER_ABORTED, reason)
        self.cue(channel_id, ChannelEvent.READER_CANCELLED, reason)  # where the writer had closed

    def evict(self, session: Session, account: MemoryAccount, reason: str) -> None:
        """End the session that holds most of the engine's memory, and the channels that count as its own."""
        self.log(logging.WARNING, f"{session.label} is disconnected: {reason}", session=session.id)
        self.send_away(session.id, Close.TRY_AGAIN_LATER, reason)
        for attached in list(self.attached_channels.values()):
            if attached.memory is account:
                self.end_channel(attached.channel_id, reason)

    def cue(self, channel_id: str, cue: ChannelEvent, reason: str = "", code: str | None = None) -> None:
        """Something happened to a channel."""
        self.act(self.hub.channels.take(channel_id, cue, reason, trio.current_time(), code))

    def touch(self, attached: AttachedChannel) -> None:
        """A message passed while only one end is attached (clause C2.3)."""
        if attached.reader is None or attached.writer is None:
            self.hub.channels.touch(attached.channel_id, trio.current_time())

    # --- effects

    def act(self, effects: Effects) -> None:
        """Perform effects, and send at once what they lead to."""
        self._perform(effects)
        self._flush()
        self._mind_the_time()

    def _perform(self, effects: Effects) -> None:
        limits = self.config.limits
        for effect in effects:
            match effect:
                case Deliver():
                    line = self.lines.get(effect.session)
                    if line is None or not line.put(effect.message, bound=limits.outbox_bytes):
                        self._perform(self.hub.undelivered(effect.session, effect.invocation_id))
                    else:
                        self._unflushed[line] = None
                case Send():
                    line = self.lines.get(effect.session)
                    if line is None:
                        continue
                    if line.put(effect.message, bound=limits.outbox_bytes + limits.outbox_reserve_bytes):
                        self._unflushed[line] = None
                    else:
                        self._cut_off(effect.session)
                case HangUp():
                    line = self.lines.get(effect.session)
                    if line is not None:
                        line.hang_up(effect.code, effect.reason)
                case SealPipe():
                    attached = self.attached_channels.get(effect.channel)
                    if attached is not None:
                        attached.pipe.seal()
                case EndChannel():
                    self._end_channel(effect)
                case Log():
                    now = trio.current_time()
                    self._logger.log(
                        now, effect.level, effect.text, effect.about, peer_controlled=effect.peer_controlled
                    )
                case Export():
                    if self.on_telemetry is not None:
                        self._hand_out("on_telemetry", self.on_telemetry, effect.kind, bytes(effect.message[4:]))
                case _:
                    assert_never(effect)

    def _end_channel(self, effect: EndChannel) -> None:
        attached = self.attached_channels.pop(effect.channel, None)
        if attached is not None:
            end = EndReason(effect.outcome, effect.reason, effect.code)
            attached.finish(end, clean=effect.outcome is Outcome.COMPLETED)
        level = logging.DEBUG if effect.outcome is Outcome.COMPLETED else logging.INFO
        text = f"channel {effect.channel} ended: {effect.outcome}" + (f" ({effect.reason})" if effect.reason else "")
        now = trio.current_time()
        about = {"channel": effect.channel, "outcome": str(effect.outcome), **effect.sessions}
        self._logger.log(now, level, text, about)
        if self.on_channel_span is not None:
            pipe = attached.pipe if attached is not None else None
            span = span_of(effect, pipe, now - effect.created_at, int(self._wall_clock() * 1000))
            self._hand_out("the tracer", self.on_channel_span, span, channel=effect.channel)

    def _hand_out(self, name: str, listener: Callable[..., object], *what: object, **about: str) -> None:
        """Give something to whoever embeds the engine, whose bug must not end the engine, nor tear its step."""
        try:
            listener(*what)
        except Exception as error:
            self.log_error(f"{name} failed at what the engine gave it", error, **about)

    def _cut_off(self, session_id: str) -> None:
        """A session that takes nothing, while even its results and control messages pile up."""
        session = self.hub.sessions.get(session_id)
        line = self.lines.pop(session_id, None)
        if line is not None:
            line.hang_up(Close.EVICTED, _TAKES_NOTHING)
        if session is not None:
            self._perform(self.hub.disconnected(session, _TAKES_NOTHING, trio.current_time()))

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, {}
        for line in unflushed:
            line.flush()
        if self.hub.draining and self.idle:
            self._settled.unpark_all()

    # --- change, and the end

    def reconfigure(self, config: EngineConfig) -> None:
        """Limits, defaults and patience are these for whatever comes from now on."""
        self.config = config
        self.hub.reconfigure(config)
        self.heartbeat.change(config.timeouts.silent_worker_seconds)
        self.memory.change_limit(config.limits.memory_bytes)

    def drain(self) -> None:
        """No new sessions and no new calls from now on."""
        if not self.hub.draining:
            self.hub.drain()
            calls = sum(len(session.answering) for session in self.hub.sessions.values())
            self.log(logging.INFO, f"draining: {calls} calls and {len(self.attached_channels)} channels are under way")

    @property
    def idle(self) -> bool:
        """Whether no call is under way and no channel is open."""
        return not self.attached_channels and not any(session.answering for session in self.hub.sessions.values())

    async def wait_idle(self) -> None:
        """Wait until nothing runs."""
        while not self.idle:
            await self._settled.park()

    def close(self, reason: str) -> None:
        """End every channel and every session, in one step; stop listening, and drop who has not said what it is."""
        if not self.closed:
            self.closed = True
            self.act(self.hub.close(reason, trio.current_time()))
            for stop in list(self.at_close.values()):
                stop()

    @contextmanager
    def stopped_by_close(self, stop: Callable[[], object]) -> Iterator[None]:
        """Have this stopped if the engine closes meanwhile."""
        key = object()
        self.at_close[key] = stop
        try:
            yield
        finally:
            del self.at_close[key]

    # --- time

    async def keep_time(self) -> None:
        """Sleep until the hub's next deadline, then tell it. With nothing due, nothing wakes."""
        while True:
            with trio.CancelScope() as self._nap:
                self._mind_the_time()
                await trio.sleep_forever()
            self.act(self.hub.tick(trio.current_time()))

    def _mind_the_time(self) -> None:
        due = self.hub.next_due()
        deadline = math.inf if due is None else due
        if deadline != self._nap.deadline:  # setting one costs, also the same
            self._nap.deadline = deadline

    def log(self, level: int, text: str, **about: str) -> None:
        """A line in the engine's log."""
        self._logger.log(trio.current_time(), level, text, about)

    def log_error(self, text: str, error: BaseException, **about: str) -> None:
        """A line in the engine's log about an error of ours, with its traceback."""
        self._logger.log(trio.current_time(), logging.ERROR, text, about, error=error)

    def channel(self, attached: AttachedChannel) -> Channel | None:
        """What the ledger has of an attached channel, while it is open."""
        return self.hub.channels.get(attached.channel_id)


__all__ = ["Direction", "SessionOutput", "Shell"]
