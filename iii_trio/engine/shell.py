"""The shell of the pure core: it gives inputs to the hub and is the only place where effects become actions."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, assert_never

import attrs
import trio

from ..config import EngineConfig
from ..core.access import Access
from ..core.admission import Credentials
from ..core.channel import ChannelEvent, ChannelState
from ..core.channels import Refused
from ..core.effects import (
    AskChannelIo,
    AskRecording,
    AskSignOfLife,
    AskStatistics,
    AskUnreadInput,
    CallEnded,
    Deliver,
    Effects,
    EndChannel,
    HangUp,
    Log,
    PassTelemetry,
    ReleaseEnds,
    SealPipe,
    Send,
)
from ..core.hub import Hub
from ..core.session import WorkerSession
from ..observed import Measured
from ..tracing import Tracing
from ..transport.link import EndReason
from ..transport.lost_connections import LostConnections
from ..transport.memory_budget import MemoryAccount, MemoryBudget
from ..transport.pipe import Pipe
from ..transport.plain_requests import PlainHandler
from ..transport.websocket import ReadBuffer
from ..wire import Close, Outcome, Ref
from ..wire.telemetry import telemetry_kind
from .attached_channel import AttachedChannel
from .flight_recorder import FlightRecorder
from .heartbeat import Heartbeat
from .passages import Passages
from .reports import Reports
from .session_output import Flushable, SessionOutput
from .statistics import ChannelView, EngineStatistics, channel_io_stats, engine_statistics, process_statistics

_TAKES_NOTHING: Final = "it does not take what is sent to it"


class Shell:
    """One running engine: its hub, the outputs to its sessions, the pipes of its channels."""

    def __init__(
        self,
        config: EngineConfig,
        new_id: Callable[[], str],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.tracing = Tracing(new_id, trio.current_time, wall_clock)
        self.recorder = FlightRecorder(config.recorder, wall_clock, config.name)
        self.hub: Hub = self.recorder.open_hub(config, new_id, trio.current_time(), self.tracing)
        self.reports = Reports(config.name, self.hub, self.tracing, self.recorder, wall_clock)
        self.buffer = ReadBuffer()
        self.lost_connections = LostConnections()
        self.outputs: dict[str, SessionOutput] = {}
        self.passages = Passages(self.hub)
        self.health: dict[str, Mapping[str, object]] = {}
        """What modules have `/healthz` say beside the engine's own state."""
        self.metrics_source: Callable[[], Awaitable[Sequence[Measured]]] | None = None
        """What a module has `/metrics` say beside the engine's own numbers."""
        self.attached_channels: dict[str, AttachedChannel] = {}
        self.memory = MemoryBudget(config.limits.memory_bytes)
        self.memory_accounts: dict[str, MemoryAccount] = {}
        """Of the sessions that have a socket, by their ids."""
        self.ended_channels: Counter[Outcome] = Counter()
        """The channels that have ended, by outcome."""
        self.plain_handler: PlainHandler | None = None
        self.heartbeat = Heartbeat(config.timeouts.silent_worker_seconds)
        self.connections = 0
        self.arriving = 0
        """The number of admitted sessions whose handshake is under way."""
        self.closed = False
        self.at_close: dict[object, Callable[[], object]] = {}
        """Callbacks that stop everything else when the engine closes."""
        self._wall_clock = wall_clock
        self._unflushed: dict[Flushable, None] = {}
        self._channel_watches: dict[str, Callable[[], object]] = {}
        self._watch: Callable[[], object] | None = None
        self._watched = 0
        self._timer_scope = trio.CancelScope()
        self._alarm = math.inf  # the deadline of that scope, because reading a scope's takes longer
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
            self.reports.telemetry(kind, message, about)

    def disconnected(
        self, session: WorkerSession, reason: str, *, may_come_back: bool = False, left: bool = False
    ) -> None:
        """End a session whose link is over, in one step (clauses C4.5 and C4.6)."""
        now = trio.current_time()
        self.perform(self.hub.disconnected(session, reason, now, may_come_back=may_come_back, left=left))
        self.outputs.pop(session.id, None)
        self.reports.session_ended(session)

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
            # The writer has ended without having been attached here (`engine::channels::end`).
            if channel.state.current is ChannelState.DRAINING:
                pipe.seal()
        self._channel_changed(channel.id)
        return attached

    def watch_channel(self, channel_id: str, changed: Callable[[], object] | None) -> None:
        """Call back once, when an end of this channel is attached or closed, or the channel has ended. None: never mind.

        The callback must not wait, and must not call the engine.
        """
        if changed is None:
            self._channel_watches.pop(channel_id, None)
        else:
            self._channel_watches[channel_id] = changed

    def _channel_changed(self, channel_id: str) -> None:
        changed = self._channel_watches.pop(channel_id, None)
        if changed is not None:
            changed()

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
        half_attached = attached.reader is None or attached.writer is None
        # The message itself may have led to the channel's end.
        if half_attached and attached.channel_id in self.attached_channels:
            self.hub.touch(attached.channel_id, trio.current_time())

    def watch_registrations(self, watch: Callable[[], object] | None) -> None:
        """Call back soon after each change of what `registrations` returns. The callback must not wait."""
        self._watch, self._watched = watch, self.hub.revision

    # --- effects

    def perform(self, effects: Effects) -> None:
        """Perform effects and send the resulting output at once."""
        self._perform(effects)
        self._flush()
        self._reschedule()

    def _perform(self, effects: Effects) -> None:
        limits = self.config.limits
        for effect in effects:
            # Most effects are of these two. To compare their types takes less than to match their classes.
            if type(effect) is Send:
                output = self.outputs.get(effect.session)
                if output is None:
                    continue
                if output.put(effect.message, bound=limits.outbox_bytes + limits.outbox_reserve_bytes):
                    self._unflushed[output] = None
                else:
                    self._cut_off(effect.session)
                continue
            if type(effect) is Deliver:
                output = self.outputs.get(effect.session)
                if output is None or not output.put(effect.message, bound=limits.outbox_bytes):
                    self._perform(self.hub.undelivered(effect.session, effect.invocation_id, trio.current_time()))
                else:
                    self._unflushed[output] = None
                continue
            match effect:
                case HangUp():
                    output = self.outputs.get(effect.session)
                    if output is not None:
                        output.hang_up(effect.code, effect.reason)
                case SealPipe():
                    attached = self.attached_channels.get(effect.channel)
                    if attached is not None:
                        attached.pipe.seal()
                    self._channel_changed(effect.channel)
                case EndChannel():
                    self._channel_changed(effect.channel)
                    self._end_channel(effect)
                case ReleaseEnds():
                    for held in self.passages.of_session(effect.session):
                        held.drop(effect.reason)
                case Log():
                    self.reports.log_of_core(effect)
                case CallEnded():
                    self.tracing.call_ended(effect.call)
                case PassTelemetry():
                    self.reports.telemetry(effect.kind, effect.message, {"session": effect.session})
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
                case AskRecording():
                    saving = self.recorder.begin_saving(effect)
                    self._perform(self.hub.recording_known(effect.question, *saving))
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
            # A reader is told before the connections that this leaves behind are taken down.
            if attached.reader is not None:
                self._unflushed[attached.reader] = None
        self.reports.channel_ended(effect, attached)
        if attached is not None:
            attached.forget_ends()

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
        if self._watch is not None and self._watched != (revision := self.hub.revision):
            self._watched = revision
            self._watch()
        if self.hub.state.draining and self.idle:
            self._settled.unpark_all()

    # --- change, and the end

    def reconfigure(self, config: EngineConfig) -> None:
        """Use this configuration from now on."""
        self.config = config
        self.hub.reconfigure(config)
        self.recorder.reconfigure(config.recorder)
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
        return not self.attached_channels and not self.hub.calls and not self.passages

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
                self._alarm = math.inf
                self._reschedule()
                await trio.sleep_forever()
            self.perform(self.hub.tick(trio.current_time()))

    def _reschedule(self) -> None:
        due = self.hub.next_due()
        deadline = math.inf if due is None else due
        if deadline != self._alarm:  # setting one costs, also the same
            self._timer_scope.deadline = self._alarm = deadline

    # --- log and statistics

    def log(self, level: int, text: str, **about: str) -> None:
        """Write a line in the engine's log."""
        self.reports.log(level, text, **about)

    def log_error(self, text: str, error: BaseException, **about: str) -> None:
        """Write a line in the engine's log about an error of its own, with its traceback."""
        self.reports.log_error(text, error, **about)

    def statistics(self) -> EngineStatistics:
        """Count the objects that the engine holds now for others than its own modules."""
        return engine_statistics(self.hub, self.attached_channels, self.connections)

    def channel_views(self) -> list[ChannelView]:
        """Return the I/O statistics of every open channel, oldest first."""
        now = trio.current_time()
        return [channel_io_stats(each, self.attached_channels.get(each.id), now) for each in self.hub.channels]
