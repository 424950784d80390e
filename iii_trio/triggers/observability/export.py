"""Export to a collector by OpenTelemetry's own exporters, in a thread for each kind of records.

The event loop only puts records into a bounded queue. A collector that is slow or gone fills the queue, what does not fit is
lost for it and counted, and nothing waits. The threads are daemons, so they cannot keep the process from its end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Final, final

from ...report import ContainedLogger
from .bounded import Sized
from .exporters import OtelExporter, Signal
from .settings import ExportSettings

_REPORT_EVERY: Final = 60.0
"""Seconds between two lines about a collector that does not take records."""


@final
class Export:
    """A bounded queue of records of one kind, and the thread that sends them."""

    def __init__(
        self, signal: Signal, exporter: OtelExporter, settings: ExportSettings, logger: ContainedLogger
    ) -> None:
        self._signal = signal
        self._exporter = exporter
        self._settings = settings
        self._logger = logger
        self._waiting: deque[Sized] = deque()
        self._bytes = 0
        self._work = threading.Condition()
        self._closing = False
        self._reported_at = -_REPORT_EVERY
        self.sent = 0
        self.lost = 0
        """Records that did not fit into the queue, or that the collector did not take."""
        self.failed = False
        """Whether the last request failed."""
        self._thread = threading.Thread(target=self._run, name=f"iii-trio otlp {signal.name}", daemon=True)
        self._thread.start()

    def put(self, record: Sized) -> None:
        """Queue a record. It is lost if the queue is full."""
        # The thread holds the lock only to look at the queue, and never while it sends.
        with self._work:
            waiting = len(self._waiting)
            is_full = waiting >= self._settings.queue_records or self._bytes + record.size > self._settings.queue_bytes
            # One record may always wait, however large.
            if is_full and waiting:
                self.lost += 1
                return
            self._waiting.append(record)
            self._bytes += record.size
            # The first one wakes the thread, and a whole batch ends its pause. All others wake nothing.
            if waiting in (0, self._settings.batch_records - 1):
                self._work.notify()

    def status(self) -> dict[str, Any]:
        """Return the numbers of records that were sent, lost and wait."""
        return {
            "exporting": True,
            "sent": self.sent,
            "lost": self.lost,
            "waiting": len(self._waiting),
            "failed": self.failed,
        }

    def close(self) -> None:
        """Have the thread send what waits and end. Does not wait for it."""
        with self._work:
            self._closing = True
            self._work.notify()

    def join(self) -> None:
        """Wait for the end of the thread, for as long as the settings allow, then abandon it. Blocks."""
        self._thread.join(self._settings.goodbye_seconds)
        # The exporter sleeps between repetitions, and this interrupts it.
        threading.Thread(target=self._exporter.shutdown, name="iii-trio otlp end", daemon=True).start()

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._send(batch)
        except Exception as error:
            self.failed = True
            self._logger.error("the export of %s ended, because it failed", self._signal.name, exc_info=error)

    def _next_batch(self) -> list[Sized]:
        """Wait for records, and a little longer for more of them. An empty batch means that there will be none."""
        with self._work:
            self._work.wait_for(lambda: self._waiting or self._closing)
            if not self._closing and len(self._waiting) < self._settings.batch_records:
                self._work.wait(self._settings.batch_seconds)
            # After a pause several batches wait, and each request has a bounded size.
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._settings.batch_records))]
            self._bytes -= sum(record.size for record in batch)
            return batch

    def _send(self, batch: list[Sized]) -> None:
        try:
            taken = self._exporter.export(self._signal.convert(batch)).value == 0
            problem: object = "it did not take them"
        # The exporters raise for addresses that are none, and for headers that it cannot send.
        except Exception as error:
            taken, problem = False, error
        self.failed = not taken
        if taken:
            self.sent += len(batch)
            return
        self.lost += len(batch)
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_EVERY:
            self._reported_at = now
            self._logger.warning("%d %s were lost for the collector: %s", len(batch), self._signal.records, problem)


NOT_EXPORTING: Final[dict[str, Any]] = {"exporting": False, "sent": 0, "lost": 0, "waiting": 0, "failed": False}
"""The status of an export that there is not."""
