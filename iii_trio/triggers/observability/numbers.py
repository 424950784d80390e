"""The numbers of the engine and of its queues: for `engine::metrics::list`, for `GET /metrics` and for a collector."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

import msgspec
import trio

from ...errors import IIIError
from ...observed import Measured
from ...worker import Worker
from .export import Export
from .recorder import Recorder
from .records import BASE_BYTES, Resource, Scope, StoredPoint

_MAX_QUEUES: Final = 100
"""Queues and topics that are told apart. Workers choose their names, so all others are one."""
OTHERS: Final = "(others)"
_SCOPE: Final = Scope("iii_trio")


class QueueRow(msgspec.Struct, frozen=True):
    """The numbers of a queue or topic, as `engine::queue::list` has them."""

    name: str
    kind: str
    depth: int = 0
    running: int = 0
    delayed: int = 0
    dead: int = 0
    done_per_second: float = 0.0
    oldest_seconds: float | None = None
    calls: int = 0
    overruns: int = 0


class Commits(msgspec.Struct, frozen=True):
    """The writing of the queue's store."""

    count: int = 0
    median_seconds: float | None = None
    max_seconds: float | None = None


class QueueNumbers(msgspec.Struct, frozen=True):
    """An answer of `engine::queue::list`. It is empty where there is no queue."""

    queues: list[QueueRow] = msgspec.field(default_factory=list)
    commits: Commits = msgspec.field(default_factory=Commits)


async def read_queues(worker: Worker) -> QueueNumbers:
    """Ask for the numbers of all queues. If cancelled: nothing has changed."""
    try:
        return await worker.trigger("engine::queue::list", {}, into=QueueNumbers)
    # Without a queue there is nothing to tell, and another queue worker may answer otherwise.
    except IIIError:
        return QueueNumbers()


class QueueLabels:
    """The queues that are told apart: the first hundred that were seen."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], None] = {}

    def measured(self, numbers: QueueNumbers) -> list[Measured]:
        """Return the metrics of queues."""
        rows = self._bounded(numbers.queues)

        def each(field: str) -> list[tuple[dict[str, str], float]]:
            values = [(row, getattr(row, field)) for row in rows]
            return [({"queue": row.name, "kind": row.kind}, value) for row, value in values if value is not None]

        states = [
            ({"queue": row.name, "kind": row.kind, "state": state}, float(getattr(row, field)))
            for row in rows
            for state, field in (("open", "depth"), ("running", "running"), ("delayed", "delayed"), ("dead", "dead"))
        ]
        commits = numbers.commits
        found = [
            Measured("iii.queue.jobs", "gauge", "Jobs by state. `open` ones are neither done nor dead.", states),
            Measured(
                "iii.queue.oldest_seconds", "gauge", "The age of the oldest open job.", each("oldest_seconds"), "s"
            ),
            Measured("iii.queue.done_per_second", "gauge", "Jobs that are done each second.", each("done_per_second")),
            Measured("iii.queue.attempts", "sum", "Attempts that were begun, retries too.", each("calls")),
            Measured("iii.queue.overruns", "sum", "Attempts that took much longer than usual.", each("overruns")),
            Measured("iii.queue.commits", "sum", "Commits of the store.", [({}, commits.count)]),
        ]
        lengths = [
            ({"of": name}, seconds)
            for name, seconds in (("median", commits.median_seconds), ("max", commits.max_seconds))
            if seconds is not None
        ]
        text = "How long the last hundred commits took."
        return [*found, Measured("iii.queue.commit_seconds", "gauge", text, lengths, "s")]

    def _bounded(self, rows: Iterable[QueueRow]) -> list[QueueRow]:
        kept: list[QueueRow] = []
        folded: dict[str, QueueRow] = {}
        for row in rows:
            key = (row.kind, row.name)
            if key in self._known or len(self._known) < _MAX_QUEUES:
                self._known[key] = None
                kept.append(row)
            else:
                folded[row.kind] = _sum(folded.get(row.kind, QueueRow(OTHERS, row.kind)), row)
        return [*kept, *folded.values()]


def _sum(one: QueueRow, other: QueueRow) -> QueueRow:
    ages = [row.oldest_seconds for row in (one, other) if row.oldest_seconds is not None]
    added = ("depth", "running", "delayed", "dead", "done_per_second", "calls", "overruns")
    return QueueRow(
        OTHERS,
        one.kind,
        oldest_seconds=max(ages, default=None),
        **{field: getattr(one, field) + getattr(other, field) for field in added},
    )


def engine_measured(counts: Mapping[str, Any]) -> list[Measured]:
    """Return the metrics of calls and workers, out of what `engine::statistics` answers, in iii's names."""
    calls = counts["calls_ended"]
    invocations = [
        ({"function_id": function_id, "status": status}, float(number))
        for function_id, (total, failed) in calls["by_function"].items()
        for status, number in (("ok", total - failed), ("error", failed))
    ]
    return [
        Measured("iii.invocations.total", "sum", "Calls that ended, by function.", invocations),
        Measured("iii.invocations.deferred", "sum", "Calls that were made into jobs.", [({}, calls["enqueued"])]),
        Measured("iii.workers.active", "gauge", "Workers that are connected.", [({}, counts["sessions"])]),
        Measured("iii.workers.spawns.total", "sum", "Workers that have connected.", [({}, calls["sessions_started"])]),
        Measured("iii.workers.deaths.total", "sum", "Workers that have left.", [({}, calls["sessions_ended"])]),
    ]


def lost_measured(lost: Mapping[str, int]) -> Measured:
    """Return the metric of the records that were lost for a collector."""
    text = "Records that a collector did not get."
    return Measured("iii.telemetry.lost", "sum", text, [({"signal": name}, count) for name, count in lost.items()])


def to_points(found: Iterable[Measured], now_ns: int, resource: Resource) -> list[StoredPoint]:
    """Return metrics as measurements of the engine."""
    return [
        StoredPoint(
            metric.name,
            metric.kind,
            metric.unit,
            now_ns,
            value,
            None,
            dict(labels),
            resource,
            BASE_BYTES,
            is_monotonic=metric.kind == "sum",
            scope=_SCOPE,
        )
        for metric in found
        for labels, value in metric.values
    ]


@final
class Numbers:
    """The numbers of an engine, for `GET /metrics` and for a collector."""

    def __init__(self, worker: Worker, recorder: Recorder, exports: Mapping[str, Export]) -> None:
        self._worker = worker
        self._recorder = recorder
        self._exports = exports
        self._labels = QueueLabels()

    async def of_queues(self) -> list[Measured]:
        """Return what the page of the engine does not count itself. If cancelled: nothing has changed."""
        found = self._labels.measured(await read_queues(self._worker))
        if self._exports:
            found.append(lost_measured({name: export.lost for name, export in self._exports.items()}))
        return found

    async def export(self) -> None:
        """Give all numbers to the export of measurements. If cancelled: none of them, or all."""
        counts = await self._worker.trigger("engine::statistics", {"calls": True})
        found = [*engine_measured(counts), *await self.of_queues()]
        recorder = self._recorder
        for point in to_points(found, recorder.now_ns, recorder.resource):
            self._exports["metrics"].put(point)

    async def keep_exporting(self, seconds: float) -> None:
        """Export all numbers again and again. If cancelled: it stops."""
        while True:
            await trio.sleep(seconds)
            # The engine may be draining, and the next time is soon.
            with contextlib.suppress(IIIError):
                await self.export()

    async def export_last(self, seconds: float) -> None:
        """Export all numbers once more, within so many seconds. If cancelled: it goes on within them."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds), contextlib.suppress(IIIError):
            await self.export()
