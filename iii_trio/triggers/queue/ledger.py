"""All jobs, and every decision about them.

Synchronous, like the engine's hub. Events go in. Changes for the store, and the jobs that may start, come out.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, final

import msgspec

from ...state_machine import StateMachine
from .isolation import Isolation, is_suspect
from .lane import WAITING, Job, Lane
from .lane_key import LaneKey
from .lanes import Lanes
from .protocol import NO_OPTIONS, JobOptions
from .record import Record, Timestamp
from .settings import QueueConfig
from .states import JOB, JobEvent, JobState
from .store import Change, Damaged, Remove, Update
from .texts import MAX_CODE_BYTES, MAX_MESSAGE_BYTES, cut, is_json
from .timers import Timers
from .unique import UniqueKeys

WORKER_LOST: Final = "worker_lost"
_ROW_BYTES: Final = 256  # of a record on disk, beside its texts
_PAGE_BYTES: Final = 4096
_RECENT_JOBS: Final = 10_000


@final
class Ledger:
    """The queue's decisions. `jitter` returns the factor, at least 1, by which a pause is lengthened."""

    def __init__(self, config: QueueConfig, jitter: Callable[[], float]) -> None:
        self.config = config
        self.paused = False
        """Whether no job starts, because the engine takes no calls any more."""
        self.lanes = Lanes()
        self.unfinished = 0
        """The number of jobs that are neither done nor dead."""
        self.kept_bytes = 0
        """The size of all data and metadata in memory."""
        self.disk_bytes = 0
        """The space on disk that all jobs and dead letters take, about."""
        self._redriving = 0
        self._jitter = jitter
        self._next = 1
        self._by_id: dict[str, Job] = {}
        self.unique = UniqueKeys(self._by_id)
        self._recent: OrderedDict[str, bool] = OrderedDict()
        """The last jobs that are over, by id: whether each was done. Others were purged or cancelled."""
        self._timers = Timers()
        self._leased: dict[int, Job] = {}
        self._isolation = Isolation(self._leased)
        self._waiting_for_function: dict[tuple[str, str], dict[int, Job]] = {}
        """The functions that no worker has, and the jobs that wait for them."""
        self.reconfigure(config)

    def reconfigure(self, config: QueueConfig) -> None:
        """Use these queues and bounds from now on."""
        self.config = config
        self.lanes.reconfigure(config)
        for lane in self.lanes:
            self.withdraw(lane)  # other settings may have made a suspect an ordinary job

    @property
    def running(self) -> int:
        """The number of running jobs."""
        return sum(lane.running for lane in self.lanes)

    # --- arrivals

    def load(
        self, records: Iterable[Record | Damaged], settings: Mapping[str, bytes], timestamp: Timestamp
    ) -> list[Damaged]:
        """Take over jobs of an earlier engine, in their order. Return those that cannot be made sense of.

        Subscribers are to be remembered before. `settings` are those of lanes that nothing configures any more, by the
        texts of their keys. Call `loaded` at the end.
        """
        damaged = []
        for record in records:
            self._next = max(self._next, record.key + 1)
            if isinstance(record, Record):
                try:
                    self._load(record, settings, timestamp)
                    continue
                except ValueError as error:
                    record = Damaged(record.key, str(error))
            damaged.append(record)
        return damaged

    def _load(self, record: Record, settings: Mapping[str, bytes], timestamp: Timestamp) -> None:
        if record.data is None or not is_json(record.data):
            raise ValueError("its data is no JSON")
        lane = self.lanes.get(record.lane)
        if lane is None:
            key = LaneKey.parse(record.lane)
            lane = self.lanes.open(key)
            lane.known = False  # its jobs are still to be done
            if (description := settings.get(record.lane)) is not None:
                lane.restore(description)
        self._next = max(self._next, record.position + 1)
        job = self._enter(record, lane)
        if record.died_at_ms is not None:
            job.state = StateMachine(JOB, JobState.DEAD)
            lane.state_counts[JobState.STORING] -= 1
            lane.state_counts[JobState.DEAD] += 1
            self._count_unfinished(lane, -1)
            self._release_payload(job)
            lane.dead[record.key] = job
        else:
            job.due = timestamp.now + self._pause_left(job, timestamp)
            if record.unique_key is not None:
                age = max(0.0, (timestamp.wall_ms - record.created_at_ms) / 1000)
                self.unique.take(job, timestamp.now, age)
            self.stored(job, timestamp)

    def loaded(self) -> None:
        """End the loading: put the dead letters into the order of their deaths."""
        for lane in self.lanes:
            lane.dead = dict(sorted(lane.dead.items(), key=lambda item: item[1].record.died_at_ms or 0))

    def find(self, job_id: str) -> Job | None:
        """Return the job with this id, a dead letter too. None if there is none."""
        return self._by_id.get(job_id)

    def was_done(self, job_id: str) -> bool:
        """Whether a job with this id was done of late, or removed before."""
        return job_id in self._recent

    def recent_end(self, job_id: str) -> str | None:
        """Return `done` or `removed` for a job that has ended of late, else None."""
        done = self._recent.get(job_id)
        return None if done is None else "done" if done else "removed"

    def no_room(self, lanes: Sequence[Lane], size: int) -> str | None:
        """Return why there is no room for a job of this size in each of these lanes, or None if there is."""
        config = self.config
        jobs = self.unfinished + self._redriving
        if jobs + len(lanes) > config.jobs:
            return f"there are {jobs} jobs that are not done, and at most {config.jobs} may be"
        for lane in lanes:
            if self.room_in(lane) < 1:
                who = lane.key.name
                if lane.key.kind == "topic":
                    who = f"{lane.key.function_id}, a subscriber of {who}"
                return (
                    f"{lane.unfinished + lane.redriving} jobs of {who} are not done, and at most "
                    f"{lane.settings.max_jobs} may be (max_jobs)"
                    + ("; if it does not come back, unsubscribe it or purge its jobs" if lane.listeners == 0 else "")
                    * (lane.key.kind == "topic")
                )
        bound = config.disk_bytes
        if bound is not None and self.disk_bytes + len(lanes) * _on_disk(size) > bound:
            return f"the jobs take {self.disk_bytes} bytes on disk, and may take at most {bound} (disk_bytes)"
        return None

    @property
    def room(self) -> int:
        """How many more jobs there may be in all lanes together."""
        return max(0, self.config.jobs - self.unfinished - self._redriving)

    def room_in(self, lane: Lane) -> float:
        """Return how many more jobs may be in a lane."""
        room: float = self.room
        if lane.settings.max_jobs is not None:
            room = min(room, lane.settings.max_jobs - lane.unfinished - lane.redriving)
        return max(0.0, room)

    def admit(
        self,
        lane: Lane,
        job_id: str,
        function: tuple[str, str],
        data: bytes,
        timestamp: Timestamp,
        *,
        group: str | None = None,
        traceparent: str | None = None,
        baggage: str | None = None,
        metadata: bytes | None = None,
        options: JobOptions = NO_OPTIONS,
    ) -> Job:
        """Make a new job, which is yet to be stored. Call `stored` or `refused` then."""
        key, self._next = self._next, self._next + 1
        delay = options.delay_from(timestamp.wall_ms)
        if delay is None:
            delay = lane.settings.delay_seconds
        record = Record(
            key=key,
            position=key,
            id=job_id,
            lane=lane.text,
            namespace=function[0],
            function_id=function[1],
            data=data,
            created_at_ms=timestamp.wall_ms,
            group=group,
            traceparent=traceparent,
            baggage=baggage,
            metadata=metadata,
            due_ms=timestamp.wall_at(timestamp.now + delay) if delay else None,
            pause_ms=round(delay * 1000) if delay else None,
            priority=options.priority,
        )
        if options is not NO_OPTIONS:
            record.unique_key = options.unique_key
            record.unique_ms = _milliseconds(options.unique_seconds)
            record.keep_result_ms = _milliseconds(options.keep_result_seconds)
        job = self._enter(record, lane)
        job.due = timestamp.now + delay
        if record.unique_key is not None:
            self.unique.take(job, timestamp.now)
        return job

    def stored(self, job: Job, timestamp: Timestamp) -> None:
        """Put a job that the store has into its line."""
        self._release_payload(job, unless_room=True)
        if job.due > timestamp.now:
            job.lane.advance(job, JobEvent.STORED_WITH_DELAY)
            self._timers.set(job, job.due)
        else:
            job.lane.advance(job, JobEvent.STORED)
        job.lane.join(job)
        self.lanes.wake(job.lane)

    def refused(self, job: Job) -> None:
        """Remove a job that the store does not take."""
        job.lane.advance(job, JobEvent.NOT_STORED)
        self._over(job)

    # --- turns

    def lease(self, timestamp: Timestamp, may_start: Callable[[], bool] = lambda: True) -> Iterator[Job]:
        """Iterate over the jobs that start now, as long as `may_start`. The result of each is to be told."""
        while not self.paused and may_start() and (lane := self.lanes.next_awake()) is not None:
            while lane.may_start:
                if not may_start():
                    self.lanes.wake(lane)
                    break
                if lane.key.kind == "topic" and lane.key.subscriber in self._waiting_for_function:
                    break
                job = lane.pop()
                if job.current_state is not JobState.READY:  # it was purged
                    continue
                if job.function in self._waiting_for_function:
                    self._park(job, timestamp)
                    continue
                if (self._isolation.active or is_suspect(job)) and not self._isolation.may_start(job):
                    lane.held.append(job)
                    continue
                lane.advance(job, JobEvent.LEASED)
                lane.running += 1
                self._leased[job.record.key] = job
                job.timeout = lane.settings.visibility_timeout_seconds
                if job.timeout is None:
                    job.due = math.inf
                else:
                    self._timers.set(job, timestamp.now + job.timeout)
                yield job

    def succeeded(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """End a job that was done. Call `erased` when the store has removed it."""
        self._end_attempt(job, JobEvent.SUCCEEDED)
        job.lane.done.count(timestamp.now)
        return [Remove(job.record.key)]

    def failed(self, job: Job, code: str, message: str, timestamp: Timestamp) -> list[Change]:
        """Note a failed attempt: a pause follows, or the job is a dead letter."""
        record = job.record
        record.attempts += 1
        record.code, record.message = cut(code, MAX_CODE_BYTES), cut(message, MAX_MESSAGE_BYTES)
        if record.attempts >= job.lane.settings.max_attempts:
            return self._die(job, timestamp)
        return self._delay(job, JobEvent.FAILED, self._pause(job, record.attempts), timestamp)

    def give_up(self, job: Job, code: str, message: str, timestamp: Timestamp) -> list[Change]:
        """Make a running job a dead letter, because another attempt cannot end otherwise."""
        job.record.code, job.record.message = cut(code, MAX_CODE_BYTES), cut(message, MAX_MESSAGE_BYTES)
        return self._die(job, timestamp)

    def lost(self, jobs: Sequence[Job], message: str, timestamp: Timestamp) -> list[tuple[Job, list[Change]]]:
        """Note that these jobs were lost together with their worker. Return the changes of each.

        No attempt is used up. The loss is counted, because one of the jobs may have caused it.
        """
        if len(jobs) > 1:
            self._isolation.lost_together(job.function for job in jobs)
        return [(job, self._lose(job, message, timestamp, alone=len(jobs) == 1)) for job in jobs]

    def _lose(self, job: Job, message: str, timestamp: Timestamp, *, alone: bool) -> list[Change]:
        record, limit = job.record, job.lane.settings.max_lost_deliveries
        record.lost += 1
        if not alone and limit > 1:
            record.lost = min(record.lost, limit - 1)  # any of them may have done it: the last loss is had alone (Q16)
        if record.lost >= limit:
            record.code, record.message = WORKER_LOST, cut(message, MAX_MESSAGE_BYTES)
            return self._die(job, timestamp)
        if record.lost == 1:
            self.returned(job)
            return [self._update(job)]
        return self._delay(job, JobEvent.LOST_AGAIN, self._pause(job, record.lost - 1), timestamp)

    def returned(self, job: Job) -> None:
        """Make a job ready again that was not tried to its end, which costs it nothing."""
        self._end_attempt(job, JobEvent.RETURNED)
        self._line_up(job)

    def postponed(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """Delay a job that its worker does not take just now. No attempt is used up."""
        return self._delay(job, JobEvent.POSTPONED, max(0.1, self._pause(job, 1)), timestamp)

    def erased(self, job: Job) -> None:
        """Remove a job that the store has removed."""
        if job.record.died_at_ms is None:
            self._recent[job.record.id] = job.current_state is JobState.FINISHING
            if len(self._recent) > _RECENT_JOBS:
                self._recent.popitem(last=False)
        job.lane.advance(job, JobEvent.ERASED)
        self._over(job)

    def dead_lettered(self, job: Job) -> list[Job]:
        """Note that the store has a job as a dead letter. Return the oldest ones that are too many now."""
        lane = job.lane
        lane.advance(job, JobEvent.DEAD_LETTERED)
        self._leave(job)
        self._release_payload(job)
        lane.dead[job.record.key] = job
        too_many = lane.state_counts[JobState.DEAD] - lane.settings.dead_letters
        return list(itertools.islice(lane.dead_letters(), max(0, too_many)))

    # --- functions that no worker has

    def missing(self, job: Job, timestamp: Timestamp) -> None:
        """Have a job wait for a worker with its function."""
        self._waiting_for_function.setdefault(job.function, {})
        self._park(job, timestamp)

    @property
    def missing_functions(self) -> list[tuple[str, str]]:
        """The functions that jobs wait for."""
        return list(self._waiting_for_function)

    def function_came(self, function: tuple[str, str]) -> None:
        """Make the jobs ready that waited for this function, because a worker may have it now."""
        for job in self._waiting_for_function.pop(function, {}).values():
            job.lane.advance(job, JobEvent.FUNCTION_CAME)
            self._line_up(job)
        self.lanes.wake_subscribers(function)

    # --- dead letters, and jobs that are not wanted

    def redrive(self, job: Job, function: tuple[str, str] | None = None) -> list[Change]:
        """Make a dead letter a job again, maybe of another function.

        Call `redriven` when the store has it, or `still_dead` if it refuses.
        """
        position, self._next = self._next, self._next + 1
        job.redriven = msgspec.structs.replace(
            job.record,
            position=position,
            attempts=0,
            lost=0,
            due_ms=None,
            pause_ms=None,
            died_at_ms=None,
            code=None,
            message=None,
        )
        if function is not None:
            job.redriven.namespace, job.redriven.function_id = function
        self._redriving += 1
        job.lane.redriving += 1
        job.lane.advance(job, JobEvent.REDRIVEN)
        return [Update(job.redriven)]

    def redriven(self, job: Job) -> None:
        """Put a former dead letter at the end of its line, with all its attempts."""
        assert job.redriven is not None
        del job.lane.dead[job.record.key]
        self._end_redriving(job)
        job.record, job.redriven = job.redriven, None
        self._count_unfinished(job.lane, 1)
        job.lane.advance(job, JobEvent.STORED)
        job.lane.join(job)
        self.lanes.wake(job.lane)

    def discard(self, job: Job) -> list[Change]:
        """Discard a dead letter. Call `erased` when the store has removed it, or `still_dead` if it refuses."""
        job.lane.advance(job, JobEvent.DISCARDED)
        return [Remove(job.record.key)]

    def still_dead(self, job: Job) -> None:
        """Keep a dead letter, because the store refuses the change."""
        if job.redriven is not None:
            self._end_redriving(job)
            job.redriven = None
        job.lane.advance(job, JobEvent.NOT_STORED)

    def purge(self, lane: Lane) -> list[Job]:
        """Take all waiting jobs out of a lane, not those that run. Return them. Call `erased` for each later."""
        purged = [job for job in lane.jobs.values() if job.current_state in WAITING]
        for job in purged:
            if job.current_state is JobState.WAITING_FOR_FUNCTION:
                self._unpark(job)
            lane.advance(job, JobEvent.PURGED)
        lane.held = []
        self.withdraw(lane)
        return purged

    def cancel(self, job: Job) -> list[Change]:
        """Take one job out, which waits or runs. Stop its attempt yourself. Call `erased` when the store has removed it."""
        if job.current_state is JobState.WAITING_FOR_FUNCTION:
            self._unpark(job)
        self._end_attempt(job, JobEvent.PURGED)
        self.withdraw(job.lane)
        return [Remove(job.record.key)]

    def kept_after_all(self, job: Job, timestamp: Timestamp) -> None:
        """Put a job back that was cancelled, because the store refuses the job that was to replace it."""
        if job.record.unique_key is not None:
            self.unique.take(job, timestamp.now)
        left = self._pause_left(job, timestamp)
        job.lane.advance(job, JobEvent.STORED_WITH_DELAY if left > 0 else JobEvent.STORED)
        if left > 0:
            self._timers.set(job, timestamp.now + left)
        self._line_up(job)

    def pause(self, lane: Lane, paused: bool) -> None:
        """Pause or resume a lane. Its pause is kept by the store (Q25)."""
        lane.pause(paused)
        if paused:
            self.withdraw(lane)
        else:
            self.lanes.wake(lane)

    def withdraw(self, lane: Lane) -> None:
        """Have no other job wait for a suspect of this lane, because it does not start now."""
        if self._isolation.withdraw(lane):
            self.lanes.release_held()

    # --- time

    def next_due(self) -> float | None:
        """Return the time at which `tick` has something to do, or None if never."""
        return self._timers.next_due()

    def tick(self, timestamp: Timestamp) -> list[tuple[Job, list[Change]]]:
        """Do what is due. Return the jobs whose attempts have ended, each with its changes."""
        moved = []
        for job in self._timers.due(timestamp.now):
            if job.current_state is JobState.DELAYED:
                job.lane.advance(job, JobEvent.DUE)
                self._line_up(job)
            elif job.current_state is JobState.LEASED:
                why = f"the attempt took longer than {job.timeout:g} s"
                moved.append((job, self.failed(job, "visibility_timeout", why, timestamp)))
            else:
                self._unpark(job)
                namespace, function_id = job.function
                why = f"Function {function_id} not found in namespace {namespace}"
                moved.append((job, self.failed(job, "function_not_found", why, timestamp)))
        return moved

    # --- inside

    def _enter(self, record: Record, lane: Lane) -> Job:
        size = len(record.data or b"")
        held = size + len(record.metadata or b"")
        job = Job(record, lane, size, held, _on_disk(held))
        lane.state_counts[JobState.STORING] += 1
        self._count_unfinished(lane, 1)
        self.kept_bytes += held
        self.disk_bytes += job.disk_bytes
        self._by_id.setdefault(record.id, job)
        return job

    def _count_unfinished(self, lane: Lane, change: int) -> None:
        self.unfinished += change
        lane.unfinished += change

    def _end_redriving(self, job: Job) -> None:
        self._redriving -= 1
        job.lane.redriving -= 1

    def _over(self, job: Job) -> None:
        if job.record.died_at_ms is None:
            self._leave(job)
        else:
            job.lane.dead.pop(job.record.key, None)
        self._release_payload(job)
        self.disk_bytes -= job.disk_bytes
        if self._by_id.get(job.record.id) is job:
            del self._by_id[job.record.id]
        self.lanes.drop_if_empty(job.lane)

    def _leave(self, job: Job) -> None:
        """Take a job out of its line."""
        self._count_unfinished(job.lane, -1)
        if job.record.position in job.lane.jobs:
            job.lane.leave(job)
            self.lanes.wake(job.lane)

    def _line_up(self, job: Job) -> None:
        job.lane.line_up(job)
        self.lanes.wake(job.lane)

    def _end_attempt(self, job: Job, event: JobEvent) -> None:
        """Move a job on, and free its place if it was running."""
        leased = job.current_state is JobState.LEASED
        job.lane.advance(job, event)
        if leased:
            job.lane.running -= 1
            del self._leased[job.record.key]
            if self._isolation.ended(job):
                self.lanes.release_held()
            self.lanes.wake(job.lane)

    def _delay(self, job: Job, event: JobEvent, pause: float, timestamp: Timestamp) -> list[Change]:
        self._end_attempt(job, event)
        self._timers.set(job, timestamp.now + pause)
        job.record.due_ms = timestamp.wall_at(job.due)
        job.record.pause_ms = round(pause * 1000)
        return [self._update(job)]

    def _die(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """Make a job a dead letter. Call `dead_lettered` when the store has it so."""
        job.record.died_at_ms = timestamp.wall_ms
        job.record.due_ms = job.record.pause_ms = None
        self._end_attempt(job, JobEvent.GAVE_UP)
        return [self._update(job)]

    def _park(self, job: Job, timestamp: Timestamp) -> None:
        self._end_attempt(job, JobEvent.FUNCTION_MISSING)
        self._waiting_for_function[job.function][job.record.key] = job
        patience = job.lane.settings.missing_function_seconds
        if patience is not None and job.lane.key.kind == "queue":
            self._timers.set(job, timestamp.now + patience)

    def _unpark(self, job: Job) -> None:
        waiting = self._waiting_for_function[job.function]
        del waiting[job.record.key]
        if not waiting:
            del self._waiting_for_function[job.function]
            self.lanes.wake_subscribers(job.function)  # they are to find out by themselves

    def _update(self, job: Job) -> Update:
        return Update(msgspec.structs.replace(job.record, data=None, metadata=None))

    def _release_payload(self, job: Job, *, unless_room: bool = False) -> None:
        """Drop the payload from memory, because it is on disk; with `unless_room` only where memory is short."""
        if job.record.data is None or (unless_room and self.kept_bytes <= self.config.memory_bytes):
            return
        self.kept_bytes -= job.held_bytes
        job.record.data = job.record.metadata = None

    def _pause(self, job: Job, failures: int) -> float:
        return job.lane.settings.pause_seconds(failures, self._jitter())

    def _pause_left(self, job: Job, timestamp: Timestamp) -> float:
        """Return the rest of a pause that began under an earlier engine.

        It is never longer than the whole pause was, whatever the calendar's clock shows now (Q18).
        """
        record = job.record
        if record.due_ms is None:
            return 0.0
        longest = math.inf if record.pause_ms is None else record.pause_ms / 1000
        return min((record.due_ms - timestamp.wall_ms) / 1000, longest)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _on_disk(size: int) -> int:
    """Return the space on disk that a job with a payload of this size takes, about. Large ones have pages of their own."""
    size += _ROW_BYTES
    return size if size < _PAGE_BYTES else math.ceil(size / _PAGE_BYTES) * _PAGE_BYTES
