"""The state of an engine. It holds the ledgers, the configuration, and the effects of the input under way.

Handlers receive the state and change it. They give back effects only by `emit`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

from ..config import EngineConfig
from ..errors import CallError
from ..observed import NoTraces, TraceSource
from ..wire import ErrorCode
from .call_counts import CallCounts
from .channels import Channels
from .effects import Effect, Effects
from .ends_elsewhere import EndsElsewhere
from .engine_calls import EngineCalls
from .event_queue import EventQueue
from .function_changes import FunctionChanges
from .name_waiters import NameWaiters
from .pending_calls import PendingCalls
from .reattach import LostSessions
from .registry import Registry
from .request import Request
from .session import SessionState, WorkerSession
from .triggers import Triggers

ENGINE_NAME: Final = "iii-engine-functions"
"""The name of the worker to which the engine's own functions belong."""


@final
class State:
    """Everything that an engine knows.

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
        self._effects: Effects = []
        self.emit: Callable[[Effect], None] = self._effects.append
        """Give back an effect of the input under way. The shell performs effects in this order."""
        self.config = config
        self.new_id = new_id
        self.new_secret = new_secret or new_id
        self.version = version
        self.started_at_ms = started_at_ms
        self.traces: TraceSource = traces or NoTraces()
        self.id = new_id()
        self.draining = False
        self.sessions: dict[str, WorkerSession] = {}
        self.internal_sessions = 0
        self.registry = Registry()
        self.calls = PendingCalls()
        self.call_counts = CallCounts()
        self.engine_calls = EngineCalls()
        self.channels = Channels(config.channels, config.limits, new_id, self.new_secret, self.sessions, self.emit)
        self.ends_elsewhere = EndsElsewhere(self.emit)
        self.lost_sessions = LostSessions(self.channels)
        self.triggers = Triggers(self.emit)
        self.name_waiters = NameWaiters()
        self.function_changes = FunctionChanges(self.registry)
        self.events = EventQueue()
        self.workers_elsewhere: Sequence[Mapping[str, object]] = ()
        """The rows of workers of other engines."""
        self.questions: dict[int, Request] = {}
        """The requests that wait for the shell's answer to a question, by the question's number."""
        self._asked = 0
        self.graces: list[tuple[float, str]] = []  # a heap with stale entries

    def take_effects(self) -> Effects:
        """Return the effects emitted since the last time, in order."""
        # The list itself stays, because `emit` is bound to it.
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def check_open(self) -> None:
        """Raise CallError if the engine is shutting down."""
        if self.draining:
            raise CallError(ErrorCode.ENGINE_DRAINING, "The engine is shutting down and takes no new calls.")

    def ask(self, request: Request) -> int:
        """Keep a request until the shell answers a question. Return the question's number."""
        self._asked += 1
        self.questions[self._asked] = request
        return self._asked

    def reconfigure(self, config: EngineConfig) -> None:
        """Use this configuration from now on. Earlier decisions stay."""
        self.config = config
        self.channels.reconfigure(config.channels, config.limits)

    # --- the time for registrations without a namespace

    def start_grace(self, session: WorkerSession, until: float) -> None:
        """Let a new session declare its namespace until this time."""
        heapq.heappush(self.graces, (until, session.id))

    def take_late_session(self, now: float) -> WorkerSession | None:
        """Return a session that did not declare its namespace in time, or None if there is none left."""
        while self.graces and self.graces[0][0] <= now:
            session = self.sessions.get(heapq.heappop(self.graces)[1])
            if session is not None and session.state.current is SessionState.UNNAMED:
                return session
        return None

    def next_grace(self) -> float | None:
        """Return when `take_late_session` has something to do, or None."""
        while self.graces:
            session = self.sessions.get(self.graces[0][1])
            if session is not None and session.state.current is SessionState.UNNAMED:
                return self.graces[0][0]
            heapq.heappop(self.graces)
        return None
