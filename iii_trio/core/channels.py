"""The ledger of channels. It decides on attaching, ownership and expiry, and keeps the results of the last ones."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from ..config import ChannelDefaults, Limits
from ..errors import CallError
from ..records import reprs_without
from ..wire import FEATURE, ChannelEnded, Direction, ErrorCode, Outcome, encode, to_json
from .channel import HALF_ATTACHED, Channel, ChannelEvent, ChannelState
from .effects import Effect, EndChannel, SealPipe, Send
from .session import WorkerSession, same_secret


class Refused(msgspec.Struct, frozen=True):
    """The reason why an end is not attached, as an HTTP answer (clause C2.1)."""

    status: int
    body: bytes


class ChannelResult(msgspec.Struct, frozen=True):
    """The result of an ended channel, in the bounded list of the last ones."""

    id: str
    outcome: Outcome
    reason: str
    code: str | None
    owner: str | None
    created_at: float
    ended_at: float
    read_key: str
    write_key: str

    __repr__, __rich_repr__ = reprs_without("read_key", "write_key")


_WITHOUT_OWNER_SECONDS: Final = 300.0
_ATTACHED: Final = {Direction.READ: ChannelEvent.READER_ATTACHED, Direction.WRITE: ChannelEvent.WRITER_ATTACHED}
_WRITER_GONE: Final = frozenset({ChannelEvent.WRITER_CLOSED, ChannelEvent.WRITER_ABORTED, ChannelEvent.WRITER_LOST})


class Channels:
    """All channels that are open, and the last ones that ended."""

    def __init__(
        self,
        defaults: ChannelDefaults,
        limits: Limits,
        new_id: Callable[[], str],
        new_secret: Callable[[], str],
        sessions: Mapping[str, WorkerSession],
        emit: Callable[[Effect], None],
    ) -> None:
        self._defaults = defaults
        self._limits = limits
        self._new_id = new_id
        self._new_secret = new_secret
        self._sessions = sessions
        self._emit = emit
        self.home = ""
        """The name of this engine in the ids of its channels, by which other engines of a mesh find it. Empty: none."""
        self._open: dict[str, Channel] = {}
        self._ended: OrderedDict[str, ChannelResult] = OrderedDict()
        self.due: list[tuple[float, str]] = []  # a heap with stale entries, which are checked when due

    def reconfigure(self, defaults: ChannelDefaults, limits: Limits) -> None:
        """Use these defaults and limits for new channels."""
        self._defaults = defaults
        self._limits = limits

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._open.values())

    def get(self, channel_id: str) -> Channel | None:
        return self._open.get(channel_id)

    def ended(self) -> list[ChannelResult]:
        """Return the results of the last channels that ended, oldest first."""
        return list(self._ended.values())

    # --- making and attaching

    def create(
        self,
        owner: WorkerSession,
        now: float,
        *,
        buffer_size: int | None,
        max_bytes: int | None,
        expires_after_seconds: float | None,
    ) -> Channel:
        """Create a channel of this session (clause C1). Raises CallError at a limit (clause C1.5)."""
        max_owned = owner.max_channels or self._limits.channels_per_session
        # Workers in the engine's process are bounded by the engine's limit only.
        if not owner.in_process and len(owner.owned) >= max_owned:
            raise CallError(
                ErrorCode.CHANNEL_LIMIT_REACHED,
                f"this worker owns {len(owner.owned)} open channels, as many as one may: end some first",
            )
        if len(self._open) >= self._limits.channels:
            raise CallError(
                ErrorCode.CHANNEL_LIMIT_REACHED,
                f"this engine has {len(self._open)} open channels, as many as it may: end some first",
            )
        kept = self._limits.channels // 8
        if len(self._open) >= self._limits.channels - kept and not owner.in_process:
            self._check_fair_share(owner, kept)
        channel = Channel(
            id=f"{self._new_id()}.{self.home}" if self.home else self._new_id(),
            read_key=self._new_secret(),
            write_key=self._new_secret(),
            owner=owner.id,
            buffer_size=min(max(self._defaults.buffer_size if buffer_size is None else buffer_size, 1), 1024),
            max_bytes=self._defaults.max_bytes if max_bytes is None else max_bytes,
            expires_after_seconds=expires_after_seconds,
            created_at=now,
            touched_at=now,
        )
        self._open[channel.id] = channel
        owner.owned.add(channel.id)
        return channel

    def _check_fair_share(self, owner: WorkerSession, kept: int) -> None:
        """Keep the last channels for sessions that own little, so that a few cannot shut out all others (clause C1.5).

        Raises CallError if this session owns its share already.
        """
        sessions = sum(not session.in_process for session in self._sessions.values())
        share = self._limits.channels // max(sessions, 1)
        if len(owner.owned) >= share:
            raise CallError(
                ErrorCode.CHANNEL_LIMIT_REACHED,
                f"{len(self._open)} of this engine's {self._limits.channels} channels are open. The last {kept} are kept "
                f"for workers that own fewer than {share}; this one owns {len(owner.owned)}: end some first",
            )

    def attach(
        self, channel_id: str, key: str, direction: Direction, now: float, holder: WorkerSession | None
    ) -> Channel | Refused:
        """Attach an end, once (clause C2.1). A refusal changes nothing."""
        channel = self._open.get(channel_id)
        if channel is None:
            ended = self._ended.get(channel_id)
            # Only a holder of one of its keys learns how a channel ended.
            if ended is not None and (same_secret(key, ended.read_key) or same_secret(key, ended.write_key)):
                result = {"outcome": ended.outcome, "reason": ended.reason, "code": ended.code}
                return Refused(410, to_json(result))
            return Refused(404, b"Channel not found")
        right, other = channel.read_key, channel.write_key
        if direction is Direction.WRITE:
            right, other = other, right
        if not same_secret(key, right):
            # The right key for the wrong direction is a mistake worth naming. Any other key learns nothing.
            if same_secret(key, other):
                return Refused(403, b"This key is for the channel's other direction")
            return Refused(404, b"Channel not found")
        event = _ATTACHED[direction]
        if not channel.state.can(event):
            return Refused(409, b"This end of the channel is attached already")
        channel.state.advance(event)
        channel.touched_at = now
        if holder is not None:
            if direction is Direction.READ:
                channel.reader = holder.id
                holder.held_readers.add(channel_id)
            else:
                channel.writer = holder.id
                holder.held_writers.add(channel_id)
        self._watch(channel)
        return channel

    # --- events

    def advance(self, channel_id: str, event: ChannelEvent, reason: str, now: float, code: str | None = None) -> None:
        """Apply an event to a channel. It is ignored if the channel has ended or does not allow it (clause C4.8)."""
        channel = self._open.get(channel_id)
        if channel is None or not channel.state.can(event):
            return
        before = channel.state.current
        # An event that keeps the state, such as an owner that leaves a draining channel, has no effects.
        if channel.state.advance(event) is before:
            return
        # The writer's session no longer holds the end, though the channel may go on draining.
        if event in _WRITER_GONE and channel.writer is not None:
            holder = self._sessions.get(channel.writer)
            if holder is not None:
                holder.held_writers.discard(channel_id)
        if channel.state.is_final:
            self._end(channel, reason, code, now)
            return
        channel.touched_at = now
        self._watch(channel)
        if event is ChannelEvent.WRITER_CLOSED:
            self._emit(SealPipe(channel_id))

    def touch(self, channel_id: str, now: float) -> None:
        """Restart the expiry of a channel, because a message passed (clause C2.3)."""
        channel = self._open.get(channel_id)
        if channel is not None:
            channel.touched_at = now

    def session_ended(self, session: WorkerSession, reason: str, now: float) -> None:
        """End the channels of a session, in the order of clause C4.5."""
        for channel_id in sorted(session.held_writers):
            self.advance(channel_id, ChannelEvent.WRITER_LOST, reason, now)
        for channel_id in sorted(session.held_readers):
            self.advance(channel_id, ChannelEvent.READER_LOST, reason, now)
        for channel_id in sorted(session.owned):
            self.advance(channel_id, ChannelEvent.OWNER_LEFT, reason, now)
            channel = self._open.get(channel_id)
            if channel is not None:  # a sealed or draining channel goes on without an owner
                channel.owner = None
                self._bound_without_owner(channel, now)
        session.owned.clear()

    def _bound_without_owner(self, channel: Channel, now: float) -> None:
        """Let a finished stream without an owner expire, because nothing else ends it."""
        if channel.expires_after_seconds is None:
            channel.expires_after_seconds = self._defaults.expires_after_seconds or _WITHOUT_OWNER_SECONDS
            channel.touched_at = now
            self._watch(channel)

    def transfer_ownership(self, lost: WorkerSession, successor: WorkerSession) -> None:
        """Transfer the channels of a lost session to its successor, and send it the outcomes it missed (C4.6)."""
        for channel_id in sorted(lost.owned | lost.held_writers | lost.held_readers):
            channel = self._open.get(channel_id)
            # The channel ended while its session was lost.
            if channel is None:
                ended = self._ended.get(channel_id)
                if ended is not None and FEATURE in lost.features:
                    self._emit(Send(successor.id, encode(ChannelEnded(ended.id, ended.outcome, ended.reason))))
                continue
            if channel.owner == lost.id:
                channel.owner = successor.id
                successor.owned.add(channel_id)
            if channel.writer == lost.id:
                channel.writer = successor.id
                successor.held_writers.add(channel_id)
            if channel.reader == lost.id:
                channel.reader = successor.id
                successor.held_readers.add(channel_id)

    def close_all(self, reason: str, now: float) -> None:
        """End every channel, because the engine shuts down."""
        for channel_id in list(self._open):
            self.advance(channel_id, ChannelEvent.ENGINE_CLOSED, reason, now)

    # --- expiry

    def next_due(self) -> float | None:
        """Return when `expire` has something to do, at the latest."""
        return self.due[0][0] if self.due else None

    def expire(self, now: float) -> None:
        """End the half-attached channels that have waited too long (clause C2.3)."""
        while self.due and self.due[0][0] <= now:
            _, channel_id = heapq.heappop(self.due)
            channel = self._open.get(channel_id)
            if channel is None or channel.expires_after_seconds is None or channel.state.current not in HALF_ATTACHED:
                continue
            # A message has passed since the entry was made.
            if channel.touched_at + channel.expires_after_seconds > now:
                self._watch(channel)
                continue
            missing = "writer" if channel.state.current is ChannelState.AWAITING_WRITER else "reader"
            reason = f"no {missing} came within {channel.expires_after_seconds:g} s"
            self.advance(channel_id, ChannelEvent.NOBODY_CAME, reason, now)

    def _watch(self, channel: Channel) -> None:
        if channel.expires_after_seconds is not None and channel.state.current in HALF_ATTACHED:
            heapq.heappush(self.due, (channel.touched_at + channel.expires_after_seconds, channel.id))
            # Stale entries can be due in years only, so the heap is cleaned when most of it is stale.
            if len(self.due) > 4 * len(self._open) + 64:
                self.due = [entry for entry in self.due if self._may_expire(entry[1])]
                heapq.heapify(self.due)

    def _may_expire(self, channel_id: str) -> bool:
        channel = self._open.get(channel_id)
        return channel is not None and channel.state.current in HALF_ATTACHED

    def _end(self, channel: Channel, reason: str, code: str | None, now: float) -> None:
        """Report the outcome to all alike and remove the channel, in one step (clause C4.7)."""
        del self._open[channel.id]
        outcome = channel.outcome
        assert outcome is not None
        self._ended[channel.id] = ChannelResult(
            channel.id,
            outcome,
            reason,
            code,
            channel.owner,
            channel.created_at,
            now,
            channel.read_key,
            channel.write_key,
        )
        while len(self._ended) > self._defaults.ended_remembered:
            self._ended.popitem(last=False)
        roles = {"owner": channel.owner, "writer": channel.writer, "reader": channel.reader}
        sessions = {role: session_id for role, session_id in roles.items() if session_id is not None}
        self._emit(
            EndChannel(
                channel.id, outcome, reason, code, channel.created_at, channel.traceparent, tuple(channel.used_by),
                sessions, channel.facts,
            )
        )  # fmt: skip
        message = encode(ChannelEnded(channel.id, outcome, reason, code))
        for session_id in dict.fromkeys(sessions.values()):
            session = self._sessions.get(session_id)
            if session is None:
                continue
            session.owned.discard(channel.id)
            session.held_writers.discard(channel.id)
            session.held_readers.discard(channel.id)
            if FEATURE in session.features:
                self._emit(Send(session.id, message))
