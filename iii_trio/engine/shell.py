"""The shell of the pure core: it gives inputs to the hub and is the only place where effects become actions."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Final, Protocol, assert_never

import attrs
import trio

from ..config import EngineConfig
from ..core.access import Access
from ..core.admission import Credentials
from ..core.channel import Channel, ChannelEvent
from ..core.channels import Refused
from ..core.effects import (
    AskChannelIo,
    AskSignOfLife,
    AskStatistics,
    AskUnreadInput,
    Deliver,
    Effects,
    EndChannel,
    Export,
    HangUp,
    Log,
    SealPipe,
    Send,
)
from ..core.hub import Hub
from ..core.session import WorkerSession
from ..report import RateLimitedLogger
from ..transport.link import EndReason
from ..transport.memory_budget import MemoryAccount, MemoryBudget
from ..transport.pipe import Pipe
from ..transport.websocket import ReadBuffer
from ..wire import Close, Direction, Outcome, Ref
from ..wire.otlp import Telemetry, telemetry_kind
from .attached_channel import AttachedChannel
from .heartbeat import Heartbeat
from .policy import AuthenticatedPeer, ListenerPolicy
from .spans import ChannelSpan, span_of
from .statistics import ChannelView, EngineStatistics, channel_io_stats, engine_statistics, process_statistics

_OTHER_RULES: Final = "the listener has another auth function"
_WITHDRAWN: Final = "its token was withdrawn"
_TAKES_NOTHING: Final = "it does not take what is sent to it"


@functools.cache
def _version() -> str | None:
    try:
        return metadata.version("iii-trio")
    except metadata.PackageNotFoundError:
        return None


class SessionOutput(Protocol):
    """The way of messages to a session: a socket, or memory."""

    def put(self, message: bytes, *, bound: int) -> bool:
        """Queue a message for the next `flush`. Return False, and queue nothing, if more than `bound` bytes wait.

        One message may always wait, however large.
        """

    def flush(self) -> None:
        """Send as much as can be sent without waiting."""

    def input_waits(self) -> bool:
        """Return whether there is unread input, including the end of the stream."""

    def hang_up(self, code: int, reason: str) -> None:
        """Close the link behind the queued messages. A peer that does not take them is dropped soon."""

    def challenge(self, seconds: float, answered: Callable[[bool], object]) -> None:
        """As `Shell.challenge`."""


class Shell:
    """One running engine: its hub, the outputs to its sessions, the pipes of its channels."""

    def __init__(
        self,
        config: EngineConfig,
        new_id: Callable[[], str],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.hub = Hub(config, new_id, version=_version(), started_at_ms=int(wall_clock() * 1000))
        self.buffer = ReadBuffer()
        self.outputs: dict[str, SessionOutput] = {}
        self.attached_channels: dict[str, AttachedChannel] = {}
        self.memory = MemoryBudget(config.limits.memory_bytes)
        self.memory_accounts: dict[str, MemoryAccount] = {}
        """Of the sessions that have a socket, by their ids."""
        self.ended_channels: Counter[Outcome] = Counter()
        """The channels that have ended, by outcome."""
        self.heartbeat = Heartbeat(config.timeouts.silent_worker_seconds)
        self.connections = 0
        self.arriving = 0
        """The number of admitted sessions whose handshake is under way."""
        self.closed = False
        self.on_channel_span: Callable[[ChannelSpan], object] | None = None
        self.on_telemetry: Callable[[Telemetry, bytes], object] | None = None
        self.at_close: dict[object, Callable[[], object]] = {}
        """Callbacks that stop everything else when the engine closes."""
        self._logger = RateLimitedLogger(config.name)
        self._wall_clock = wall_clock
        self._unflushed: dict[SessionOutput, None] = {}
        self._timer_scope = trio.CancelScope()
        self._settled = trio.lowlevel.ParkingLot()

    # --- sessions

    def connected(
        self,
        output: SessionOutput,
        *,
        peer: str | None,
        in_process: bool,
        max_channels: int | None = None,
        internal: bool = False,
        access: Access | None = None,
        credentials: Credentials | None = None,
    ) -> WorkerSession:
        """Start a session for a new link. A guarded listener gives its rules and what the connection showed."""
        session, effects = self.hub.connected(
            trio.current_time(),
            int(self._wall_clock() * 1000),
            peer=peer,
            in_process=in_process,
            max_channels=max_channels,
            internal=internal,
            access=access,
            credentials=credentials,
        )
        self.outputs[session.id] = output
        self.perform(effects)
        return session

    def on_messages(self, session: WorkerSession, messages: Iterable[bytes | bytearray]) -> None:
        """Handle the messages of one read. All output that they cause is written with one write per peer."""
        now = trio.current_time()
        for message in messages:
            self._perform(self.hub.received(session, message, now))
        self._flush()
        self._reschedule()

    def on_telemetry_message(self, message: bytes | bytearray, about: dict[str, str]) -> None:
        """Handle a message of a telemetry connection. Other messages than telemetry are ignored."""
        kind = telemetry_kind(message)
        if kind is not None:
            self.perform(self.hub.telemetry(kind, message, about, trio.current_time()))

    def disconnected(
        self, session: WorkerSession, reason: str, *, may_come_back: bool = False, left: bool = False
    ) -> None:
        """End a session whose link is over, in one step (clauses C4.5 and C4.6)."""
        now = trio.current_time()
        self.perform(self.hub.disconnected(session, reason, now, may_come_back=may_come_back, left=left))
        self.outputs.pop(session.id, None)

    def update_policy(self, old: ListenerPolicy, new: ListenerPolicy) -> None:
        """Replace a listener's policy. Close the sessions that the new one would not admit."""
        for session_id, output in list(self.outputs.items()):
            if isinstance(output, AuthenticatedPeer) and output.policy is old:
                output.policy = new
                session = self.hub.sessions.get(session_id)
                if session is not None:
                    session.max_channels = new.limits.channels_per_session
                    if session.access != new.access:
                        self._change_access(session, new.access)
                if not new.knows(output.token):
                    self.close_session(session_id, Close.SERVICE_RESTART, _WITHDRAWN)

    def _change_access(self, session: WorkerSession, new: Access | None) -> None:
        """Give a session the changed rules of its listener. Another auth function has to admit it anew."""
        old = session.access
        if (old.auth_function if old else None) != (new.auth_function if new else None):
            self.close_session(session.id, Close.SERVICE_RESTART, _OTHER_RULES)
        else:
            session.access = new if old is None or new is None else attrs.evolve(new, grants=old.grants)

    def close_session(self, session_id: str, code: int, reason: str, *, may_come_back: bool = False) -> None:
        """End a session and tell it the reason."""
        session = self.hub.sessions.get(session_id)
        if session is not None:
            now = trio.current_time()
            self.perform(self.hub.close_session(session, code, reason, now, may_come_back=may_come_back))

    def challenge(self, session_id: str, seconds: float, answered: Callable[[bool], object]) -> None:
        """Ping a session at once, and call `answered` exactly once: whether a sign of life came within `seconds`.

        It is called with False when the session ends before. It is called at once, within this call, for a session that
        is gone already (False) and for one in this process (True).
        """
        output = self.outputs.get(session_id)
        if output is not None:
            output.challenge(seconds, answered)
        else:
            answered(False)

    # --- channels

    def attach(
        self, ref: Ref, holder: WorkerSession | None, invocation_id: str | None = None
    ) -> AttachedChannel | Refused:
        """Attach an end of a channel. The caller then puts its end into the result, in the same step."""
        channel = self.hub.attach(
            ref.channel_id, ref.access_key, ref.direction, trio.current_time(), holder, invocation_id
        )
        if isinstance(channel, Refused):
            return channel
        self._reschedule()
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
        """End a channel for a reason of the engine's own, as `aborted`, or because its reader is gone."""
        self.channel_event(channel_id, ChannelEvent.WRITER_ABORTED, reason)
        self.channel_event(channel_id, ChannelEvent.READER_CANCELLED, reason)  # where the writer had closed

    def evict(self, session: WorkerSession, account: MemoryAccount, reason: str) -> None:
        """End the session that holds most of the engine's memory, and the channels that count as its own."""
        self.log(logging.WARNING, f"{session.label} is disconnected: {reason}", session=session.id)
        self.close_session(session.id, Close.TRY_AGAIN_LATER, reason)
        for attached in list(self.attached_channels.values()):
            if attached.memory is account:
                self.end_channel(attached.channel_id, reason)

    def channel_event(self, channel_id: str, event: ChannelEvent, reason: str = "", code: str | None = None) -> None:
        """Apply an event to a channel."""
        self.perform(self.hub.channel_event(channel_id, event, reason, trio.current_time(), code))

    def touch(self, attached: AttachedChannel) -> None:
        """Restart a channel's expiry, because a message passed while only one end is attached (clause C2.3)."""
        if attached.reader is None or attached.writer is None:
            self.hub.channels.touch(attached.channel_id, trio.current_time())

    # --- effects

    def perform(self, effects: Effects) -> None:
        """Perform effects and send the resulting output at once."""
        self._perform(effects)
        self._flush()
        self._reschedule()

    def _perform(self, effects: Effects) -> None:
        limits = self.config.limits
        for effect in effects:
            match effect:
                case Deliver():
                    output = self.outputs.get(effect.session)
                    if output is None or not output.put(effect.message, bound=limits.outbox_bytes):
                        self._perform(self.hub.undelivered(effect.session, effect.invocation_id))
                    else:
                        self._unflushed[output] = None
                case Send():
                    output = self.outputs.get(effect.session)
                    if output is None:
                        continue
                    if output.put(effect.message, bound=limits.outbox_bytes + limits.outbox_reserve_bytes):
                        self._unflushed[output] = None
                    else:
                        self._cut_off(effect.session)
                case HangUp():
                    output = self.outputs.get(effect.session)
                    if output is not None:
                        output.hang_up(effect.code, effect.reason)
                case SealPipe():
                    attached = self.attached_channels.get(effect.channel)
                    if attached is not None:
                        attached.pipe.seal()
                case EndChannel():
                    self._end_channel(effect)
                case Log():
                    now = trio.current_time()
                    self._logger.log(
                        now,
                        effect.level,
                        effect.message,
                        effect.fields,
                        peer_controlled=effect.peer_controlled,
                        error=effect.error,
                    )
                case Export():
                    if self.on_telemetry is not None:
                        self._call_embedder("on_telemetry", self.on_telemetry, effect.kind, bytes(effect.message[4:]))
                case AskUnreadInput():
                    output = self.outputs.get(effect.session)
                    has_unread_input = output is not None and output.input_waits()
                    now = trio.current_time()
                    self._perform(self.hub.unread_input_known(effect.session, has_unread_input, now))
                case AskSignOfLife():
                    answer = functools.partial(self._sign_of_life, effect.session)
                    self.challenge(effect.session, effect.seconds, answer)
                case AskChannelIo():
                    views = {view.id: attrs.asdict(view) for view in self.channel_views()}
                    self._perform(self.hub.channel_io_known(effect.question, views))
                case AskStatistics():
                    counts = {**attrs.asdict(self.statistics()), **process_statistics()}
                    self._perform(self.hub.statistics_known(effect.question, counts))
                case _:
                    assert_never(effect)

    def _sign_of_life(self, session_id: str, is_alive: bool) -> None:
        self.perform(self.hub.sign_of_life_known(session_id, is_alive, trio.current_time()))

    def _end_channel(self, effect: EndChannel) -> None:
        self.ended_channels[effect.outcome] += 1
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
            self._call_embedder("the tracer", self.on_channel_span, span, channel=effect.channel)

    def _call_embedder(self, name: str, listener: Callable[..., object], *what: object, **about: str) -> None:
        """Call back the embedding program. Its errors are logged, because they must not interrupt the engine."""
        try:
            listener(*what)
        except Exception as error:
            self.log_error(f"{name} failed at what the engine gave it", error, **about)

    def _cut_off(self, session_id: str) -> None:
        """Drop a session whose outbox is full even for results and control messages."""
        session = self.hub.sessions.get(session_id)
        output = self.outputs.pop(session_id, None)
        if output is not None:
            output.hang_up(Close.EVICTED, _TAKES_NOTHING)
        if session is not None:
            self._perform(self.hub.disconnected(session, _TAKES_NOTHING, trio.current_time()))

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, {}
        for output in unflushed:
            output.flush()
        if self.hub.draining and self.idle:
            self._settled.unpark_all()

    # --- change, and the end

    def reconfigure(self, config: EngineConfig) -> None:
        """Use this configuration from now on."""
        self.config = config
        self.hub.reconfigure(config)
        self.heartbeat.change(config.timeouts.silent_worker_seconds)
        self.memory.change_limit(config.limits.memory_bytes)

    def drain(self) -> None:
        """Refuse new sessions and new calls from now on."""
        if not self.hub.draining:
            self.hub.drain()
            calls = len(self.hub.calls)
            self.log(logging.INFO, f"draining: {calls} calls and {len(self.attached_channels)} channels are under way")

    @property
    def idle(self) -> bool:
        """Whether no call is under way and no channel is attached."""
        return not self.attached_channels and not self.hub.calls

    async def wait_idle(self) -> None:
        """Wait until the engine is idle. If cancelled: nothing has changed."""
        while not self.idle:
            await self._settled.park()

    def close(self, reason: str) -> None:
        """End every channel and every session in one step, stop listening, and drop connections without a session."""
        if not self.closed:
            self.closed = True
            self.perform(self.hub.close(reason, trio.current_time()))
            for stop in list(self.at_close.values()):
                stop()

    @contextmanager
    def stopped_by_close(self, stop: Callable[[], object]) -> Iterator[None]:
        """Call `stop` if the engine closes within the block."""
        key = object()
        self.at_close[key] = stop
        try:
            yield
        finally:
            del self.at_close[key]

    # --- time

    async def keep_time(self) -> None:
        """Wake the hub at each of its deadlines. Without a deadline it never wakes. If cancelled: it stops."""
        while True:
            with trio.CancelScope() as self._timer_scope:
                self._reschedule()
                await trio.sleep_forever()
            self.perform(self.hub.tick(trio.current_time()))

    def _reschedule(self) -> None:
        due = self.hub.next_due()
        deadline = math.inf if due is None else due
        if deadline != self._timer_scope.deadline:  # setting one costs, also the same
            self._timer_scope.deadline = deadline

    def log(self, level: int, text: str, **about: str) -> None:
        """Write a line in the engine's log."""
        self._logger.log(trio.current_time(), level, text, about)

    def log_error(self, text: str, error: BaseException, **about: str) -> None:
        """Write a line in the engine's log about an error of its own, with its traceback."""
        self._logger.log(trio.current_time(), logging.ERROR, text, about, error=error)

    # --- statistics

    def statistics(self) -> EngineStatistics:
        """Count the objects that the engine holds now for others than its own modules."""
        return engine_statistics(self.hub, self.attached_channels, self.connections)

    def channel_views(self) -> list[ChannelView]:
        """Return the I/O statistics of every open channel, oldest first."""
        now = trio.current_time()
        return [channel_io_stats(each, self.attached_channels.get(each.id), now) for each in self.hub.channels]

    def channel(self, attached: AttachedChannel) -> Channel | None:
        """Return an attached channel's entry in the ledger, while it is open."""
        return self.hub.channels.get(attached.channel_id)


__all__ = ["Direction", "SessionOutput", "Shell"]
