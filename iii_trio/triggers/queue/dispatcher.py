"""The queue at work: jobs come in, are kept, run, and end. No task a queue, and no timer but for what is due."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Final, final

import trio

from ...errors import CallError, ConnectionFailed
from ...lowlevel import can_call, flush, wait_can_call
from ...report import RateLimitedLogger
from ...worker import Worker
from .attempt import Attempt, AttemptOutcome, AttemptResult
from .journal import Journal
from .lane import Job, Lane
from .lane_key import LaneKey
from .ledger import Ledger
from .protocol import SubscriberConfig, read_subscriber
from .record import Timestamp
from .settings import QueueConfig
from .store import Change, Forget, Loaded, Put, Remember, StorageError

LOGGER: Final = logging.getLogger("iii_trio.queue")
FUNCTIONS_CHANGED: Final = "iii-queue::functions-changed"


@final
class Dispatcher:
    """Has the ledger's decisions performed: changes go to the journal, jobs to their workers."""

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
        self.place = place
        """Where the jobs are kept, for people."""
        self._worker = worker
        self._journal = journal
        journal.after_commit = self._committed
        self._wall_clock = wall_clock
        self._tasks: trio.Nursery | None = None
        self._logger = RateLimitedLogger("iii-queue", LOGGER)
        self._nap = trio.CancelScope()
        self._ended = trio.lowlevel.ParkingLot()
        self._watching = False
        self._arrivals = 0
        self._attempts: dict[int, Attempt] = {}
        """Those under way, by their jobs' keys."""
        self._beginning = False
        self._waiting_to_ask = False
        self._receipts: list[Callable[[], object]] = []
        """Who is to be told, after a commit, that it is kept."""

    @property
    def timestamp(self) -> Timestamp:
        """Now, by both clocks."""
        return Timestamp(trio.current_time(), int(self._wall_clock() * 1000))

    def load(self, loaded: Loaded) -> None:
        """What the store has kept."""
        for one in loaded.subscribers:
            said = read_subscriber(one.config)
            lane = self.ledger.lanes.remember(
                LaneKey("topic", one.topic, one.namespace, one.function_id), said.settings
            )
            lane.condition, lane.said = said.condition, one.config
        self.ledger.load(loaded, self.timestamp)

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run what is to be run, when it is due, until cancelled: what runs then is cancelled, and stays a job."""
        async with trio.open_nursery() as self._tasks:
            try:
                self.begin()
                task_status.started()
                while True:
                    with trio.CancelScope() as self._nap:
                        self._mind_the_time()
                        await trio.sleep_forever()
                    for job, changes in self.ledger.tick(self.timestamp):
                        self._stop(job, "the attempt took too long")
                        self._moved(job, changes)
                    self._go_on()
            finally:
                self._tasks = None  # nothing begins any more
                for attempt in list(self._attempts.values()):
                    self._stop(attempt.job, "the queue is closing")

    async def drain(self) -> None:
        """Begin nothing more, and wait until what runs has ended. If cancelled: nothing more begins all the same."""
        self.ledger.paused = True
        while self.ledger.running:
            await self._ended.park()

    # --- arrivals

    def keep(self, jobs: Sequence[Job], kept: Callable[[], object], refused: Callable[[CallError], object]) -> None:
        """Store new jobs together, all or none; they wait for their turns from then on (Q1).

        `kept` is called then, or `refused` with a CallError `storage_failed`: none of them is there.
        """

        def stored() -> None:
            timestamp = self.timestamp
            for job in jobs:
                self.ledger.stored(job, timestamp)
            self._receipts.append(kept)

        def not_stored(error: StorageError) -> None:
            for job in jobs:
                self.ledger.refused(job)
            refused(CallError("storage_failed", str(error)))

        if jobs:
            self._journal.write([Put(job.record) for job in jobs], stored, not_stored)
        else:
            kept()

    async def redrive(self, jobs: Sequence[Job]) -> None:
        """Dead letters are jobs again (Q8). Raises CallError `storage_failed`: none of them is. If cancelled: they are."""

        def kept() -> None:
            for job in jobs:
                self.ledger.redriven(job)

        changes = [change for job in jobs for change in self.ledger.redrive(job)]
        await self._written(changes, kept, lambda: self._still_dead(jobs))

    async def discard(self, jobs: Sequence[Job]) -> None:
        """Dead letters are thrown away (Q8). Raises CallError `storage_failed`: none of them is. If cancelled: they are."""
        changes = [change for job in jobs for change in self.ledger.discard(job)]
        await self._written(changes, lambda: self._erased(jobs), lambda: self._still_dead(jobs))

    async def data_of(self, job: Job) -> bytes:
        """Its payload, as JSON. Raises CallError `storage_failed`. If cancelled: nothing changes."""
        try:
            return await self._journal.fetch(job.record.key) if job.record.data is None else job.record.data
        except StorageError as error:
            raise CallError("storage_failed", str(error)) from None

    # --- subscribers

    def subscribe(self, key: LaneKey, said: SubscriberConfig) -> Lane:
        """A subscriber is here: what is published from now on, and what has waited for it, is for it (Q7).

        It has to be `remembered`, and is to `unsubscribe` once.
        """
        lane = self.ledger.lanes.remember(key, said.settings)
        lane.condition = said.condition
        self.ledger.lanes.listen(lane, 1)
        self.begin()
        return lane

    async def remembered(self, lane: Lane, config: bytes) -> None:
        """Wait until the store knows of a subscriber. Raises CallError `storage_failed`. If cancelled: it will know."""
        if lane.said == config:
            return

        def kept() -> None:
            if lane.known:
                lane.said = config

        await self._written([Remember(lane.key.name, *lane.key.subscriber, config)], kept)

    def unsubscribe(self, lane: Lane, *, for_good: bool) -> None:
        """A subscriber is gone; if `for_good`, it does not want what is published from now on (Q7)."""
        self.ledger.lanes.listen(lane, -1)
        if for_good:
            self.forget(lane)

    def forget(self, lane: Lane) -> None:
        """Unless somebody listens: nobody wants what is published from now on."""
        if lane.known and not lane.listeners:
            lane.said = None
            self.ledger.lanes.forget(lane)
            self._journal.write([Forget(lane.key.name, *lane.key.subscriber)])

    # --- turns

    def begin(self) -> None:
        """Start whatever may start now."""
        if self._beginning or self._tasks is None:
            return
        self._beginning = True  # an attempt may be over at once: what may start then is seen to here
        try:
            for job in self.ledger.lease(self.timestamp, lambda: can_call(self._worker)):
                attempt = self._attempts[job.record.key] = Attempt(self._worker, job, self._over, self._arrivals)
                if job.record.data is None:
                    self._tasks.start_soon(self._fetch_for, attempt)
                else:
                    attempt.begin(job.record.data)
        finally:
            self._beginning = False
        if not can_call(self._worker) and not self._waiting_to_ask:
            self._waiting_to_ask = True
            self._tasks.start_soon(self._wait_to_ask)
        self._mind_the_time()

    def _committed(self) -> None:
        """Whoever is to work begins before the others are told: that is done while they work."""
        self.begin()
        receipts, self._receipts = self._receipts, []
        for tell in receipts:
            tell()
        flush(self._worker)

    async def _wait_to_ask(self) -> None:
        try:
            await wait_can_call(self._worker)
        except ConnectionFailed:
            return  # the worker has left: nothing begins any more
        self._waiting_to_ask = False
        self.begin()

    async def _fetch_for(self, attempt: Attempt) -> None:
        try:
            data = await self.data_of(attempt.job)
        except CallError as error:
            self._tell(logging.ERROR, attempt.job, f"cannot be read: {error.message}")
            if not attempt.stopped:
                self._over(attempt, AttemptResult(AttemptOutcome.POSTPONED))
        else:
            if not attempt.stopped:
                attempt.begin(data)

    def _over(self, attempt: Attempt, result: AttemptResult) -> None:
        del self._attempts[attempt.job.record.key]
        if result.outcome is AttemptOutcome.MISSING and attempt.arrivals != self._arrivals:
            result = AttemptResult(
                AttemptOutcome.RETURNED
            )  # functions have come meanwhile, and its own may be one of them
        self._ran(attempt.job, result)
        self._go_on()

    def _go_on(self) -> None:
        """A job has moved: others may start, or nothing runs any more."""
        if self.ledger.paused:
            self._ended.unpark_all()
        self.begin()

    def _stop(self, job: Job, reason: str) -> None:
        attempt = self._attempts.pop(job.record.key, None)
        if attempt is not None:
            attempt.stop(reason)

    def _ran(self, job: Job, result: AttemptResult) -> None:
        ledger, timestamp = self.ledger, self.timestamp
        match result.outcome:
            case AttemptOutcome.SUCCEEDED:
                self._journal.write(ledger.succeeded(job, timestamp), lambda: self._erased([job]))
            case AttemptOutcome.FAILED:
                self._moved(job, ledger.failed(job, result.code, result.message, timestamp))
            case AttemptOutcome.LOST:
                self._moved(job, ledger.lost(job, result.message, timestamp))
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

    def _moved(self, job: Job, changes: Sequence[Change]) -> None:
        """A job has failed: it is ready again, or rests, or is dead."""
        dead = job.record.died_at_ms is not None
        self._journal.write(changes, (lambda: self._dead_lettered(job)) if dead else None)

    def _still_dead(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.ledger.still_dead(job)

    def _erased(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.ledger.erased(job)

    def _dead_lettered(self, job: Job) -> None:
        record = job.record
        counts = f"after {record.attempts} failed calls and {record.lost} lost workers"
        self._tell(logging.WARNING, job, f"is a dead letter, {counts}: {record.code}: {record.message}")
        too_many = self.ledger.dead_lettered(job)
        for unwanted in too_many:
            self._tell(logging.WARNING, unwanted, "is a dead letter no more: it gave way to newer ones")
        changes = [change for unwanted in too_many for change in self.ledger.discard(unwanted)]
        self._journal.write(changes, lambda: self._erased(too_many))

    # --- functions that nobody has

    def _watch(self) -> None:
        """Hear of it when functions come. Nobody is asked to tell before it is wanted."""
        if not self._watching and self._tasks is not None:
            self._watching = True
            self._tasks.start_soon(self._start_to_watch)

    async def _start_to_watch(self) -> None:
        self._worker.register_trigger("engine::functions-available", FUNCTIONS_CHANGED, namespace="default")
        await self._worker.wait_registered()
        self.functions_came(self.ledger.missing_functions)  # they may have come before anybody listened

    def functions_came(self, functions: Sequence[tuple[str, str]]) -> None:
        """Somebody may have these now: namespaces and ids."""
        self._arrivals += 1
        for function in functions:
            self.ledger.function_came(function)
        self.begin()

    # --- inside

    async def _written(
        self,
        changes: Sequence[Change],
        kept: Callable[[], object] = lambda: None,
        refused: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait until changes are kept; `kept` or `refused` is called whether or not anybody still waits."""
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

    def _tell(self, level: int, job: Job, what: str) -> None:
        name, function_id = job.lane.key.name, job.record.function_id
        about = {"queue": name, "job": job.record.id, "function": function_id}
        self._logger.log(trio.current_time(), level, f"job {job.record.id} of {name} {what}", about)

    def _mind_the_time(self) -> None:
        due = self.ledger.next_due()
        deadline = math.inf if due is None else due
        if self._nap.deadline != deadline:  # setting it costs, even to what it is
            self._nap.deadline = deadline
