"""The ledger of channels: who may attach what, who holds what, when one expires, how the last ones ended."""

from __future__ import annotations

import heapq
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterator

import attrs

from ..config import ChannelDefaults, Limits
from ..errors import CallError
from ..wire import FEATURE, ChannelEnded, Direction, ErrorCode, Outcome, encode, to_json
from .channel import HALF_ATTACHED, Channel, ChannelEvent, ChannelState
from .effects import Effects, EndChannel, SealPipe, Send
from .session import Session


@attrs.frozen
class Refused:
    """Why an end is not attached, as an HTTP answer (clause C2.1)."""

    status: int
    body: bytes


@attrs.frozen
class Ended:
    """A channel that has ended: its line in the bounded list of the last ones."""

    id: str
    outcome: Outcome
    reason: str
    code: str | None
    owner: str | None
    created_at: float
    ended_at: float
    read_key: str = attrs.field(repr=False)
    write_key: str = attrs.field(repr=False)


_WITHOUT_OWNER_SECONDS = 300.0
_ATTACHED = {Direction.READ: ChannelEvent.READER_ATTACHED, Direction.WRITE: ChannelEvent.WRITER_ATTACHED}
_WRITER_GONE = frozenset({ChannelEvent.WRITER_CLOSED, ChannelEvent.WRITER_ABORTED, ChannelEvent.WRITER_LOST})


