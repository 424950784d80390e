"""All jobs, and what may happen to them. Every decision of the queue is made here.

Synchronous, like the engine's hub: what happened goes in; changes for the store, and the jobs that may start, come out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Final, final

import msgspec

from ...state_machine import StateMachine
from .lane import Job, Lane
from .lane_key import LaneKey
from .lanes import Lanes
from .record import Record, Timestamp
from .settings import QueueConfig
from .states import JOB, JobEvent, JobState
from .store import Change, Loaded, Remove, Update
from .timers import Timers

WORKER_LOST: Final = "worker_lost"


@final
class Ledger:
    """The queue's decisions. `jitter` gives the factor (at least 1) by which a pause is longer than it need be."""

    def __init__(self, config: QueueConfig, jitter: Callable[[], float]) -> None:
        self.config = config
        self.paused = False
        """Whether nothing is begun: the engine takes no calls any more."""
        self.lanes = Lanes()
        self.unfinished = 0
        """How many jobs are neither done nor dead."""
        self._jitter = jitter
        self._next = 1
        self.kept_bytes = 0
        """How much of the jobs' data is in memory."""
        self._timers = Timers()
        self._waiting_for_function: dict[tuple[str, str], dict[int, Job]] = {}
        """The functions that nobody has, and the jobs that wait for them."""
        self.reconfigure(config)

    def reconfigure(self, config: QueueConfig) -> None:
        """These queues and bounds from now on."""
        self.config = config
        self.lanes.reconfigure(config)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return sum(lane.running for lane in self.lanes)

    # --- arrivals

    def load(self, loaded: Loaded, timestamp: Timestamp) -> None:
        """What was kept, at the start. Subscribers are to be remembered before."""
        for record in loaded.jobs:
            lane = self.lanes.get(record.lane)
            if lane is None:
                lane = self.lanes.open(LaneKey.parse(record.lane))
                lane.known = False  # nobody says any more how it is to be run, but what is in it is still to be done
            job = self._enter(record, lane)
            self._next = max(self._next, record.key + 1, record.position + 1)
            if record.died_at_ms is not None:
                job.state = StateMachine(JOB, JobState.DEAD)
                lane.state_counts[JobState.STORING] -= 1
                lane.state_counts[JobState.DEAD] += 1
                self.unfinished -= 1
                self._let_go_of_data(job)
                lane.dead[record.key] = job
            else:
                job.due = timestamp.now + self._rest_left(job, timestamp)
                self.stored(job, timestamp)
        for lane in self.lanes:
            lane.dead = dict(sorted(lane.dead.items(), key=lambda item: item[1].record.died_at_ms or 0))

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
    ) -> Job:
        """A new job, that is yet to be stored: say then whether it was `stored` or `refused`."""
        key, self._next = self._next, self._next + 1
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
        )
        job = self._enter(record, lane)
        job.due = timestamp.now + delay
        return job

    def stored(self, job: Job, timestamp: Timestamp) -> None:
        """It is kept: it waits for its turn."""
        self._let_go_of_data(job, unless_room=True)
        if job.due > timestamp.now:
            job.lane.advance(job, JobEvent.STORED_WITH_DELAY)
            self._timers.set(job, job.due)
        else:
            job.lane.advance(job, JobEvent.STORED)
        job.lane.join(job)
        self.lanes.wake(job.lane)

    def refused(self, job: Job) -> None:
        """It could not be kept: there is no such job."""
        job.lane.advance(job, JobEvent.NOT_STORED)
        self._over(job)

    # --- turns

    def lease(self, timestamp: Timestamp, may_start: Callable[[], bool] = lambda: True) -> Iterator[Job]:
        """The jobs that may start now, as long as `may_start`. Each is to be told how it result, or may run out of time."""
        while not self.paused and may_start() and (lane := self.lanes.next_awake()) is not None:
            while lane.may_start:
                if not may_start():
                    self.lanes.wake(lane)
                    break
                if lane.key.kind == "topic" and lane.key.subscriber in self._waiting_for_function:
                    break
                job = lane.pop()
                if job.function in self._waiting_for_function:
                    self._park(job, timestamp)
                    continue
                lane.advance(job, JobEvent.LEASED)
                lane.running += 1
                job.timeouts = lane.settings.visibility_timeout_seconds
                if job.timeouts is None:
                    job.due = math.inf
                else:
                    self._timers.set(job, timestamp.now + job.timeouts)
                yield job

    def succeeded(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """Its handler has done it. Say `erased` when the store has forgotten it."""
        self._move_on(job, JobEvent.SUCCEEDED)
        job.lane.done.count(timestamp.now)
        return [Remove(job.record.key)]

    def failed(self, job: Job, code: str, message: str, timestamp: Timestamp) -> list[Change]:
        """Its handler did not do it: an attempt is used up."""
        record = job.record
        record.attempts += 1
        record.code, record.message = code, message
        if record.attempts >= job.lane.settings.max_attempts:
            return self._die(job, timestamp)
        return self._rest(job, JobEvent.FAILED, self._pause(job, record.attempts), timestamp)

    def lost(self, job: Job, message: str, timestamp: Timestamp) -> list[Change]:
        """Its worker is gone: no attempt is used up, but it is counted, in case the job did it."""
        record = job.record
        record.lost += 1
        if record.lost >= job.lane.settings.max_lost_deliveries:
            record.code, record.message = WORKER_LOST, message
            return self._die(job, timestamp)
        if record.lost == 1:
            self.returned(job)
            return [self._update(job)]
        return self._rest(job, JobEvent.LOST_AGAIN, self._pause(job, record.lost - 1), timestamp)

    def returned(self, job: Job) -> None:
        """It was not tried, or not to its end, and that is nobody's fault."""
        self._move_on(job, JobEvent.RETURNED)
        self._line_up(job)

    def postponed(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """Its worker does not take it just now: another time, and no attempt is used up."""
        return self._rest(job, JobEvent.POSTPONED, max(0.1, self._pause(job, 1)), timestamp)

    def erased(self, job: Job) -> None:
        """The store has forgotten a job that was done, or discarded."""
        job.lane.advance(job, JobEvent.ERASED)
        self._over(job)

    def dead_lettered(self, job: Job) -> list[Job]:
        """The store knows that a job is dead: it is a dead letter now. Those that are too many, the oldest first."""
        lane = job.lane
        lane.advance(job, JobEvent.DEAD_LETTERED)
        self._leave(job)
        self._let_go_of_data(job)
        lane.dead[job.record.key] = job
        too_many = lane.state_counts[JobState.DEAD] - lane.settings.dead_letters
        return list(itertools.islice(lane.dead_letters(), max(0, too_many)))

    # --- functions that nobody has

    def missing(self, job: Job, timestamp: Timestamp) -> None:
        """Nobody has its function: it waits for somebody who does."""
        self._waiting_for_function.setdefault(job.function, {})
        self._park(job, timestamp)

    @property
    def missing_functions(self) -> list[tuple[str, str]]:
        """The functions that are waited for."""
        return list(self._waiting_for_function)

    def function_came(self, function: tuple[str, str]) -> None:
        """Somebody may have it now."""
        for job in self._waiting_for_function.pop(function, {}).values():
            job.lane.advance(job, JobEvent.FUNCTION_CAME)
            self._line_up(job)
        self.lanes.wake_subscribers(function)

    # --- dead letters

    def redrive(self, job: Job) -> list[Change]:
        """A dead letter is to be a job again. Say `redriven` when the store knows, or `still_dead` if it cannot."""
        position, self._next = self._next, self._next + 1
        job.redriven = msgspec.structs.replace(
            job.record, position=position, attempts=0, lost=0, due_ms=None, died_at_ms=None, code=None, message=None
        )
        job.lane.advance(job, JobEvent.REDRIVEN)
        return [Update(job.redriven)]

    def redriven(self, job: Job) -> None:
        """A dead letter is a job again, with all its attempts, behind all that waits."""
        assert job.redriven is not None
        del job.lane.dead[job.record.key]
        job.record, job.redriven = job.redriven, None
        self.unfinished += 1
        job.lane.advance(job, JobEvent.STORED)
        job.lane.join(job)
        self.lanes.wake(job.lane)

    def discard(self, job: Job) -> list[Change]:
        """A dead letter is not wanted. Say `erased` when the store has forgotten it, or `still_dead` if it cannot."""
        job.lane.advance(job, JobEvent.DISCARDED)
        return [Remove(job.record.key)]

    def still_dead(self, job: Job) -> None:
        """The store does not take what was to become of a dead letter."""
        job.redriven = None
        job.lane.advance(job, JobEvent.NOT_STORED)

    # --- time

    def next_due(self) -> float | None:
        """When `tick` has something to do; None if never."""
        return self._timers.next_due()

    def tick(self, timestamp: Timestamp) -> list[tuple[Job, list[Change]]]:
        """Time has passed: do what is due. The jobs that moved for good, each with its changes."""
        moved = []
        for job in self._timers.due(timestamp.now):
            if job.current_state is JobState.DELAYED:
                job.lane.advance(job, JobEvent.DUE)
                self._line_up(job)
            elif job.current_state is JobState.LEASED:
                why = f"the attempt took longer than {job.timeouts:g} s"
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
        job = Job(record, lane, size)
        lane.state_counts[JobState.STORING] += 1
        self.unfinished += 1
        self.kept_bytes += size
        return job

    def _over(self, job: Job) -> None:
        if job.record.died_at_ms is None:
            self._leave(job)
        else:
            job.lane.dead.pop(job.record.key, None)
        self._let_go_of_data(job)
        self.lanes.drop_if_empty(job.lane)

    def _leave(self, job: Job) -> None:
        """It no longer stands in line."""
        self.unfinished -= 1
        if job.record.key in job.lane.jobs:
            job.lane.leave(job)
            self.lanes.wake(job.lane)

    def _line_up(self, job: Job) -> None:
        """A job may have become one that can start."""
        job.lane.line_up(job)
        self.lanes.wake(job.lane)

    def _move_on(self, job: Job, event: JobEvent) -> None:
        """A job has been tried, or was not to be: whoever had it is free."""
        leased = job.current_state is JobState.LEASED
        job.lane.advance(job, event)
        if leased:
            job.lane.running -= 1
            self.lanes.wake(job.lane)

    def _rest(self, job: Job, event: JobEvent, pause: float, timestamp: Timestamp) -> list[Change]:
        self._move_on(job, event)
        self._timers.set(job, timestamp.now + pause)
        job.record.due_ms = timestamp.wall_at(job.due)
        return [self._update(job)]

    def _die(self, job: Job, timestamp: Timestamp) -> list[Change]:
        """The last failure. Say `dead_lettered` when the store knows."""
        job.record.died_at_ms = timestamp.wall_ms
        job.record.due_ms = None
        self._move_on(job, JobEvent.GAVE_UP)
        return [self._update(job)]

    def _park(self, job: Job, timestamp: Timestamp) -> None:
        self._move_on(job, JobEvent.FUNCTION_MISSING)
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
        return Update(msgspec.structs.replace(job.record, data=None))

    def _let_go_of_data(self, job: Job, *, unless_room: bool = False) -> None:
        """Its data is on disk: keep it in memory only where there is room."""
        if job.record.data is None or (unless_room and self.kept_bytes <= self.config.memory_bytes):
            return
        self.kept_bytes -= job.size
        job.record.data = None

    def _pause(self, job: Job, failures: int) -> float:
        return job.lane.settings.pause_seconds(failures, self._jitter())

    def _rest_left(self, job: Job, timestamp: Timestamp) -> float:
        """How long a job of an earlier engine still rests: no longer than it could, whatever the calendar says now."""
        if job.record.due_ms is None:
            return 0.0
        longest = max(job.lane.settings.delay_seconds, job.lane.settings.longest_pause_seconds)
        return min((job.record.due_ms - timestamp.wall_ms) / 1000, longest)
