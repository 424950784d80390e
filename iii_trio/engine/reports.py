"""What an engine tells of itself: its log, the recorder of traces, and the callbacks of the program that embeds it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import final

import trio

from ..core.effects import EndChannel, Log
from ..core.hub import Hub
from ..core.session import WorkerSession
from ..observed import ChannelCounts
from ..report import RateLimitedLogger
from ..tracing import Tracing
from ..wire import Outcome
from ..wire.telemetry import Telemetry
from .attached_channel import AttachedChannel
from .flight_recorder import FlightRecorder
from .promise_watch import PromiseWatch
from .spans import ChannelSpan, line_of, span_of


@final
class Reports:
    """Writes the reports of one engine, and checks its promises about each session and channel that has ended."""

    def __init__(
        self, name: str, hub: Hub, tracing: Tracing, recorder: FlightRecorder, wall_clock: Callable[[], float]
    ) -> None:
        self.on_channel_span: Callable[[ChannelSpan], object] | None = None
        self.on_telemetry: Callable[[Telemetry, bytes], object] | None = None
        self._tracing = tracing
        self._recorder = recorder
        self._wall_clock = wall_clock
        self._logger = RateLimitedLogger(name)
        self._promises = PromiseWatch(hub, self.log, recorder.note_error)

    # --- lines

    def log(self, level: int, text: str, **about: str) -> None:
        """Write a line in the engine's log."""
        self._logger.log(trio.current_time(), level, text, about)

    def log_error(self, text: str, error: BaseException, **about: str) -> None:
        """Write a line in the engine's log about an error of its own, with its traceback."""
        self._logger.log(trio.current_time(), logging.ERROR, text, about, error=error)
        self._recorder.note_error(text)

    def log_of_peer(self, level: int, text: str, about: dict[str, str]) -> None:
        """Write a line that a peer caused, and could cause again and again."""
        self._logger.log(trio.current_time(), level, text, about, peer_controlled=True)

    def log_of_core(self, effect: Log) -> None:
        """Write a line of the core, and hand it to the recorder of traces if it is about a trace."""
        self._logger.log(
            trio.current_time(),
            effect.level,
            effect.message,
            effect.fields,
            peer_controlled=effect.peer_controlled,
            error=effect.error,
        )
        if self._tracing.active and (line := line_of(effect)) is not None:
            self._tracing.log(line)
        if effect.error is not None:
            self._recorder.note_error(effect.message)

    # --- ends

    def session_ended(self, session: WorkerSession) -> None:
        """Check that nothing is left of a session that has ended."""
        self._promises.session_ended(session)

    def channel_ended(self, effect: EndChannel, attached: AttachedChannel | None) -> None:
        """Tell of a channel's end. `attached` has its pipe, if an end of it was attached here."""
        # A stream that no writer began has lost nothing by its reader's leaving.
        unused = effect.outcome is Outcome.READER_CANCELLED and (attached is None or attached.writer is None)
        level = logging.DEBUG if unused or effect.outcome is Outcome.COMPLETED else logging.INFO
        now = trio.current_time()
        if self._logger.shows(level):
            reason = f" ({effect.reason})" if effect.reason else ""
            about = {"channel": effect.channel, "outcome": str(effect.outcome), **effect.sessions}
            self._logger.log(now, level, f"channel {effect.channel} ended: {effect.outcome}{reason}", about)
        pipe = attached.pipe if attached is not None else None
        self._promises.channel_ended(effect, pipe)
        if effect.facts is not None:
            counts = (
                (pipe.items_passed, pipe.bytes_passed, pipe.items_peak, pipe.bytes_peak) if pipe is not None else ()
            )
            self._tracing.channel_ended(effect.facts, str(effect.outcome), ChannelCounts(*counts))
        if self.on_channel_span is not None:
            span = span_of(effect, pipe, now - effect.created_at, int(self._wall_clock() * 1000))
            self._call_embedder("the tracer", self.on_channel_span, span, channel=effect.channel)

    # --- the embedding program

    def telemetry(self, kind: Telemetry, message: bytes | bytearray, fields: dict[str, str]) -> None:
        """Hand telemetry, unread, to the embedding program and the recorder of traces. `fields` name its sender."""
        if self.on_telemetry is not None:
            self._call_embedder("on_telemetry", self.on_telemetry, kind, bytes(message[4:]))
        if self._tracing.active:
            self._tracing.telemetry(kind, bytes(message[4:]), fields)

    def _call_embedder(self, name: str, listener: Callable[..., object], *what: object, **about: str) -> None:
        """Call back the embedding program. Its errors are logged, because they must not interrupt the engine."""
        try:
            listener(*what)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: ASYNC103 - nothing waits in there
            self.log_error(f"{name} failed at what the engine gave it", error, **about)
