"""All jobs, and every decision about them.

Synchronous, like the engine's hub. Events go in. Changes for the store, and the jobs that may start, come out.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from sys import intern
from typing import Final, final

from msgspec.structs import replace

from .isolation import Isolation, is_suspect
from .lane import WAITING, Job, Lane
from .lanes import Lanes
from .parked import ParkedJobs
from .protocol import NO_OPTIONS, JobOptions
from .record import NEW, Record, Timestamp
from .room import Room
from .settings import QueueConfig
from .states import JOB, JobEvent, JobState
from .store import Change, Remove, Update
from .timers import Timers
from .unique import UniqueKeys

WORKER_LOST: Final = "worker_lost"
_RECENT_JOBS: Final = 10_000
_PARKED_AT_ONCE: Final = 2_000  # a few milliseconds


@final
class Ledger:
    """The queue's decisions. `jitter` returns the factor, at least 1, by which a pause is lengthened."""

    def __init__(
        self, config: QueueConfig, jitter: Callable[[], float], belongs: Callable[[str], bool] = lambda name: True
    ) -> None:
        self.room = Room(config)
        self.paused = False
        """Whether no job starts, because the engine takes no calls any more."""
        self.lanes = Lanes(belongs)
        self._jitter = jitter
        self._next = 1
        self._by_id: dict[str, Job] = {}
        self.unique = UniqueKeys(self._by_id)
        self._recent: OrderedDict[str, bool] = OrderedDict()
        """The last jobs that are over, by id: whether each was done. Others were purged or cancelled."""
        self.timers = Timers()
        self._redriven: dict[int, Record] = {}
        """The records of dead letters as jobs again, while they are redriven."""
        self._leased: dict[int, Job] = {}
        self._timeouts: dict[int, float] = {}
        """How many seconds attempts under way may take, by job, where they have a limit."""
        self._isolation = Isolation(self._leased)
        self.parked = ParkedJobs()
        self._cut_short = False
        self.reconfigure(config)

    def reconfigure(self, config: QueueConfig) -> None:
        """Use these queues and bounds from now on."""
        self.room.config = config
        self.lanes.reconfigure(config)
        for lane in self.lanes:
            self.withdraw(lane)  # other settings may have made a suspect an ordinary job

    @property
    def running(self) -> int:
        """The number of running jobs."""
        return sum(lane.running for lane in self.lanes)

    # --- arrivals

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
        delay = None if options is NO_OPTIONS else options.delay_from(timestamp.wall_ms)
        if delay is None:
            delay = lane.settings.delay_seconds
        record = Record(
            key=key,
            position=key,
            id=job_id,
            lane=lane.text,
            namespace=intern(function[0]),
            function_id=intern(function[1]),
            data=data,
            created_at_ms=timestamp.wall_ms,
            group=group,
            traceparent=traceparent,
            baggage=baggage,
            metadata=metadata,
        )
        if delay:
            record.evolve(due_ms=timestamp.wall_at(timestamp.now + delay), pause_ms=round(delay * 1000))
        job = self.enter(record, lane, JobState.STORING)
        job.due = timestamp.now + delay if delay else timestamp.now  # one number for all jobs of one moment
        if options is not NO_OPTIONS:
            record.options = options.lasting
            if options.unique_key is not None:
                self.unique.take(job, timestamp.now)
        return job

    def stored(self, job: Job, timestamp: Timestamp) -> None:
        """Put a job that the store has into its line."""
        self.room.release_payload(job, unless_room=True)
        if job.due > timestamp.now:
            job.lane.advance(job, JobEvent.STORED_WITH_DELAY)
            self.timers.set(job, job.due)
        else:
            job.lane.advance(job, JobEvent.STORED)
        self._join(job)

    def refused(self, job: Job) -> None:
        """Remove a job that the store does not take."""
        job.lane.advance(job, JobEvent.NOT_STORED)
        self._over(job)

    # --- for the loader

    def skip_key(self, key: int) -> None:
        """Give new jobs keys behind this one."""
        self._next = max(self._next, key + 1)

    def enter(self, record: Record, lane: Lane, state: JobState) -> Job:
        """Take in a job in this state. It stands in no line yet."""
        size = 0 if record.data is None else len(record.data)
        held = size if record.metadata is None else size + len(record.metadata)
        job = Job(JOB, state, record, lane, size, held)
        lane.state_counts[state] += 1
        self.room.enter(job)
        self._by_id.setdefault(record.id, job)
        return job

    def displace(self, job: Job) -> None:
        """Cancel a waiting job whose id is to belong to another one."""
        del self._by_id[job.record.id]
        self.cancel(job)

    # --- turns

    def lease(self, timestamp: Timestamp, may_start: Callable[[], bool] = lambda: True) -> Iterator[Job]:
        """Iterate over the jobs that start now, as long as `may_start`. The result of each is to be told."""
        self._cut_short = False
        parked = 0
        self._return_parked()
        while not self.paused and may_start() and (lane := self.lanes.next_awake()) is not None:
            while lane.may_start:
                if not may_start():
                    self.lanes.wake(lane)
                    break
                if lane.key.kind == "topic" and self.parked.is_missing(lane.key.subscriber):
                    break
                job = lane.pop()
                if job is None or job.current is not JobState.READY:  # it was purged
                    continue
                if self.parked.any_missing and self.parked.is_missing(job.function):
                    self.missing(job, timestamp)
                    parked += 1
                    if parked == _PARKED_AT_ONCE:
                        self._cut_short = True
                        self.lanes.wake(lane)
                        return
                    continue
                suspect = job.record.progress is not NEW and is_suspect(job)
                if (suspect or self._isolation.active) and not self._isolation.may_start(job):
                    lane.held.append(job)
                    continue
                lane.advance(job, JobEvent.LEASED)
                lane.running += 1
                self._leased[job.record.key] = job
                timeout = lane.settings.visibility_timeout_seconds
                if timeout is None:
                    job.due = math.inf
                else:
                    self.timers.set(job, timestamp.now + timeout)
                    self._timeouts[job.record.key] = timeout
                yield job

    def succeeded(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """End a job that was done. Call `erased` when the store has removed it."""
        self._end_attempt(job, JobEvent.SUCCEEDED)
        job.lane.done.count(timestamp.now)
        return [Remove(job.record.key)]

    def failed(self, job: Job, code: str, message: str, timestamp: Timestamp) -> list[Change]:
        """Note a failed attempt: a pause follows, or the job is a dead letter."""
        record = job.record
        record.evolve(attempts=record.progress.attempts + 1)
        record.note_failure(code, message)
        if record.progress.attempts >= job.lane.settings.max_attempts:
            return self._die(job, timestamp)
        return self._delay(job, JobEvent.FAILED, self._pause(job, record.progress.attempts), timestamp)

    def give_up(self, job: Job, code: str, message: str, timestamp: Timestamp) -> list[Change]:
        """Make a running job a dead letter, because another attempt cannot end otherwise."""
        job.record.note_failure(code, message)
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
        lost = record.progress.lost + 1
        if not alone and limit > 1:
            lost = min(lost, limit - 1)  # any of them may have done it: the last loss is had alone (Q16)
        record.evolve(lost=lost)
        if lost >= limit:
            record.note_failure(WORKER_LOST, message)
            return self._die(job, timestamp)
        if lost == 1:
            self.returned(job)
            return [self._update(job)]
        return self._delay(job, JobEvent.LOST_AGAIN, self._pause(job, lost - 1), timestamp)

    def returned(self, job: Job) -> None:
        """Make a job ready again that was not tried to its end, which costs it nothing."""
        self._end_attempt(job, JobEvent.RETURNED)
        self._line_up(job)

    def postponed(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """Delay a job that its worker does not take just now. No attempt is used up."""
        return self._delay(job, JobEvent.POSTPONED, max(0.1, self._pause(job, 1)), timestamp)

    def erased(self, job: Job) -> None:
        """Remove a job that the store has removed."""
        if job.record.progress.died_at_ms is None:
            self._recent[job.record.id] = job.current is JobState.FINISHING
            if len(self._recent) > _RECENT_JOBS:
                self._recent.popitem(last=False)
        job.lane.advance(job, JobEvent.ERASED)
        self._over(job)

    def dead_lettered(self, job: Job) -> list[Job]:
        """Note that the store has a job as a dead letter. Return the oldest ones that are too many now."""
        lane = job.lane
        lane.advance(job, JobEvent.DEAD_LETTERED)
        self._leave(job)
        self.room.release_payload(job)
        lane.dead[job.record.key] = job
        too_many = lane.state_counts[JobState.DEAD] - lane.settings.dead_letters
        return list(itertools.islice(lane.dead_letters(), max(0, too_many)))

    # --- functions that no worker has

    def missing(self, job: Job, timestamp: Timestamp) -> None:
        """Have a job wait for a worker with its function."""
        self._end_attempt(job, JobEvent.FUNCTION_MISSING)
        self.parked.add(job)
        patience = job.lane.settings.missing_function_seconds
        if patience is not None and job.lane.key.kind == "queue":
            self.timers.set(job, timestamp.now + patience)
        else:
            job.due = math.inf  # the limit of its attempt is not a limit of its wait

    def function_came(self, function: tuple[str, str]) -> None:
        """Make the jobs ready that waited for this function, because a worker may have it now."""
        self.parked.came(function)
        self._return_parked()
        self.lanes.wake_subscribers(function)

    @property
    def cut_short(self) -> bool:
        """Whether `lease` is to be called again soon, because it has looked at as many jobs as it does at once."""
        return not self.paused and (self._cut_short or self.parked.any_came)

    def _return_parked(self) -> None:
        for job in self.parked.returned(_PARKED_AT_ONCE):
            job.lane.advance(job, JobEvent.FUNCTION_CAME)
            self._line_up(job)

    # --- dead letters, and jobs that are not wanted

    def redrive(self, job: Job, function: tuple[str, str] | None = None) -> list[Change]:
        """Make a dead letter a job again, maybe of another function.

        Call `redriven` when the store has it, or `still_dead` if it refuses.
        """
        position, self._next = self._next, self._next + 1
        redriven = replace(job.record, position=position, progress=NEW)
        if function is not None:
            redriven.namespace, redriven.function_id = function
        self._redriven[job.record.key] = redriven
        self.room.count_redriving(job.lane, 1)
        job.lane.advance(job, JobEvent.REDRIVEN)
        return [Update(redriven)]

    def redriven(self, job: Job) -> None:
        """Put a former dead letter at the end of its line, with all its attempts."""
        del job.lane.dead[job.record.key]
        job.record = self._redriven.pop(job.record.key)
        self.room.count_redriving(job.lane, -1)
        self.room.count_unfinished(job.lane, 1)
        job.lane.advance(job, JobEvent.STORED)
        self._join(job)

    def discard(self, job: Job) -> list[Change]:
        """Discard a dead letter. Call `erased` when the store has removed it, or `still_dead` if it refuses."""
        job.lane.advance(job, JobEvent.DISCARDED)
        return [Remove(job.record.key)]

    def still_dead(self, job: Job) -> None:
        """Keep a dead letter, because the store refuses the change."""
        if self._redriven.pop(job.record.key, None) is not None:
            self.room.count_redriving(job.lane, -1)
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
        if job.record.options.unique_key is not None:
            self.unique.take(job, timestamp.now)
        left = job.record.progress.pause_left_seconds(timestamp)
        job.lane.advance(job, JobEvent.STORED_WITH_DELAY if left > 0 else JobEvent.STORED)
        if left > 0:
            self.timers.set(job, timestamp.now + left)
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
        return self.timers.next_due()

    def tick(self, timestamp: Timestamp) -> list[tuple[Job, list[Change]]]:
        """Handle the jobs that are due. Return the jobs whose attempts have ended, each with its changes."""
        moved = []
        for job in self.timers.due(timestamp.now):
            if job.current_state is JobState.DELAYED:
                job.lane.advance(job, JobEvent.DUE)
                self._line_up(job)
            elif job.current_state is JobState.LEASED:
                why = f"the attempt took longer than {self._timeouts[job.record.key]:g} s"
                moved.append((job, self.failed(job, "visibility_timeout", why, timestamp)))
            else:
                self._unpark(job)
                namespace, function_id = job.function
                why = f"Function {function_id} not found in namespace {namespace}"
                moved.append((job, self.failed(job, "function_not_found", why, timestamp)))
        return moved

    # --- inside

    def _join(self, job: Job) -> None:
        if job.lane.unloaded:
            job.lane.join_as_newer(job)
        else:
            job.lane.join(job)
        self.lanes.wake(job.lane)

    def _over(self, job: Job) -> None:
        record, lane = job.record, job.lane
        if record.progress.died_at_ms is None:
            self._leave(job)
        else:
            lane.dead.pop(record.key, None)
        self.room.leave(job)
        if self._by_id.get(record.id) is job:
            del self._by_id[record.id]
        if not lane.known:
            self.lanes.drop_if_empty(lane)

    def _leave(self, job: Job) -> None:
        """Take a job out of its line."""
        lane = job.lane
        self.room.count_unfinished(lane, -1)
        lane.leave(job)
        if lane.settings.fifo:  # the next job of its group may start
            self.lanes.wake(lane)

    def _line_up(self, job: Job) -> None:
        job.lane.line_up(job)
        self.lanes.wake(job.lane)

    def _end_attempt(self, job: Job, event: JobEvent) -> None:
        """Move a job on, and free its place if it was running."""
        lane, leased = job.lane, job.current is JobState.LEASED
        lane.advance(job, event)
        if leased:
            lane.running -= 1
            del self._leased[job.record.key]
            self._timeouts.pop(job.record.key, None)
            if self._isolation.ended(job):
                self.lanes.release_held()
            self.lanes.wake(lane)

    def _delay(self, job: Job, event: JobEvent, pause: float, timestamp: Timestamp) -> list[Change]:
        self._end_attempt(job, event)
        self.timers.set(job, timestamp.now + pause)
        job.record.evolve(due_ms=timestamp.wall_at(job.due), pause_ms=round(pause * 1000))
        return [self._update(job)]

    def _die(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """Make a job a dead letter. Call `dead_lettered` when the store has it so."""
        job.record.evolve(died_at_ms=timestamp.wall_ms, due_ms=None, pause_ms=None)
        self._end_attempt(job, JobEvent.GAVE_UP)
        return [self._update(job)]

    def _unpark(self, job: Job) -> None:
        if self.parked.leave(job):
            self.lanes.wake_subscribers(job.function)  # they are to find out by themselves

    def _update(self, job: Job) -> Update:
        return Update(replace(job.record, data=None, metadata=None))

    def _pause(self, job: Job, failures: int) -> float:
        return job.lane.settings.pause_seconds(failures, self._jitter())
