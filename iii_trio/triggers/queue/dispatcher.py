"""The queue at work: the decisions of the ledger are carried out here.

There is no task for each queue, and the only timer is for jobs that become due.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Final, final

import trio

from ... import ids
from ...errors import CallError, ConnectionFailed
from ...lowlevel import can_call, flush, wait_can_call
from ...report import RateLimitedLogger, get_logger
from ...text import count_of, named_error
from ...tracing import Tracing
from ...wire import to_json
from ...worker import Worker
from .attempt import Attempt, AttemptOutcome, AttemptResult
from .journal import Journal
from .lane import Job, Lane
from .ledger import Ledger
from .overruns import Overruns
from .record import Timestamp
from .results import Results
from .settings import QueueConfig
from .states import JobState
from .store import Change, ForgetLane, Payload, Put, StorageError, StorageFull
from .texts import is_json
from .waiters import Waiters

LOGGER: Final = get_logger("iii_trio.queue")
FUNCTIONS_CHANGED: Final = "iii-queue::functions-changed"
NOT_OWNED: Final = "queue_not_owned"
"""The code of a node that does not own the shard of a queue, and has done nothing."""
OWNER_LOST: Final = "queue_owner_lost"
"""The code of an owner that has lost its lease. The store may have kept the job."""


@final
class Dispatcher:
    """Carries out the ledger's decisions: changes go to the journal, jobs to their workers."""

    def __init__(
        self,
        worker: Worker,
        journal: Journal,
        config: QueueConfig,
        place: str,
        *,
        jitter: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
        tracing: Tracing | None = None,
        owns: Callable[[], bool] = lambda: True,
        belongs: Callable[[str], bool] = lambda name: True,
        node: str | None = None,
    ) -> None:
        self.at_node = f" at node {node}, which owns its shard: give all nodes the same queues" if node else ""
        """What errors add of a queue that this node of a mesh does not have."""
        self.owns = owns
        """Whether this node may take and start jobs. Another node of the mesh may have the queues by now."""
        self.ledger = Ledger(config, jitter, belongs)
        self.ledger.lanes.on_drop = self._dropped
        self.place = place
        """Where the jobs are kept, for people."""
        self._worker = worker
        self.journal = journal
        journal.after_commit = self._committed
        journal.gathered_kept = self.erased
        self._wall_clock = wall_clock
        self._clock = trio.lowlevel.current_clock().current_time  # `trio.current_time` without its two calls in between
        self._tracing = tracing or Tracing(ids.new_id, trio.current_time, wall_clock)
        self._tasks: trio.Nursery | None = None
        self._logger = RateLimitedLogger("iii-queue", LOGGER)
        self._timer_scope = trio.CancelScope()
        self._ended = trio.lowlevel.ParkingLot()
        self._watching = False
        self._arrivals = 0
        self.overruns = Overruns()
        self._attempts: dict[int, Attempt] = {}
        """The attempts under way, by the keys of their jobs."""
        self._lost: dict[str, list[Job]] = {}
        """Jobs whose worker was lost in this turn of the event loop, by the sentence that says which."""
        self.results = Results()
        self.waiters = Waiters()
        self.hands_over = False
        """Whether this queue drains for another node, which is asked next by those that wait for jobs."""
        self._starting = False
        self._ended_attempts = trio.lowlevel.ParkingLot()
        self._any_ended = False
        """Whether attempts have ended and other jobs have not been started in their places yet."""
        self._commit_timestamp: Timestamp | None = None
        """The time of the commit whose callbacks run."""
        self._waiting_to_call = False
        self._starting_more = False
        self.is_loading = False
        """Whether jobs of an earlier engine are on disk only yet, while the queue works."""
        self._loading = trio.lowlevel.ParkingLot()
        self._when_loaded: list[Callable[[], object]] = []
        self._receipts: list[Callable[[], object]] = []
        """Callbacks of senders whose jobs are in the commit that has just ended."""

    @property
    def timestamp(self) -> Timestamp:
        """Now, by both clocks."""
        return Timestamp(self._clock(), int(self._wall_clock() * 1000))

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Start jobs when they are due, until cancelled. Running jobs are cancelled then, and stay jobs."""
        async with trio.open_nursery() as self._tasks:
            try:
                self._tasks.start_soon(self._replace_ended)
                self.start_jobs()
                task_status.started()
                while True:
                    with trio.CancelScope() as self._timer_scope:
                        self._reschedule()
                        await trio.sleep_forever()
                    self._look_for_overruns()
                    for job, changes in self.ledger.tick(self.timestamp):
                        self.stop(job, "the attempt took too long")
                        self._moved(job, changes)
                    self.go_on()
            finally:
                self._tasks = None  # nothing starts any more
                for attempt in list(self._attempts.values()):
                    self.stop(attempt.job, "the queue is closing")

    async def drain(self, *, hands_over: bool = False) -> None:
        """Start no more jobs, and wait until those that run have ended. If cancelled: no more jobs start.

        With `hands_over`, callers wait on for jobs, because those that run may end still.
        """
        self.ledger.paused, self.hands_over = True, hands_over
        if not hands_over:
            self.waiters.wake_all()
        self._loading.unpark_all()
        while self.ledger.running:
            await self._ended.park()
        # Those that wait for these jobs are answered once the store knows their ends, and the next owner has no results.
        if hands_over:
            await self.journal.settled()
            await trio.lowlevel.checkpoint()

    def reconfigure(self, config: QueueConfig) -> None:
        """Use these queues and bounds from now on."""
        self.ledger.reconfigure(config)
        for lane in self.ledger.lanes:
            self.overruns.forget(lane)  # until its next call has succeeded
        self.save_settings()
        self.start_jobs()

    # --- jobs of an earlier engine

    def loaded_some(self) -> None:
        """Start jobs that were loaded just now, and wake those that wait for them."""
        self._loading.unpark_all()
        self.go_on()

    def all_loaded(self) -> None:
        """Note that all jobs of an earlier engine are loaded."""
        self.is_loading = False
        waiting, self._when_loaded = self._when_loaded, []
        for then in waiting:
            then()

    def when_loaded(self, then: Callable[[], object]) -> None:
        """Call `then` when all jobs are loaded, which they are not yet."""
        self._when_loaded.append(then)

    async def wait_loaded(self) -> None:
        """Wait until all jobs are loaded. Raises CallError if the engine ends before. If cancelled: nothing changes."""
        while self.is_loading:
            await self.wait_loaded_some()

    async def wait_loaded_some(self) -> None:
        """Wait until more jobs are loaded. Raises CallError if the engine ends before. If cancelled: nothing changes."""
        if self.ledger.paused:
            raise CallError("queue_loading", "the engine ends before it has loaded its jobs; ask the next one")
        await self._loading.park()

    # --- arrivals

    def check_owner(self) -> None:
        """Raise CallError if another node may own this shard of the queues.

        What this one has in memory says nothing then, such as that a key is taken or that a topic has no subscribers.
        """
        if not self.owns():
            raise CallError(NOT_OWNED, "this node does not own this shard of the queues")

    def keep(
        self,
        jobs: Sequence[Job],
        kept: Callable[[], object],
        refused: Callable[[CallError], object],
        *,
        instead_of: Sequence[Job] = (),
    ) -> None:
        """Store new jobs together, all or none. They wait for their turns from then on (Q1).

        Waiting jobs that they replace are removed in the same commit.

        `kept` is called then. Otherwise `refused` is called with a CallError, `queue_full` or `storage_failed`.
        """
        changes: list[Change] = []
        unsaved: list[Lane] = []
        for job in jobs:
            changes.append(Put(job.record))
            if job.lane.saved is not job.lane.description:
                unsaved.append(job.lane)
        for old in instead_of:
            changes += self.ledger.cancel(old)
        for lane in unsaved:
            changes.append(lane.save())

        def stored() -> None:
            timestamp = self._commit_timestamp
            if timestamp is None:
                timestamp = self._commit_timestamp = self.timestamp
            for job in jobs:
                self.ledger.stored(job, timestamp)
            if instead_of:
                self.erased(instead_of)
            self._receipts.append(kept)

        def not_stored(error: StorageError) -> None:
            for lane in unsaved:
                lane.saved = None
            for job in jobs:
                self.ledger.refused(job)
            for old in instead_of:
                self.ledger.kept_after_all(old, self.timestamp)
            if instead_of:
                self.start_jobs()
            code = "queue_full" if isinstance(error, StorageFull) else "storage_failed"
            refused(CallError(code if self.owns() else OWNER_LOST, str(error)))

        if jobs:
            self.journal.write(changes, stored, not_stored)
        else:
            kept()

    def keep_again(self, job: Job, kept: Callable[[], object], refused: Callable[[CallError], object]) -> None:
        """Answer for a job that has come a second time, when the first one is stored (Q21)."""

        def settled() -> None:
            if job.current_state is JobState.REFUSED:
                refused(CallError("storage_failed", "the job could not be stored when it came first"))
            else:
                self._receipts.append(kept)

        self.after_stored(settled, refused)

    def after_stored(self, then: Callable[[], object], refused: Callable[[CallError], object]) -> None:
        """Call `then` when all jobs that are on their way to the store have been stored or refused."""
        self.journal.write([], then, lambda error: refused(CallError("storage_failed", str(error))))

    async def payload_of(self, job: Job) -> Payload:
        """Return the payload of a job. Raises CallError `storage_failed`. If cancelled: nothing changes."""
        record = job.record
        if record.data is not None:
            return Payload(record.data, record.metadata)
        try:
            payload = await self.journal.fetch(record.key)
        except StorageError as error:
            # A bug of the store needs its traceback, and a full disk explains itself.
            self._log(logging.ERROR, job, f"cannot be read: {error}", error.__cause__)
            raise CallError("storage_failed", str(error)) from None
        if payload is None:
            raise CallError("job_damaged", f"its data is not in {self.place} any more")
        return payload

    # --- turns

    def start_jobs(self) -> None:
        """Start all jobs that can start now."""
        if self._starting or self._tasks is None:
            return
        self._starting = True  # an attempt may be over at once; the loop below starts what it makes room for
        timestamp = self.timestamp
        try:
            for job in self.ledger.lease(timestamp, self._may_start):
                attempt = Attempt(self._worker, job, self._over, self._arrivals, self._tracing, timestamp.now)
                self._attempts[job.record.key] = attempt
                job.lane.calls += 1
                self.overruns.began(attempt)
                if job.record.data is None:
                    self._tasks.start_soon(self._fetch_for, attempt)
                else:
                    self._begin(attempt, Payload(job.record.data, job.record.metadata))
        finally:
            self._starting = False
        if not can_call(self._worker) and not self._waiting_to_call:
            self._waiting_to_call = True
            self._tasks.start_soon(self._wait_to_call)
        if self.ledger.cut_short and not self._starting_more:
            self._starting_more = True
            self._tasks.start_soon(self._start_more)
        self._reschedule()

    def _may_start(self) -> bool:
        return can_call(self._worker) and self.owns()

    def _begin(self, attempt: Attempt, payload: Payload) -> None:
        try:
            attempt.begin(payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: ASYNC103 - a fault in one job must end no other (Q13)
            LOGGER.exception("job %s cannot be started", attempt.job.record.id)
            attempt.stop("it could not be started")
            if attempt.job.record.key in self._attempts:
                problem = f"it cannot be started: {named_error(error)}"
                self._over(attempt, AttemptResult(AttemptOutcome.DAMAGED, "job_damaged", problem))

    def _committed(self) -> None:
        """Start jobs, and answer the senders after that, while the jobs run."""
        self._commit_timestamp = None
        self.start_jobs()
        receipts, self._receipts = self._receipts, []
        for answer in receipts:
            answer()
        flush(self._worker)

    async def _replace_ended(self) -> None:
        """Start other jobs when attempts have ended, once for all attempts of one turn of the event loop."""
        while True:
            if self._any_ended:  # jobs that were started just now have ended at once
                await trio.lowlevel.checkpoint()
            else:
                await self._ended_attempts.park()
            self._any_ended = False
            self.start_jobs()
            flush(self._worker)

    async def _start_more(self) -> None:
        await trio.lowlevel.checkpoint()  # other tasks have their turn
        self._starting_more = False
        self.start_jobs()

    async def _wait_to_call(self) -> None:
        try:
            await wait_can_call(self._worker)
        except ConnectionFailed:
            return  # the worker has left: nothing starts any more
        self._waiting_to_call = False
        self.start_jobs()

    async def _fetch_for(self, attempt: Attempt) -> None:
        try:
            payload = await self.payload_of(attempt.job)
        except CallError as error:
            if attempt.stopped:
                return
            if error.code == "job_damaged":
                self._over(attempt, AttemptResult(AttemptOutcome.DAMAGED, error.code, error.message))
            else:
                self._over(attempt, AttemptResult(AttemptOutcome.POSTPONED))
        else:
            if attempt.stopped:
                return
            if not can_call(self._worker):
                self._over(attempt, AttemptResult(AttemptOutcome.RETURNED))
            elif is_json(payload.data):
                self._begin(attempt, payload)
            else:
                problem = f"its data in {self.place} is not JSON"
                self._over(attempt, AttemptResult(AttemptOutcome.DAMAGED, "job_damaged", problem))

    def _over(self, attempt: Attempt, result: AttemptResult) -> None:
        job, timestamp = attempt.job, self.timestamp
        del self._attempts[job.record.key]
        if result.outcome is AttemptOutcome.SUCCEEDED:
            self.overruns.succeeded(job.lane, timestamp.now - attempt.began)
        elif result.outcome is AttemptOutcome.MISSING and attempt.arrivals != self._arrivals:
            result = AttemptResult(AttemptOutcome.RETURNED)  # functions have come meanwhile, maybe this one
        self._ran(job, result, timestamp)
        if self.ledger.paused:
            self._ended.unpark_all()
        if not self._any_ended:
            self._any_ended = True
            self._ended_attempts.unpark()

    def go_on(self) -> None:
        """Start other jobs after one has moved, or end the wait of `drain`."""
        if self.ledger.paused:
            self._ended.unpark_all()
        self.start_jobs()

    def stop(self, job: Job, reason: str) -> None:
        """Drop the attempt of a job, if it runs. Its handler is cancelled, if its SDK supports that."""
        attempt = self._attempts.pop(job.record.key, None)
        if attempt is not None:
            attempt.stop(reason)

    def _ran(self, job: Job, result: AttemptResult, timestamp: Timestamp) -> None:
        ledger = self.ledger
        match result.outcome:
            case AttemptOutcome.SUCCEEDED:
                if job.record.options.keep_result_ms is not None:
                    until = timestamp.now + job.record.options.keep_result_ms / 1000
                    self.results.keep(job.record.id, to_json(result.value), until)
                self.journal.gather(ledger.succeeded(job, timestamp), job)
            case AttemptOutcome.FAILED:
                self._moved(job, ledger.failed(job, result.code, result.message, timestamp))
            case AttemptOutcome.LOST:
                self._lose(job, result.message)
            case AttemptOutcome.POSTPONED:
                self._moved(job, ledger.postponed(job, timestamp))
            case AttemptOutcome.MISSING:
                ledger.missing(job, timestamp)
                self._watch()
            case AttemptOutcome.RETURNED:
                ledger.returned(job)
            case AttemptOutcome.DRAINING:
                ledger.paused = True  # for good: an engine that drains takes no calls until it ends
                ledger.returned(job)
            case AttemptOutcome.DAMAGED:
                self._moved(job, ledger.give_up(job, result.code, result.message, timestamp))

    def _lose(self, job: Job, message: str) -> None:
        """Collect the jobs that are lost with one worker. Their results come in one turn of the event loop (Q16)."""
        if self._tasks is None:
            return  # the queue is closing: they are jobs still
        if not self._lost:
            self._tasks.start_soon(self._settle_losses)
        self._lost.setdefault(message, []).append(job)

    async def _settle_losses(self) -> None:
        await trio.lowlevel.checkpoint()
        lost, self._lost = self._lost, {}
        for message, jobs in lost.items():
            # The time of an attempt may have run out meanwhile.
            jobs = [job for job in jobs if job.current_state is JobState.LEASED]
            for job, changes in self.ledger.lost(jobs, message, self.timestamp):
                self._moved(job, changes)
        self.go_on()

    def _look_for_overruns(self) -> None:
        now = trio.current_time()
        if now < self.overruns.check_at:
            return
        for attempt, usual in self.overruns.check(now, self._attempts.values()):
            longer = f"has run for {now - attempt.began:.3g} s, and usually it is {usual:.3g} s"
            mend = "; set visibility_timeout_seconds to end such calls"
            self._log(logging.WARNING, attempt.job, longer + mend)

    def _moved(self, job: Job, changes: Sequence[Change]) -> None:
        """Write the state of a job after an attempt."""
        dead = job.record.progress.died_at_ms is not None
        self.journal.write(changes, (lambda: self._dead_lettered(job)) if dead else None)

    def erased(self, jobs: Sequence[Job]) -> None:
        """Note that the store has removed these jobs."""
        for job in jobs:
            self.ledger.erased(job)
            self.waiters.wake(job.record.id)

    def _dead_lettered(self, job: Job) -> None:
        record = job.record
        failed, lost = record.progress.attempts, record.progress.lost
        counts = f"after {count_of(failed, 'failed call')} and {count_of(lost, 'lost worker')}"
        self._log(
            logging.WARNING, job, f"is a dead letter, {counts}: {record.progress.code}: {record.progress.message}"
        )
        too_many = self.ledger.dead_lettered(job)
        self.waiters.wake(record.id)
        for unwanted in too_many:
            self._log(logging.WARNING, unwanted, "is a dead letter no more: it gave way to newer ones")
        changes = [change for unwanted in too_many for change in self.ledger.discard(unwanted)]
        self.journal.write(changes, lambda: self.erased(too_many))

    # --- functions that no worker has

    def _watch(self) -> None:
        """Subscribe to the news of functions, at the first need."""
        if not self._watching and self._tasks is not None:
            self._watching = True
            self._tasks.start_soon(self._start_to_watch)

    async def _start_to_watch(self) -> None:
        self._worker.register_trigger(
            "engine::functions-available", FUNCTIONS_CHANGED, namespace=self._worker.namespace
        )
        await self._worker.wait_registered()
        self.functions_came(self.ledger.parked.functions)  # they may have come before the subscription

    def functions_came(self, functions: Sequence[tuple[str, str]]) -> None:
        """Start the jobs that waited for these functions: namespaces and ids."""
        self._arrivals += 1
        for function in functions:
            self.ledger.function_came(function)
        self.start_jobs()

    # --- inside

    def save_settings(self) -> None:
        """Write the settings of lanes that have jobs, where the store has others (Q12)."""
        for lane in self.ledger.lanes:
            if (lane.jobs or lane.dead) and lane.saved is not lane.description:
                self.journal.write([lane.save()])

    def _dropped(self, lane: Lane) -> None:
        self.overruns.forget(lane)
        if lane.saved is not None:
            self.journal.write([ForgetLane(lane.text)])

    def _log(self, level: int, job: Job, message: str, error: BaseException | None = None) -> None:
        name, function_id = job.lane.key.name, job.record.function_id
        fields = {"queue": name, "job": job.record.id, "function": function_id}
        self._logger.log(trio.current_time(), level, f"job {job.record.id} of {name} {message}", fields, error=error)

    def _reschedule(self) -> None:
        due = self.ledger.next_due()
        deadline = min(math.inf if due is None else due, self.overruns.check_at)
        if self._timer_scope.deadline != deadline:  # setting it costs, even to the same value
            self._timer_scope.deadline = deadline