def _same(a: str, b: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(a.encode(), b.encode())


class Channels:
    """All channels that are open, and the last ones that ended."""

    def __init__(self, defaults: ChannelDefaults, limits: Limits, new_id: Callable[[], str]) -> None:
        self._defaults = defaults
        self._limits = limits
        self._new_id = new_id
        self._sessions: dict[str, Session] = {}
        self._open: dict[str, Channel] = {}
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._due: list[tuple[float, str]] = []  # a heap, with stale entries: looked at again when due

    def serve_sessions(self, sessions: dict[str, Session]) -> None:
        """Know the sessions that own and hold."""
        self._sessions = sessions

    def reconfigure(self, defaults: ChannelDefaults, limits: Limits) -> None:
        """New channels follow these."""
        self._defaults = defaults
        self._limits = limits

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._open.values())

    def get(self, channel_id: str) -> Channel | None:
        return self._open.get(channel_id)

    def ended(self) -> list[Ended]:
        """The last channels that ended, oldest first."""
        return list(self._ended.values())

    # --- making and attaching

    def create(
        self,
        owner: Session,
        now: float,
        *,
        buffer_size: int | None,
        max_bytes: int | None,
        expires_after_seconds: float | None,
    ) -> Channel:
        """A new channel of this session (clause C1). Raises CallError at a limit (clause C1.5)."""
        most = owner.max_channels or self._limits.channels_per_session
        if not owner.in_process and len(owner.owned) >= most:
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
            id=self._new_id(),
            read_key=self._new_id(),
            write_key=self._new_id(),
            owner=owner.id,
            buffer_size=min(max(self._defaults.buffer_size if buffer_size is None else buffer_size, 1), 1024),
            max_bytes=max(self._defaults.max_bytes if max_bytes is None else max_bytes, 1),
            expires_after_seconds=expires_after_seconds,
            created_at=now,
            touched_at=now,
        )
        self._open[channel.id] = channel
        owner.owned.add(channel.id)
        return channel

    def _check_fair_share(self, owner: Session, kept: int) -> None:
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
        self,
        channel_id: str,
        key: str,
        direction: Direction,
        now: float,
        holder: Session | None,
        invocation_id: str | None = None,
    ) -> Channel | Refused:
        """Attach an end, once (clause C2.1). A refusal changes nothing."""
        channel = self._open.get(channel_id)
        if channel is None:
            ended = self._ended.get(channel_id)
            if ended is not None and (_same(key, ended.read_key) or _same(key, ended.write_key)):
                told = {"outcome": ended.outcome, "reason": ended.reason, "code": ended.code}
                return Refused(410, to_json(told))
            return Refused(404, b"Channel not found")
        right, other = channel.read_key, channel.write_key
        if direction is Direction.WRITE:
            right, other = other, right
        if not _same(key, right):
            if _same(key, other):
                return Refused(403, b"This key is for the channel's other direction")
            return Refused(404, b"Channel not found")
        cue = _ATTACHED[direction]
        if not channel.state.can(cue):
            return Refused(409, b"This end of the channel is attached already")
        channel.state.advance(cue)
        channel.touched_at = now
        if invocation_id is not None:
            channel.invocations.append(invocation_id)
            call = holder.answering.get(invocation_id) if holder is not None else None
            if call is not None and call.traceparent is not None:
                channel.used_by.append(call.traceparent)
        if holder is not None:
            if direction is Direction.READ:
                channel.reader = holder.id
                holder.held_readers.add(channel_id)
            else:
                channel.writer = holder.id
                holder.held_writers.add(channel_id)
        self._watch(channel)
        return channel

    # --- what happens to them

    def take(self, channel_id: str, cue: ChannelEvent, reason: str, now: float, code: str | None = None) -> Effects:
        """Something happened to a channel. One that is forgotten, or beyond such a cue, is not touched (clause C4.8)."""
        channel = self._open.get(channel_id)
        if channel is None or not channel.state.can(cue):
            return []
        before = channel.state.current
        phase = channel.state.advance(cue)
        if phase is before:
            return []
        if cue in _WRITER_GONE and channel.writer is not None:
            holder = self._sessions.get(channel.writer)
            if holder is not None:
                holder.held_writers.discard(channel_id)
        if channel.state.is_final:
            return self._end(channel, reason, code, now)
        channel.touched_at = now
        self._watch(channel)
        return [SealPipe(channel_id)] if cue is ChannelEvent.WRITER_CLOSED else []

    def touch(self, channel_id: str, now: float) -> None:
        """A message passed (clause C2.3)."""
        channel = self._open.get(channel_id)
        if channel is not None:
            channel.touched_at = now

    def session_ended(self, session: Session, reason: str, now: float) -> Effects:
        """The channels' part of clause C4.5, in its order."""
        effects: Effects = []
        for channel_id in sorted(session.held_writers):
            effects += self.take(channel_id, ChannelEvent.WRITER_LOST, reason, now)
        for channel_id in sorted(session.held_readers):
            effects += self.take(channel_id, ChannelEvent.READER_LOST, reason, now)
        for channel_id in sorted(session.owned):
            effects += self.take(channel_id, ChannelEvent.OWNER_LEFT, reason, now)
            channel = self._open.get(channel_id)
            if channel is not None:  # sealed or draining: nobody's now
                channel.owner = None
                self._bound_without_owner(channel, now)
        session.owned.clear()
        return effects

    def _bound_without_owner(self, channel: Channel, now: float) -> None:
        """A channel that never expires is bound by its owner; a finished stream that has lost it needs another bound."""
        if channel.expires_after_seconds is None:
            channel.expires_after_seconds = self._defaults.expires_after_seconds or _WITHOUT_OWNER_SECONDS
            channel.touched_at = now
            self._watch(channel)

    def hand_over(self, lost: Session, back: Session) -> Effects:
        """What a lost session had is this one's (clause C4.6); it is told of what ended meanwhile."""
        effects: Effects = []
        for channel_id in sorted(lost.owned | lost.held_writers | lost.held_readers):
            channel = self._open.get(channel_id)
            if channel is None:
                ended = self._ended.get(channel_id)
                if ended is not None and FEATURE in lost.features:
                    effects.append(Send(back.id, encode(ChannelEnded(ended.id, ended.outcome, ended.reason))))
                continue
            if channel.owner == lost.id:
                channel.owner = back.id
                back.owned.add(channel_id)
            if channel.writer == lost.id:
                channel.writer = back.id
                back.held_writers.add(channel_id)
            if channel.reader == lost.id:
                channel.reader = back.id
                back.held_readers.add(channel_id)
        return effects

    def close_all(self, reason: str, now: float) -> Effects:
        """The engine shuts down."""
        effects: Effects = []
        for channel_id in list(self._open):
            effects += self.take(channel_id, ChannelEvent.ENGINE_CLOSED, reason, now)
        return effects

    # --- expiry

    def next_due(self) -> float | None:
        """When to look again, at the latest."""
        return self._due[0][0] if self._due else None

    def expire(self, now: float) -> Effects:
        """End the half-attached channels whose time is up (clause C2.3)."""
        effects: Effects = []
        while self._due and self._due[0][0] <= now:
            _, channel_id = heapq.heappop(self._due)
            channel = self._open.get(channel_id)
            if channel is None or channel.expires_after_seconds is None or channel.state.current not in HALF_ATTACHED:
                continue
            if channel.touched_at + channel.expires_after_seconds > now:
                self._watch(channel)
                continue
            missing = "writer" if channel.state.current is ChannelState.AWAITING_WRITER else "reader"
            reason = f"no {missing} came within {channel.expires_after_seconds:g} s"
            effects += self.take(channel_id, ChannelEvent.NOBODY_CAME, reason, now)
        return effects

    def _watch(self, channel: Channel) -> None:
        if channel.expires_after_seconds is not None and channel.state.current in HALF_ATTACHED:
            heapq.heappush(self._due, (channel.touched_at + channel.expires_after_seconds, channel.id))
            if len(self._due) > 4 * len(self._open) + 64:  # most are stale, and may be due in years only
                self._due = [entry for entry in self._due if self._may_expire(entry[1])]
                heapq.heapify(self._due)

    def _may_expire(self, channel_id: str) -> bool:
        channel = self._open.get(channel_id)
        return channel is not None and channel.state.current in HALF_ATTACHED

    def _end(self, channel: Channel, reason: str, code: str | None, now: float) -> Effects:
        """Report the outcome to all alike, and forget the channel, in this one step (clause C4.7)."""
        del self._open[channel.id]
        outcome = channel.outcome
        assert outcome is not None
        self._ended[channel.id] = Ended(
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
        whose = {"owner": channel.owner, "writer": channel.writer, "reader": channel.reader}
        effects: Effects = [
            EndChannel(
                channel.id, outcome, reason, code, channel.created_at, channel.traceparent, tuple(channel.used_by),
                {role: session_id for role, session_id in whose.items() if session_id is not None},
            )
        ]  # fmt: skip
        told = encode(ChannelEnded(channel.id, outcome, reason, code))
        for session_id in dict.fromkeys((channel.owner, channel.writer, channel.reader)):
            session = self._sessions.get(session_id) if session_id is not None else None
            if session is None:
                continue
            session.owned.discard(channel.id)
            session.held_writers.discard(channel.id)
            session.held_readers.discard(channel.id)
            if FEATURE in session.features:
                effects.append(Send(session.id, told))
        return effects
