"""A hub that notes each input with its effects in a ring.

It is the one place where the ring is fed. An input is noted when it is over, so that its ids and effects are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, final

import msgspec

from ..config import EngineConfig
from ..core.access import Access
from ..core.admission import Credentials
from ..core.channel import Channel, ChannelEvent
from ..core.channels import Refused
from ..core.effects import Deliver, Effects, Log, Send
from ..core.hub import Hub
from ..core.session import WorkerSession
from ..observed import Place, TraceSource
from ..wire import Direction, JsonValue, Outcome
from . import inputs
from .compare import status_of
from .inputs import Input
from .plain import NotPlain
from .ring import BATCH_BYTES, ENTRY_BYTES, LARGE_BYTES, BatchEncoder, Entry, Ring, Segment
from .snapshot import is_quiet, take_snapshot


@final
class _NotedTraces:
    """A source of places in traces that notes those that it gives, and where it gives none."""

    def __init__(self, traces: TraceSource, ids: list[str]) -> None:
        self._traces = traces
        self._ids = ids

    # The core asks for it at each call, and a property of Python code would cost half as much as noting the call.
    active: bool = property(attrgetter("_traces.active"))  # type: ignore[assignment]

    def may_begin_trace(self, now: float) -> bool:
        return self._traces.may_begin_trace(now)

    def place(
        self, traceparent: str | None, operation: str, service: str, now: float, *, may_begin_trace: bool = True
    ) -> Place | None:
        # Where nothing is recorded there is nothing to note.
        if not self._traces.active:
            return None
        place = self._traces.place(traceparent, operation, service, now, may_begin_trace=may_begin_trace)
        self._ids.append("#" if place is None else f"#{place.trace_id}-{place.span_id}-{place.flags}")
        return place


_received: Final = Hub.received
_MESSAGES: Final = frozenset({Send, Deliver})
_PART_BYTES: Final = 128
"""The approximate size in bytes of a usual message in a batch, its texts left out."""


@final
class RecordedHub(Hub):
    """A hub with a ring. `fault` says why nothing is recorded at present, and is empty otherwise."""

    def __init__(
        self,
        config: EngineConfig,
        new_id: Callable[[], str],
        ring: Ring,
        now: float,
        *,
        version: str | None = None,
        started_at_ms: int = 0,
        traces: TraceSource | None = None,
    ) -> None:
        self.ring = ring
        self.fault = ""
        self._ids: list[str] = []
        self._encoder = BatchEncoder()
        self._parts: list[Any] = []
        """The parts of the batch that is not encoded yet."""
        self._batch_bytes = self._left = min(BATCH_BYTES, ring.segment_bytes // 8)
        """The bytes that a batch may take, and those that the present one may still take."""
        self._kept_bytes = 0
        """The size of the entries in the present batch that are kept as objects."""
        self._segment: Segment | None = None
        self._since = self._full_at = 0
        """The bytes since the last snapshot, and those at which the next one is taken."""

        def noted_id() -> str:
            made = new_id()
            self._ids.append(made)
            return made

        def noted_secret() -> str:
            made = new_id()
            self._ids.append("!" + made)
            return made

        super().__init__(
            config,
            noted_id,
            new_secret=noted_secret,
            version=version,
            started_at_ms=started_at_ms,
            traces=None if traces is None else _NotedTraces(traces, self._ids),
        )
        self._ids.clear()  # they are a part of the first snapshot
        self.begin_segment(now)

    # --- feeding the ring

    def received(self, session: WorkerSession, text: bytes | bytearray, now: float) -> Effects:
        effects = _received(self, session, text, now)
        # Most messages need no id and cause one message. This path is as short as it can be.
        if len(effects) != 1 or self._ids or type(effect := effects[0]) not in _MESSAGES:
            return self._note_message(session.id, text, now, effects)
        left = self._left - len(text) - len(effect.message) - _PART_BYTES  # type: ignore[union-attr]
        if left < 0:
            return self._note_message(session.id, text, now, effects)
        self._left = left
        self._parts += (now, session.id, text, effect)
        return effects

    def _note_message(self, session_id: str, text: bytes | bytearray, now: float, effects: Effects) -> Effects:
        """Note a message as bytes if that is possible. Return the effects."""
        size = len(text)
        for effect in effects:
            if type(effect) not in _MESSAGES:
                return self._note(inputs.RECEIVED, now, (session_id, text), effects, len(text))
            size += len(effect.message) + _PART_BYTES  # type: ignore[union-attr]
        # To copy a large text takes longer than to keep it.
        if size > LARGE_BYTES:
            return self._note(inputs.RECEIVED, now, (session_id, text), effects, len(text))
        ids = " ".join(self._ids)
        self._ids.clear()
        self._parts += (ids, now, session_id, text, effects)
        self._left -= size + len(ids) + _PART_BYTES
        if self._left < 0:
            self._end_batch(now)
        return effects

    def _note(self, kind: Input, now: float, arguments: tuple[Any, ...], effects: Effects, size: int = 0) -> Effects:
        """Note an input that is over. `size` counts the bytes of its arguments. Return the effects."""
        ids = " ".join(self._ids)
        self._ids.clear()
        size += len(ids) + ENTRY_BYTES
        noted = []
        for effect in effects:
            if type(effect) in _MESSAGES:
                size += len(effect.message)  # type: ignore[union-attr]
            # A traceback would keep all that its frames refer to.
            elif isinstance(effect, Log) and effect.error is not None:
                effect = msgspec.structs.replace(effect, error=None)
            size += ENTRY_BYTES
            noted.append(effect)
        self._parts.append(Entry(kind, now, ids, arguments, tuple(noted)))
        self._kept_bytes += size
        self._left -= size
        # Some inputs have no time, and a segment has to begin at one.
        if self._left < 0 and now:
            self._end_batch(now)
        return effects

    def flush(self) -> None:
        """Put what was noted into the ring."""
        parts = self._parts
        # While recording has stopped, inputs are only counted.
        if self._segment is None:
            self._since += max(0, self._batch_bytes - self._left)
        elif parts:
            batch = self._encoder.encode(parts)
            size = len(batch.data) + self._kept_bytes
            self._segment.batches.append(batch)
            self._segment.bytes += size
            self._since += size
        parts.clear()
        self._kept_bytes = 0
        self._left = min(self._batch_bytes, self._full_at - self._since)

    def _end_batch(self, now: float) -> None:
        self.flush()
        if self._since >= self._full_at:
            self.begin_segment(now)

    def begin_segment(self, now: float) -> None:
        """Begin a segment with a snapshot, once the hub is quiet. Meanwhile the newest segment grows, within the bound."""
        ring = self.ring
        self.flush()
        # A closure that waits for an answer cannot be written.
        if not is_quiet(self):
            # The oldest history gives way to the newest, and all of it if there is no other.
            if ring.bytes > ring.max_bytes and not ring.drop_oldest():
                self._stop("the core was not at rest for the length of a ring")
            return
        try:
            # The snapshot is made here and not by the ring, so that the ring knows nothing of hubs.
            segment = ring.begin(take_snapshot(self), now)
        # A fault of the recorder must not reach the input that is under way.
        except Exception as problem:
            # Something waits that `is_quiet` does not know. Each attempt takes its time, so the next one is later.
            self._full_at = self._since + ring.segment_bytes // 4
            if ring.bytes > ring.max_bytes and not ring.drop_oldest():
                self._stop(str(problem) if isinstance(problem, NotPlain) else f"it failed: {problem!r}")
            return
        # Snapshots of that size would leave no room for inputs.
        if segment is None:
            self._stop("the state of the engine takes more than a quarter of the ring")
            return
        self.fault = ""
        self._segment, self._since = segment, 0
        self._full_at = ring.segment_bytes - segment.bytes
        self._left = min(self._batch_bytes, self._full_at)

    def _stop(self, fault: str) -> None:
        """Record nothing until a snapshot can be taken, which is tried again after as many inputs as fill a segment."""
        self.fault = fault
        self.ring.clear()
        self._segment, self._since, self._full_at = None, 0, self.ring.segment_bytes

    # --- the inputs

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
        session, effects = super().connected(
            now,
            now_ms,
            peer=peer,
            in_process=in_process,
            max_channels=max_channels,
            internal=internal,
            access=access,
            credentials=credentials,
        )
        arguments = (now_ms, peer, in_process, max_channels, internal, access, credentials)
        return session, self._note(inputs.CONNECTED, now, arguments, effects, 4 * ENTRY_BYTES)

    def undelivered(self, session_id: str, invocation_id: str, now: float) -> Effects:
        effects = super().undelivered(session_id, invocation_id, now)
        return self._note(inputs.UNDELIVERED, now, (session_id, invocation_id), effects)

    def disconnected(
        self,
        session: WorkerSession,
        reason: str,
        now: float,
        *,
        may_come_back: bool = False,
        left: bool = False,
    ) -> Effects:
        effects = super().disconnected(session, reason, now, may_come_back=may_come_back, left=left)
        return self._note(inputs.DISCONNECTED, now, (session.id, reason, may_come_back, left), effects, len(reason))

    def close_session(
        self, session: WorkerSession, code: int, reason: str, now: float, *, may_come_back: bool = False
    ) -> Effects:
        effects = super().close_session(session, code, reason, now, may_come_back=may_come_back)
        return self._note(inputs.CLOSE_SESSION, now, (session.id, code, reason, may_come_back), effects, len(reason))

    def change_rules(self, session: WorkerSession, max_channels: int | None, access: Access | None) -> None:
        super().change_rules(session, max_channels, access)
        self._note(inputs.CHANGE_RULES, 0.0, (session.id, max_channels, access), [], 4 * ENTRY_BYTES)

    def attach(
        self,
        channel_id: str,
        key: str,
        direction: Direction,
        now: float,
        holder: WorkerSession | None,
        invocation_id: str | None = None,
    ) -> Channel | Refused:
        result = super().attach(channel_id, key, direction, now, holder, invocation_id)
        holder_id = holder.id if holder is not None else None
        arguments = (channel_id, key, direction, holder_id, invocation_id, status_of(result))
        self._note(inputs.ATTACH, now, arguments, [], len(channel_id) + len(key) + len(invocation_id or ""))
        return result

    def channel_event(
        self, channel_id: str, event: ChannelEvent, reason: str, now: float, code: str | None = None
    ) -> Effects:
        effects = super().channel_event(channel_id, event, reason, now, code)
        return self._note(inputs.CHANNEL_EVENT, now, (channel_id, event, reason, code), effects, len(reason))

    def name_home(self, home: str) -> None:
        super().name_home(home)
        self._note(inputs.NAME_HOME, 0.0, (home,), [])

    def show_workers(self, rows: Sequence[Mapping[str, object]]) -> None:
        super().show_workers(rows)
        self._note(inputs.SHOW_WORKERS, 0.0, ([dict(row) for row in rows],), [], 2 * ENTRY_BYTES * len(rows))

    def show_gauges(self, worker_id: str, values: Mapping[str, int | float], time_ms: int, now: float) -> None:
        super().show_gauges(worker_id, values, time_ms, now)
        self._note(inputs.SHOW_GAUGES, now, (worker_id, dict(values), time_ms), [], 2 * ENTRY_BYTES * len(values))

    def hold_elsewhere(self, channel_id: str, session: WorkerSession) -> None:
        super().hold_elsewhere(channel_id, session)
        self._note(inputs.HOLD_ELSEWHERE, 0.0, (channel_id, session.id), [])

    def release_elsewhere(self, channel_id: str, session: WorkerSession) -> None:
        super().release_elsewhere(channel_id, session)
        self._note(inputs.RELEASE_ELSEWHERE, 0.0, (channel_id, session.id), [])

    def channel_ended_elsewhere(self, channel_id: str, outcome: Outcome, reason: str, code: str | None) -> Effects:
        effects = super().channel_ended_elsewhere(channel_id, outcome, reason, code)
        return self._note(inputs.CHANNEL_ENDED_ELSEWHERE, 0.0, (channel_id, outcome, reason, code), effects)

    def engine_lost(self, home: str, reason: str) -> Effects:
        effects = super().engine_lost(home, reason)
        return self._note(inputs.ENGINE_LOST, 0.0, (home, reason), effects)

    def refuse_name(self, namespace: str, name: str, holder_id: str, node: str, now: float) -> Effects:
        effects = super().refuse_name(namespace, name, holder_id, node, now)
        return self._note(inputs.REFUSE_NAME, now, (namespace, name, holder_id, node), effects)

    def touch(self, channel_id: str, now: float) -> None:
        super().touch(channel_id, now)
        self._note(inputs.TOUCH, now, (channel_id,), [])

    def unread_input_known(self, session_id: str, has_unread_input: bool, now: float) -> Effects:
        effects = super().unread_input_known(session_id, has_unread_input, now)
        return self._note(inputs.UNREAD_INPUT_KNOWN, now, (session_id, has_unread_input), effects)

    def sign_of_life_known(self, session_id: str, is_alive: bool, now: float) -> Effects:
        effects = super().sign_of_life_known(session_id, is_alive, now)
        return self._note(inputs.SIGN_OF_LIFE_KNOWN, now, (session_id, is_alive), effects)

    def channel_io_known(self, question: int, statistics: Mapping[str, Mapping[str, JsonValue]]) -> Effects:
        effects = super().channel_io_known(question, statistics)
        size = ENTRY_BYTES * 4 * len(statistics)
        return self._note(inputs.CHANNEL_IO_KNOWN, 0.0, (question, statistics), effects, size)

    def statistics_known(self, question: int, statistics: Mapping[str, JsonValue]) -> Effects:
        effects = super().statistics_known(question, statistics)
        return self._note(inputs.STATISTICS_KNOWN, 0.0, (question, statistics), effects, 4 * ENTRY_BYTES)

    def tick(self, now: float) -> Effects:
        effects = super().tick(now)
        return self._note(inputs.TICK, now, (), effects)

    def reconfigure(self, config: EngineConfig) -> None:
        super().reconfigure(config)
        arguments = (config.limits, config.channels, config.timeouts)
        self._note(inputs.RECONFIGURE, 0.0, arguments, [], 4 * ENTRY_BYTES)

    def drain(self) -> None:
        super().drain()
        self._note(inputs.DRAIN, 0.0, (), [])

    def recording_known(self, question: int, result: Mapping[str, JsonValue] | None, error: str | None) -> Effects:
        effects = super().recording_known(question, result, error)
        return self._note(inputs.RECORDING_KNOWN, 0.0, (question, result, error), effects)

    def close(self, reason: str, now: float) -> Effects:
        effects = super().close(reason, now)
        return self._note(inputs.CLOSE, now, (reason,), effects, len(reason))
