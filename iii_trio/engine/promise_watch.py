"""Checks that a running engine makes of its own promises, where a channel or a session ends.

A promise that is seen broken is a defect of the engine. It is logged, and saves a recording, once for each promise in the
life of an engine, because a defect breaks its promise again and again. The checks change nothing. Calls are not followed
one by one, because that would cost each of them, so the ledger of calls is compared with itself when a session ends.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, final

from ..core.effects import EndChannel
from ..core.hub import Hub
from ..core.session import WorkerSession
from ..transport.pipe import Pipe
from ..wire import Outcome

_REMEMBERED: Final = 256
"""The channels that ended last, by which one that ends twice is seen."""
_MAX_COMPARED: Final = 1000
"""A larger ledger is not compared, because it would hold up the step in which a session ends."""


@final
class PromiseWatch:
    """Looks for broken promises of one engine. Each one that was not seen before is logged and noted."""

    def __init__(self, hub: Hub, log: Callable[..., object], note_error: Callable[[str], object]) -> None:
        self._hub = hub
        self._log = log
        self._note_error = note_error
        self._seen: set[str] = set()
        self._ended: OrderedDict[str, Outcome] = OrderedDict()

    def channel_ended(self, effect: EndChannel, pipe: Pipe | None) -> None:
        """Check a channel's end. `pipe` is None for a channel that had no end attached here."""
        fields = {"channel": effect.channel}
        before = self._ended.get(effect.channel)
        if before is not None:
            self._tell("C4.8", f"channel {effect.channel} ended as {effect.outcome}, and as {before} before", fields)
        self._ended[effect.channel] = effect.outcome
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        if self._hub.channels.get(effect.channel) is not None:
            self._tell("C4.7", f"channel {effect.channel} ended as {effect.outcome}, and is still open", fields)
        if pipe is None:
            return
        counts = (pipe.items_waiting, pipe.bytes_waiting)
        if min(counts) < 0:
            text = f"channel {effect.channel} counts {counts[0]} items and {counts[1]} bytes in its pipe"
            self._tell("C1.4", text, fields)
        # The reader of a completed channel has taken all of it, so its pipe is empty by every count.
        elif effect.outcome is Outcome.COMPLETED and (any(counts) or not pipe.empty):
            text = f"channel {effect.channel} completed with {counts[0]} items and {counts[1]} bytes in its pipe"
            self._tell("C4.2", text, fields)

    def session_ended(self, session: WorkerSession) -> None:
        """Check that nothing is left of a session that has ended, and that the ledger of calls agrees with itself."""
        fields = {"session": session.id}
        for left in self._left_of(session):
            self._tell("C4.5", f"{session.label} has ended, and {left}", fields)
        for problem in self._calls_disagree():
            self._tell("the ledger of calls", problem, fields)

    def _left_of(self, session: WorkerSession) -> Iterator[str]:
        hub = self._hub
        if session.id in hub.sessions:
            yield "is still a session"
        if session.functions:
            yield f"still has {len(session.functions)} functions"
        # The channels of a lost session may wait for it (C4.6).
        if session.id not in hub.state.lost_sessions and len(hub.channels) <= _MAX_COMPARED:
            owned = sum(channel.owner == session.id for channel in hub.channels)
            if owned:
                yield f"still owns {owned} channels"

    def _calls_disagree(self) -> Iterator[str]:
        calls, sessions = self._hub.calls, self._hub.sessions
        if len(calls) > _MAX_COMPARED:
            return
        for table, other in ((calls.given, calls.made), (calls.made, calls.given)):
            for session, pending in table.items():
                if session.id not in sessions:
                    yield f"the ledger of calls still has {session.label}, which has ended"
                for call in pending.values():
                    partner = call.caller if table is calls.given else call.callee
                    # A void call, and one of the engine's own, has no caller.
                    if partner is not None and other.get(partner, {}).get(call.id) is not call:
                        yield f"the call {call.id} of {call.function_id} is in one table of the ledger only"
                    if call.state.is_final:
                        yield f"the call {call.id} of {call.function_id} has ended, and is still in the ledger"

    def _tell(self, promise: str, text: str, fields: dict[str, str]) -> None:
        if promise not in self._seen:
            self._seen.add(promise)
            text = f"a promise of this engine is broken ({promise}): {text}"
            self._log(logging.ERROR, text, **fields)
            self._note_error(text)
