"""The trigger types `log` and `trace` (builtin-workers 13.5).

A binding to `log` is called with each line of one level, and a binding to `trace` with the ids of the traces that have
new spans. Both have bounded queues, which drop what does not fit, so a slow function delays nothing.
"""

# Annotations are not texts here, because a start reads them and would compile each text.

import math
from collections import deque
from typing import Any, Final, Literal, final

import trio

from ...errors import CallError, ConnectionFailed
from ...structure import FunctionInput
from ...worker import BoundTrigger
from .bounded import Bounded
from .recorder import Recorder
from .records import STATUS, StoredLog, StoredSpan
from .rows import log_row

_MAX_LINES: Final = 1024
"""Lines that wait for a binding. The oldest ones are dropped."""
_MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_TRACES: Final = 1024
_GATHER_SECONDS: Final = 0.3
_LOWEST: Final = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17}


class LogTriggerConfig(FunctionInput, frozen=True):
    """The configuration of a binding to `log`. The level is exact, and no minimum."""

    level: Literal["all", "trace", "debug", "info", "warn", "error"] = "all"


class TraceTriggerConfig(FunctionInput, frozen=True):
    """The configuration of a binding to `trace`. Both have to match, in any case of letters."""

    service_name: str | None = None
    status: str | None = None


class _Mailbox:
    """What waits for one binding."""

    def __init__(self, items: Any) -> None:
        self.items = items
        self._arrived = trio.Event()

    def put(self, item: Any) -> None:
        self.items.append(item)
        self._arrived.set()

    async def wait(self) -> None:
        """Wait until there is something. If cancelled: nothing is lost."""
        await self._arrived.wait()
        self._arrived = trio.Event()


async def _call(bound: BoundTrigger, payload: Any) -> None:
    try:
        await bound.fire(payload)
    # A function that fails, or is missing, must not end its binding. A line about it could call it again for ever.
    except (CallError, ConnectionFailed):
        return


@final
class LogTrigger:
    """Calls a function with each line that is logged."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def serve(self, bound: BoundTrigger, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve one binding. If cancelled: it is over."""
        config: LogTriggerConfig = bound.config or LogTriggerConfig()
        low, high = 0, math.inf
        if config.level != "all":
            low = _LOWEST[config.level]
            high = low + 3 if config.level != "error" else math.inf
        # The level is exact. Each name stands for four numbers of OTLP.
        mailbox = _Mailbox(Bounded[StoredLog](_MAX_LINES, _MAX_BYTES))

        def take(line: StoredLog) -> None:
            if low <= line.severity <= high:
                mailbox.put(line)

        self._recorder.on_log.append(take)
        try:
            task_status.started()
            while True:
                await mailbox.wait()
                while mailbox.items:
                    await _call(bound, log_row(mailbox.items.popleft()))
        finally:
            self._recorder.on_log.remove(take)


@final
class TraceTrigger:
    """Calls a function with the ids of traces that have new spans."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def serve(self, bound: BoundTrigger, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve one binding. If cancelled: it is over."""
        config: TraceTriggerConfig = bound.config or TraceTriggerConfig()
        service, status = (config.service_name or "").lower(), (config.status or "").lower()
        mailbox = _Mailbox(deque[str](maxlen=_MAX_TRACES))

        def take(span: StoredSpan) -> None:
            # Spans of the engine itself would call the function for what the function has caused.
            if (
                not span.internal
                and (not service or span.resource.service.lower() == service)
                and (not status or STATUS[span.status] == status)
            ):
                mailbox.put(span.trace_id)

        self._recorder.on_span.append(take)
        try:
            task_status.started()
            while True:
                await mailbox.wait()
                await trio.sleep(_GATHER_SECONDS)  # one call for what belongs together
                if mailbox.items:
                    ids = list(dict.fromkeys(mailbox.items))
                    mailbox.items.clear()
                    await _call(bound, {"trace_ids": ids})
        finally:
            self._recorder.on_span.remove(take)
