"""The queue at work: the decisions of the ledger are carried out here.

There is no task for each queue, and the only timer is for jobs that become due.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, final

import trio

from ...environment import RunBlocking
from ...errors import CallError, ConnectionFailed
from ...lowlevel import can_call, flush, wait_can_call
from ...report import RateLimitedLogger, get_logger
from ...wire import to_json
from ...worker import Worker
from .attempt import Attempt, AttemptOutcome, AttemptResult
from .journal import Journal
from .lane import Job, Lane
from .lane_key import LaneKey
from .ledger import Ledger
from .protocol import SubscriberConfig, read_subscriber
from .record import Timestamp
from .results import Results
from .settings import QueueConfig
from .states import JobState
from .store import (
    Change,
    Damaged,
    Forget,
    ForgetLane,
    Loaded,
    Payload,
    Put,
    Remember,
    Remove,
    SaveLane,
    SetAside,
    StorageError,
    StorageFull,
)
from .texts import is_json
from .waiters import Waiters

LOGGER: Final = get_logger("iii_trio.queue")
FUNCTIONS_CHANGED: Final = "iii-queue::functions-changed"
_JOBS_AT_ONCE: Final = 500  # a few milliseconds of loading, or of purging


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
    ) -> None:
        self.ledger = Ledger(config, jitter)
        self.ledger.lanes.on_drop = self._forget_settings
        self.place = place
        """Where the jobs are kept, for people."""
        self._worker = worker
        self._journal = journal
        journal.after_commit = self._committed
        self._wall_clock = wall_clock
        self._tasks: trio.Nursery | None = None
        self._logger = RateLimitedLogger("iii-queue", LOGGER)
        self._timer_scope = trio.CancelScope()
        self._ended = trio.lowlevel.ParkingLot()
        self._watching = False
        self._arrivals = 0
        self._attempts: dict[int, Attempt] = {}
        """The attempts under way, by the keys of their jobs."""
        self._lost: dict[str, list[Job]] = {}
        """Jobs whose worker was lost in this turn of the event loop, by the sentence that says which."""
        self.results = Results()
        self.waiters = Waiters()
        self._starting = False
        self._waiting_to_call = False
        self._receipts: list[Callable[[], object]] = []
        """Callbacks of senders whose jobs are in the commit that has just ended."""

    @property
    def timestamp(self) -> Timestamp:
        """Now, by both clocks."""
        return Timestamp(trio.current_time(), int(self._wall_clock() * 1000))

    async def load(self, loaded: Loaded, run: RunBlocking) -> None:
        """Take over the content of the store. Call it once, first.

        Raises StorageError. If cancelled: a part is loaded, and nothing of the store has changed.
        """
        for warning in loaded.warnings:
            LOGGER.warning("%s", warning)
        settings = {saved.lane: saved.settings for saved in loaded.lanes}
        changes: list[Change] = []
        for one in loaded.subscribers:
            self._load_subscriber(one)
        for lane in self.ledger.lanes:
            if (text := settings.get(lane.text)) is not None:
                lane.restore_pause(text)
            lane.saved = lane.description if text == lane.description else text
        rows = iter(loaded.jobs)
        damaged: list[Damaged] = []
        # In pieces, so that an engine with many jobs can be stopped while it loads them.
        while records := await run(lambda: list(islice(rows, _JOBS_AT_ONCE))):
            damaged += self.ledger.load(records, settings, self.timestamp)
            await trio.lowlevel.checkpoint()
        self.ledger.loaded()
        for row in damaged:
            LOGGER.error(
                "the job with the key %d in %s is damaged, and set aside: %s", row.key, self.place, row.problem
            )
            changes.append(SetAside(row.key, row.problem))
        changes += [ForgetLane(text) for text in settings if self.ledger.lanes.get(text) is None]
        self._journal.write(changes)
        self._save_settings()

    def _load_subscriber(self, one: Remember) -> None:
        try:
            read = read_subscriber(one.config)
        except ValueError as error:
            LOGGER.error(
                "the configuration of %s, a subscriber of %s, is damaged in %s, and the defaults hold until it is back: %s",
                one.function_id, one.topic, self.place, error,
            )  # fmt: skip
            read = read_subscriber(b"{}")
        key = LaneKey("topic", one.topic, one.namespace, one.function_id)
        lane = self.ledger.lanes.remember(key, read.settings, read.condition)
        lane.config = one.config
        lane.away_since_ms = one.away_since_ms or self.timestamp.wall_ms

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Start jobs when they are due, until cancelled. Running jobs are cancelled then, and stay jobs."""
        async with trio.open_nursery() as self._tasks:
            try:
                self.start_jobs()
                task_status.started()
                while True:
                    with trio.CancelScope() as self._timer_scope:
                        self._reschedule()
                        await trio.sleep_forever()
                    for job, changes in self.ledger.tick(self.timestamp):
                        self._stop(job, "the attempt took too long")
                        self._moved(job, changes)
                    self._go_on()
            finally:
                self._tasks = None  # nothing starts any more
                for attempt in list(self._attempts.values()):
                    self._stop(attempt.job, "the queue is closing")

    async def drain(self) -> None:
        """Start no more jobs, and wait until those that run have ended. If cancelled: no more jobs start."""
        self.ledger.paused = True
        self.waiters.wake_all()
        while self.ledger.running:
            await self._ended.park()

    def reconfigure(self, config: QueueConfig) -> None:
        """Use these queues and bounds from now on."""
        self.ledger.reconfigure(config)
        self._save_settings()
        self.start_jobs()

    # --- arrivals

    def keep(
        self,
        jobs: Sequence[Job],
        kept: Callable[[], object],
        refused: Callable[[CallError], object],
        *,
        instead_of: Job | None = None,
    ) -> None:
        """Store new jobs together, all or none. They wait for their turns from then on (Q1).

        A waiting job that they replace is removed in the same commit.

        `kept` is called then. Otherwise `refused` is called with a CallError, `queue_full` or `storage_failed`.
        """
        changes: list[Change] = [Put(job.record) for job in jobs]
        if instead_of is not None:
            changes += self.ledger.cancel(instead_of)
        unsaved = [job.lane for job in jobs if job.lane.saved is not job.lane.description]
        for lane in unsaved:
            changes.append(SaveLane(lane.text, lane.description))
            lane.saved = lane.description

        def stored() -> None:
            timestamp = self.timestamp
            for job in jobs:
                self.ledger.stored(job, timestamp)
            if instead_of is not None:
                self._erased([instead_of])
            self._receipts.append(kept)

        def not_stored(error: StorageError) -> None:
            for lane in unsaved:
                lane.saved = None
            for job in jobs:
                self.ledger.refused(job)
            if instead_of is not None:
                self.ledger.kept_after_all(instead_of, self.timestamp)
                self.start_jobs()
            code = "queue_full" if isinstance(error, StorageFull) else "storage_failed"
            refused(CallError(code, str(error)))

        if jobs:
            self._journal.write(changes, stored, not_stored)
        else:
            kept()

    def keep_again(self, job: Job, kept: Callable[[], object], refused: Callable[[CallError], object]) -> None:
        """Answer for a job that has come a second time, when the first one is stored (Q21)."""

        def settled() -> None:
            if job.current_state is JobState.REFUSED:
                refused(CallError("storage_failed", "the job could not be stored when it came first"))
            else:
                self._receipts.append(kept)

        self._journal.write([], settled, lambda error: refused(CallError("storage_failed", str(error))))

    def after_stored(self, then: Callable[[], object], refused: Callable[[CallError], object]) -> None:
        """Call `then` when all jobs that are on their way to the store have been stored or refused."""
        self._journal.write([], then, lambda error: refused(CallError("storage_failed", str(error))))

    async def redrive(self, jobs: Sequence[Job], function: tuple[str, str] | None = None) -> None:
        """Make dead letters jobs again (Q8), maybe of another function.

        Raises CallError `storage_failed`: none of them is a job again. If cancelled: they are jobs again.
        """

        def kept() -> None:
            for job in jobs:
                self.ledger.redriven(job)

        changes = [change for job in jobs for change in self.ledger.redrive(job, function)]
        await self._written(changes, kept, lambda: self._still_dead(jobs))

    async def discard(self, jobs: Sequence[Job]) -> None:
        """Discard dead letters (Q8).

        Raises CallError `storage_failed`: none of them is discarded. If cancelled: they are discarded.
        """
        changes = [change for job in jobs for change in self.ledger.discard(job)]
        await self._written(changes, lambda: self._erased(jobs), lambda: self._still_dead(jobs))

    async def purge(self, lanes: Sequence[Lane]) -> int:
        """Remove the waiting jobs of these lanes, not those that run. Return how many there were (Q17).

        If cancelled: they are removed.
        """
        jobs = [job for lane in lanes for job in self.ledger.purge(lane)]
        for at in range(0, len(jobs), _JOBS_AT_ONCE):
            piece = jobs[at : at + _JOBS_AT_ONCE]
            removals = [Remove(job.record.key) for job in piece]
            self._journal.write(removals, lambda piece=piece: self._erased(piece))  # type: ignore[misc]
        await self._all_written()
        return len(jobs)

    async def cancel(self, job: Job) -> None:
        """Remove one job that waits or runs. A handler that runs is cancelled, if its SDK supports that (Q24).

        If cancelled: it is removed.
        """
        self._stop(job, "the job was cancelled")
        self._journal.write(self.ledger.cancel(job), lambda: self._erased([job]))
        self._go_on()
        await self._all_written()

    async def pause(self, lanes: Sequence[Lane], paused: bool) -> None:
        """Pause or resume lanes, also for later engines (Q25).

        Raises CallError `storage_failed`: it holds until the engine ends only. If cancelled: it holds.
        """
        changes: list[Change] = []
        for lane in lanes:
            self.ledger.pause(lane, paused)
            lane.saved = lane.description
            changes.append(SaveLane(lane.text, lane.saved))
        self.start_jobs()

        def refused() -> None:
            for lane in lanes:
                lane.saved = None

        await self._written(changes, refused=refused)

    async def payload_of(self, job: Job) -> Payload:
        """Return the payload of a job. Raises CallError `storage_failed`. If cancelled: nothing changes."""
        record = job.record
        if record.data is not None:
            return Payload(record.data, record.metadata)
        try:
            payload = await self._journal.fetch(record.key)
        except StorageError as error:
            raise CallError("storage_failed", str(error)) from None
        if payload is None:
            raise CallError("job_damaged", f"its data is not in {self.place} any more")
        return payload

    # --- subscribers

    def subscribe(self, key: LaneKey, read: SubscriberConfig) -> Lane:
        """Add a subscriber. It receives the jobs that wait for it first, then new ones (Q7).

        Await `remembered` then, and call `unsubscribe` once.
        """
        lane = self.ledger.lanes.remember(key, read.settings, read.condition)
        if lane.away_since_ms is not None and lane.config is not None:
            self._journal.write([Remember(lane.key.name, *lane.key.subscriber, lane.config)])  # it is away no more
        lane.away_since_ms = None
        self.ledger.lanes.listen(lane, 1)
        self.start_jobs()
        return lane

    async def remembered(self, lane: Lane, config: bytes) -> None:
        """Wait until the store knows a subscriber.

        Raises CallError `storage_failed`. If cancelled: the store will know it.
        """
        if lane.config == config:
            return

        def kept() -> None:
            if lane.known:
                lane.config = config

        await self._written([Remember(lane.key.name, *lane.key.subscriber, config)], kept)

    def unsubscribe(self, lane: Lane, *, for_good: bool) -> None:
        """Note the end of a subscriber's binding. With `for_good`, later messages are not for it (Q7)."""
        self.ledger.lanes.listen(lane, -1)
        if lane.listeners:
            return
        self.ledger.withdraw(lane)
        lane.away_since_ms = self.timestamp.wall_ms
        if for_good:
            self.forget(lane)
        elif lane.known and lane.config is not None:
            self._journal.write([Remember(lane.key.name, *lane.key.subscriber, lane.config, lane.away_since_ms)])

    def forget(self, lane: Lane) -> None:
        """End a subscription, unless it has bindings. Later messages are not for it."""
        if lane.known and not lane.listeners:
            lane.config = None
            self.ledger.lanes.forget(lane)
            self._journal.write([Forget(lane.key.name, *lane.key.subscriber)])

    async def remove_subscriber(self, lane: Lane) -> int:
        """End the subscription of a subscriber that is away, with all its jobs. Return how many there were (Q17).

        Raises CallError `storage_failed`: its dead letters are there still. If cancelled: they may be.
        """
        self.forget(lane)
        count = await self.purge([lane])
        dead = list(lane.dead_letters())
        await self.discard(dead)
        return count + len(dead)

    # --- turns

    def start_jobs(self) -> None:
        """Start all jobs that can start now."""
        if self._starting or self._tasks is None:
            return
        self._starting = True  # an attempt may be over at once; the loop below starts what it makes room for
        try:
            for job in self.ledger.lease(self.timestamp, lambda: can_call(self._worker)):
                attempt = self._attempts[job.record.key] = Attempt(self._worker, job, self._over, self._arrivals)
                if job.record.data is None:
                    self._tasks.start_soon(self._fetch_for, attempt)
                else:
                    self._begin(attempt, Payload(job.record.data, job.record.metadata))
        finally:
            self._starting = False
        if not can_call(self._worker) and not self._waiting_to_call:
            self._waiting_to_call = True
            self._tasks.start_soon(self._wait_to_call)
        self._reschedule()

    def _begin(self, attempt: Attempt, payload: Payload) -> None:
        try:
            attempt.begin(payload)
        except Exception as error:  # a fault in one job must end no other (Q13)
            LOGGER.exception("job %s cannot be started", attempt.job.record.id)
            attempt.stop("it could not be started")
            if attempt.job.record.key in self._attempts:
                problem = f"it cannot be started: {error!r}"
                self._over(attempt, AttemptResult(AttemptOutcome.DAMAGED, "job_damaged", problem))

    def _committed(self) -> None:
        """Start jobs, and answer the senders after that, while the jobs run."""
        self.start_jobs()
        receipts, self._receipts = self._receipts, []
        for answer in receipts:
            answer()
        flush(self._worker)

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
                self._log(logging.ERROR, attempt.job, f"cannot be read: {error.message}")
                self._over(attempt, AttemptResult(AttemptOutcome.POSTPONED))
        else:
            if attempt.stopped:
                return
            if is_json(payload.data):
                self._begin(attempt, payload)
            else:
                problem = f"its data in {self.place} is no JSON"
                self._over(attempt, AttemptResult(AttemptOutcome.DAMAGED, "job_damaged", problem))

    def _over(self, attempt: Attempt, result: AttemptResult) -> None:
        del self._attempts[attempt.job.record.key]
        if result.outcome is AttemptOutcome.MISSING and attempt.arrivals != self._arrivals:
            result = AttemptResult(AttemptOutcome.RETURNED)  # functions have come meanwhile, maybe this one
        self._ran(attempt.job, result)
        self._go_on()

    def _go_on(self) -> None:
        """Start other jobs after one has moved, or end the wait of `drain`."""
        if self.ledger.paused:
            self._ended.unpark_all()
        self.start_jobs()

    def _stop(self, job: Job, reason: str) -> None:
        attempt = self._attempts.pop(job.record.key, None)
        if attempt is not None:
            attempt.stop(reason)

    def _ran(self, job: Job, result: AttemptResult) -> None:
        ledger, timestamp = self.ledger, self.timestamp
        match result.outcome:
            case AttemptOutcome.SUCCEEDED:
                if job.record.keep_result_ms is not None:
                    until = timestamp.now + job.record.keep_result_ms / 1000
                    self.results.keep(job.record.id, to_json(result.value), until)
                self._journal.write(ledger.succeeded(job, timestamp), lambda: self._erased([job]))
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
        self._go_on()

    def _moved(self, job: Job, changes: Sequence[Change]) -> None:
        """Write what has become of a job after an attempt."""
        dead = job.record.died_at_ms is not None
        self._journal.write(changes, (lambda: self._dead_lettered(job)) if dead else None)

    def _still_dead(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.ledger.still_dead(job)

    def _erased(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.ledger.erased(job)
            self.waiters.wake(job.record.id)

    def _dead_lettered(self, job: Job) -> None:
        record = job.record
        counts = f"after {record.attempts} failed calls and {record.lost} lost workers"
        self._log(logging.WARNING, job, f"is a dead letter, {counts}: {record.code}: {record.message}")
        too_many = self.ledger.dead_lettered(job)
        self.waiters.wake(record.id)
        for unwanted in too_many:
            self._log(logging.WARNING, unwanted, "is a dead letter no more: it gave way to newer ones")
        changes = [change for unwanted in too_many for change in self.ledger.discard(unwanted)]
        self._journal.write(changes, lambda: self._erased(too_many))

    # --- functions that no worker has

    def _watch(self) -> None:
        """Subscribe to the news of functions, at the first need."""
        if not self._watching and self._tasks is not None:
            self._watching = True
            self._tasks.start_soon(self._start_to_watch)

    async def _start_to_watch(self) -> None:
        self._worker.register_trigger("engine::functions-available", FUNCTIONS_CHANGED, namespace="default")
        await self._worker.wait_registered()
        self.functions_came(self.ledger.missing_functions)  # they may have come before the subscription

    def functions_came(self, functions: Sequence[tuple[str, str]]) -> None:
        """Start the jobs that waited for these functions: namespaces and ids."""
        self._arrivals += 1
        for function in functions:
            self.ledger.function_came(function)
        self.start_jobs()

    # --- inside

    def _save_settings(self) -> None:
        """Write the settings of lanes that have jobs, where the store has others (Q12)."""
        for lane in self.ledger.lanes:
            if (lane.jobs or lane.dead) and lane.saved is not lane.description:
                lane.saved = lane.description
                self._journal.write([SaveLane(lane.text, lane.description)])

    def _forget_settings(self, lane: Lane) -> None:
        if lane.saved is not None:
            self._journal.write([ForgetLane(lane.text)])

    async def _all_written(self) -> None:
        settled = trio.Event()
        self._journal.write([], settled.set)
        await settled.wait()

    async def _written(
        self,
        changes: Sequence[Change],
        kept: Callable[[], object] = lambda: None,
        refused: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait until changes are kept. `kept` or `refused` is called, also if the wait is cancelled."""
        if not changes:
            return
        settled = trio.Event()
        problem: list[StorageError] = []

        def on_kept() -> None:
            kept()
            settled.set()

        def on_refused(error: StorageError) -> None:
            problem.append(error)
            refused()
            settled.set()

        self._journal.write(changes, on_kept, on_refused)
        await settled.wait()
        if problem:
            raise CallError("storage_failed", str(problem[0]))

    def _log(self, level: int, job: Job, message: str) -> None:
        name, function_id = job.lane.key.name, job.record.function_id
        fields = {"queue": name, "job": job.record.id, "function": function_id}
        self._logger.log(trio.current_time(), level, f"job {job.record.id} of {name} {message}", fields)

    def _reschedule(self) -> None:
        due = self.ledger.next_due()
        deadline = math.inf if due is None else due
        if self._timer_scope.deadline != deadline:  # setting it costs, even to the same value
            self._timer_scope.deadline = deadline
