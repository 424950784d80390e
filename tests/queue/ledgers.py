"""Ledgers, lanes and jobs without an engine, for tests of decisions."""

from __future__ import annotations

from iii_trio import QueueConfig, QueueSettings
from iii_trio.triggers.queue.lane import Job, Lane
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.protocol import NO_OPTIONS, JobOptions
from iii_trio.triggers.queue.record import Options, Progress, Record, Timestamp
from iii_trio.triggers.queue.states import JOB, JobState

CALLED = ("default", "f")


def at(now: float, wall_ms: int | None = None) -> Timestamp:
    """Return a point in time. Both clocks show the same, unless the calendar's is given."""
    return Timestamp(now, round(now * 1000) if wall_ms is None else wall_ms)


def ledger_of(jitter: float = 1.0, **queues: QueueSettings) -> Ledger:
    """Make a ledger with these queues."""
    return Ledger(QueueConfig(queues), lambda: jitter)


def queue_of(ledger: Ledger, name: str = "mail") -> Lane:
    """Return a queue that is configured."""
    lane = ledger.lanes.queue(name)
    assert lane is not None
    return lane


def admitted(
    ledger: Ledger,
    job_id: str,
    lane: Lane | None = None,
    *,
    now: float = 0.0,
    function: tuple[str, str] = CALLED,
    data: bytes = b"{}",
    group: str | None = None,
    metadata: bytes | None = None,
    options: JobOptions = NO_OPTIONS,
) -> Job:
    """Have a job come that is not stored yet."""
    lane = lane or queue_of(ledger)
    return ledger.admit(
        lane, job_id, function, data, at(now), group=group, metadata=metadata, options=options
    )  # fmt: skip


def stored(
    ledger: Ledger,
    job_id: str,
    lane: Lane | None = None,
    *,
    now: float = 0.0,
    function: tuple[str, str] = CALLED,
    data: bytes = b"{}",
    group: str | None = None,
    options: JobOptions = NO_OPTIONS,
) -> Job:
    """Have a job come that the store takes at once."""
    job = admitted(ledger, job_id, lane, now=now, function=function, data=data, group=group, options=options)
    ledger.stored(job, at(now))
    return job


def started(ledger: Ledger, now: float = 0.0) -> list[str]:
    """Start what may start. Return the ids."""
    return [job.record.id for job in ledger.lease(at(now))]


def is_done(ledger: Ledger, job: Job, now: float = 0.0) -> None:
    """End a running job well."""
    ledger.succeeded(job, at(now))
    ledger.erased(job)


def dies(ledger: Ledger, job: Job, now: float = 0.0) -> list[Job]:
    """Make a running job a dead letter. Return those that are too many."""
    ledger.give_up(job, "code", "message", at(now))
    return ledger.dead_lettered(job)


def record(
    key: int,
    *,
    position: int | None = None,
    lane: str = '["queue","mail"]',
    group: str | None = None,
    priority: int = 1,
    progress: Progress | None = None,
    data: bytes | None = b"{}",
    created_at_ms: int = 0,
) -> Record:
    """Make a record of a job named by its key."""
    made = Record(
        key, key if position is None else position, f"job {key}", lane, "f", "default", data, created_at_ms, group=group
    )
    if progress is not None:
        made.progress = progress
    if priority != 1:
        made.options = Options(priority)
    return made


def lane_of(name: str = "mail", *, topic: bool = False, **settings: object) -> Lane:
    """Make a lane by itself."""
    key = LaneKey("topic", name, *CALLED) if topic else LaneKey("queue", name)
    return Lane(key, QueueSettings(**settings))  # type: ignore[arg-type]


def in_lane(
    lane: Lane, key: int, *, group: str | None = None, priority: int = 1, state: JobState = JobState.READY
) -> Job:
    """Put a job into a lane by itself."""
    job = Job(JOB, state, record(key, lane=lane.text, group=group, priority=priority), lane, 2, 2)
    lane.state_counts[state] += 1
    lane.join(job)
    return job
