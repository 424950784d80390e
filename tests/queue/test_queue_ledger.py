"""The ledger against a model that looks at every job: who may start is who starts, and nothing is lost."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from iii_trio import QueueConfig, QueueSettings
from iii_trio.triggers.queue import Change, MemoryStore, Put
from iii_trio.triggers.queue.isolation import is_suspect
from iii_trio.triggers.queue.job_loader import JobLoader
from iii_trio.triggers.queue.lane import Job, Lane
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.record import Timestamp
from iii_trio.triggers.queue.room import on_disk
from iii_trio.triggers.queue.states import JobState

PLAIN = QueueSettings(max_attempts=2, concurrency=2, backoff_seconds=4, missing_function_seconds=50, dead_letters=3)
FIFO = QueueSettings(
    max_attempts=3, concurrency=2, backoff_seconds=1, fifo=True, group_by="g", max_lost_deliveries=2, delay_seconds=3
)
CONFIG = QueueConfig(queues={"plain": PLAIN, "fifo": FIFO}, memory_bytes=40)
IN_FLIGHT = (JobState.LEASED, JobState.FINISHING, JobState.DYING)
TOPIC = LaneKey("topic", "orders", "default", "f0")


class LedgerMachine(RuleBasedStateMachine):
    """What may happen to a ledger. A job that is known to be kept is followed by its id until it is over."""

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = MemoryStore()
        self.now = 1000.0
        self.ledger = Ledger(CONFIG, lambda: 1.0)
        self.kept: dict[str, tuple[int, int]] = {}  # the attempts and lost workers of each that is not over
        self.dead: set[str] = set()
        self.jobs: dict[str, Job] = {}
        self.leased: list[Job] = []
        self.missing: set[tuple[str, str]] = set()
        self.alone: list[Job] = []  # the suspects that run
        self.begun: set[str] = set()
        self.made = 0
        self.topic = self.ledger.lanes.remember(TOPIC, PLAIN, None)
        self.last_end: dict[tuple[str, str], int] = {}

    @property
    def timestamp(self) -> Timestamp:
        return Timestamp(self.now, int(self.now * 1000) + 7_000_000)

    def write(self, changes: list[Change]) -> None:
        self.store.write(changes)

    # --- what happens

    @rule(
        where=st.sampled_from(["plain", "fifo", "topic"]),
        group=st.sampled_from("ab"),
        function=st.integers(0, 1),
        kept=st.booleans() | st.just(True),
    )
    def arrive(self, where: str, group: str, function: int, kept: bool) -> None:
        lane = self.topic if where == "topic" else self.ledger.lanes.queue(where)
        assert lane is not None
        self.made += 1
        called = TOPIC.subscriber if where == "topic" else ("default", f"f{function}")
        job = self.ledger.admit(
            lane,
            f"job {self.made}",
            called,
            b'"' + b"x" * 13 + b'"',
            self.timestamp,
            group=group if where == "fifo" else None,
        )
        assert not list(self.ledger.lease(self.timestamp)), "it is not stored yet"
        if kept:
            self.write([Put(job.record)])
            self.ledger.stored(job, self.timestamp)
            self.kept[job.record.id] = (0, 0)
            self.jobs[job.record.id] = job
        else:
            self.ledger.refused(job)
        self.turns()

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), end=st.sampled_from(["succeeded", "failed", "lost", "returned", "missing", "put off"]))
    def end_one(self, data: st.DataObject, end: str) -> None:
        self.end(data.draw(st.sampled_from(self.leased), label="job"), end)

    @precondition(lambda self: self.leased)
    @rule(end=st.sampled_from(["failed", "lost"]), seconds=st.sampled_from([1.0, 8.0]))
    def all_fail_and_time_passes(self, end: str, seconds: float) -> None:
        """Often enough for jobs to use up what they have."""
        for job in list(self.leased):
            if job in self.leased:
                self.end(job, end)
        self.time_passes(seconds)

    def end(self, job: Job, end: str) -> None:
        self.leased.remove(job)
        ident, lane = job.record.id, job.lane
        attempts, lost = self.kept[ident]
        match end:
            case "succeeded":
                changes = self.ledger.succeeded(job, self.timestamp)
                self.turns()  # its end is not on disk yet: nobody of its group may start
                self.write(changes)
                self.ledger.erased(job)
                del self.kept[ident]
            case "failed" | "lost":
                if end == "failed":
                    changes = self.ledger.failed(job, "code", "text", self.timestamp)
                    self.kept[ident] = (attempts + 1, lost)
                else:
                    [(_, changes)] = self.ledger.lost([job], "text", self.timestamp)
                    self.kept[ident] = (attempts, lost + 1)
                self.see_whether_it_died(job, end, changes)
            case "returned":
                self.ledger.returned(job)
            case "missing":
                self.ledger.missing(job, self.timestamp)
                self.missing.add(job.function)
            case "put off":
                self.write(self.ledger.postponed(job, self.timestamp))
        assert (job.record.progress.attempts, job.record.progress.lost) == self.kept.get(
            ident, (attempts, lost)
        ) or ident in self.dead
        assert lane.settings.max_attempts > self.kept.get(ident, (0, 0))[0]
        self.turns()

    def see_whether_it_died(self, job: Job, end: str, changes: list[Change]) -> None:
        """It is dead exactly when its attempts, or its workers, are used up."""
        ident, wanted = job.record.id, job.lane.settings
        attempts, lost = self.kept[ident]
        over = attempts >= wanted.max_attempts if end == "failed" else lost >= wanted.max_lost_deliveries
        assert over == (job.current_state is JobState.DYING)
        self.write(changes)
        if over:
            self.turns()  # its death is not on disk yet
            del self.kept[ident]
            self.dead.add(ident)
            self.begun.discard(ident)  # tried again, it goes behind all that waits
            for unwanted in self.ledger.dead_lettered(job):
                self.dead.remove(unwanted.record.id)
                self.write(self.ledger.discard(unwanted))
                self.ledger.erased(unwanted)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        moved = self.ledger.tick(self.timestamp)
        self.missing = set(self.ledger.parked.functions)
        for job, changes in moved:
            attempts, lost = self.kept[job.record.id]
            self.kept[job.record.id] = (attempts + 1, lost)  # its function was missing for too long
            self.see_whether_it_died(job, "failed", changes)
        due = self.ledger.next_due()
        assert due is None or due > self.now
        self.turns()

    @rule(function=st.integers(0, 1))
    def function_comes(self, function: int) -> None:
        self.missing.discard(("default", f"f{function}"))
        self.ledger.function_came(("default", f"f{function}"))
        self.turns()

    @rule(change=st.sampled_from([1, -1]))
    def subscriber_comes_or_goes(self, change: int) -> None:
        if self.topic.listeners + change >= 0:
            self.ledger.lanes.listen(self.topic, change)
            self.turns()

    @precondition(lambda self: self.dead)
    @rule(data=st.data(), again=st.booleans(), stored=st.booleans() | st.just(True))
    def see_to_a_dead_letter(self, data: st.DataObject, again: bool, stored: bool) -> None:
        job = self.jobs[data.draw(st.sampled_from(sorted(self.dead)), label="dead")]
        changes = self.ledger.redrive(job) if again else self.ledger.discard(job)
        self.turns()  # nothing of it is on disk yet
        if not stored:
            self.ledger.still_dead(job)
            return
        self.write(changes)
        self.dead.remove(job.record.id)
        if again:
            self.ledger.redriven(job)
            self.kept[job.record.id] = (0, 0)
        else:
            self.ledger.erased(job)
        self.turns()

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def cancel_one(self, data: st.DataObject) -> None:
        ident = data.draw(st.sampled_from(sorted(self.kept)), label="cancelled")
        job = self.jobs[ident]
        changes = self.ledger.cancel(job)
        if job in self.leased:
            self.leased.remove(job)
        self.missing = set(self.ledger.parked.functions)
        self.turns()  # its end is not on disk yet: nobody of its group may start
        self.write(changes)
        self.ledger.erased(job)
        del self.kept[ident]
        self.turns()

    @rule(where=st.sampled_from(["plain", "fifo", "topic"]), paused=st.booleans())
    def pause_or_resume(self, where: str, paused: bool) -> None:
        lane = self.topic if where == "topic" else self.ledger.lanes.queue(where)
        assert lane is not None
        self.ledger.pause(lane, paused)
        self.turns()

    @rule(gap=st.sampled_from([0.0, 2.0]))
    def engine_starts_anew(self, gap: float) -> None:
        """Killed, whatever ran: another ledger, of what is in the store."""
        listeners = self.topic.listeners
        self.now += gap
        self.ledger = Ledger(CONFIG, lambda: 1.0)
        loader = JobLoader(self.ledger)
        assert loader.load(self.store.load().jobs, {}, self.timestamp) == []
        assert loader.end({}, self.timestamp) == []
        self.topic = self.ledger.lanes.remember(TOPIC, PLAIN, None)
        self.topic.listeners = listeners
        self.begun = set()
        self.ledger.lanes.listen(self.topic, 0)
        self.leased, self.missing, self.alone = [], set(), []
        everyone = [job for lane in self.ledger.lanes for job in (*lane.jobs.values(), *lane.dead.values())]
        self.jobs = {job.record.id: job for job in everyone}
        assert {job.record.id for lane in self.ledger.lanes for job in lane.dead.values()} == self.dead
        self.turns()

    @rule(fifo=st.booleans())
    def configured_anew(self, fifo: bool) -> None:
        """Orders are no longer kept, or are again; nothing else changes."""
        queues = {
            "plain": PLAIN,
            "fifo": FIFO if fifo else QueueSettings(max_attempts=3, concurrency=2, backoff_seconds=1),
        }
        lane = self.ledger.lanes.queue("fifo")
        assert lane is not None
        if fifo and not lane.settings.fifo:  # what has begun comes first in its group, until it is over
            self.begun = {job.record.id for job in lane.jobs.values() if job.current_state in IN_FLIGHT}
        elif not fifo:
            self.begun = set()
        self.ledger.reconfigure(QueueConfig(queues=queues, memory_bytes=40))
        self.turns()

    # --- who may start

    def turns(self) -> None:
        """Exactly those start that may: found by looking at every job."""
        self.missing |= set(self.ledger.parked.functions)
        ran = [job for job in self.leased if job.current_state is JobState.LEASED]
        suspects = [job for lane in self.ledger.lanes for job in lane.jobs.values() if is_suspect(job)]
        if suspects or self.ledger._isolation.active:
            self.turns_with_suspects(ran)
            return
        expected = {job.record.id for lane in self.ledger.lanes for job in self.startable(lane)}
        started = list(self.ledger.lease(self.timestamp))
        assert {job.record.id for job in started} == expected
        self.leased += started

    def turns_with_suspects(self, ran: list[Job]) -> None:
        """A suspect runs alone among the jobs of its function, and nothing stands still because of it (Q16)."""
        startable = {job.record.id for lane in self.ledger.lanes for job in self.startable(lane, limited=False)}
        could = any(self.startable(lane) for lane in self.ledger.lanes)
        started = list(self.ledger.lease(self.timestamp))
        assert {job.record.id for job in started} <= startable
        running = ran + started
        self.alone = [job for job in self.alone if job in running] + [job for job in started if is_suspect(job)]
        for job in self.alone:
            assert [other for other in running if other.function == job.function] == [job]
        assert running or not could, "jobs could start, and none runs"
        self.leased += started

    def startable(self, lane: Lane, *, limited: bool = True) -> list[Job]:
        if not lane.open or lane.paused:
            return []
        waiting = sorted(lane.jobs.values(), key=lambda job: (job.record.id not in self.begun, job.record.position))
        free = lane.settings.concurrency - sum(job.current_state is JobState.LEASED for job in waiting)
        busy: set[str] = set()
        found = []
        if lane.settings.fifo:
            busy = {job.record.group or "" for job in waiting if job.current_state in IN_FLIGHT}
        for job in waiting:
            if lane.settings.fifo:
                group = job.record.group or ""
                if group in busy:
                    continue
                busy.add(group)
            if job.current_state is JobState.READY and job.function not in self.missing:
                found.append(job)
        return found[: max(0, free)] if limited else found

    # --- always

    @invariant()
    def nothing_is_lost_and_the_store_has_it(self) -> None:
        there = {job.record.id for lane in self.ledger.lanes for job in lane.jobs.values()}
        assert there == set(self.kept)
        records = {record.id: record for record in self.store.load().jobs}
        assert set(records) == set(self.kept) | self.dead
        for ident, (attempts, lost) in self.kept.items():
            assert (records[ident].progress.attempts, records[ident].progress.lost) == (attempts, lost)
        assert all(records[ident].progress.died_at_ms is not None for ident in self.dead)

    @invariant()
    def counts_agree(self) -> None:
        for lane in self.ledger.lanes:
            jobs = [*lane.jobs.values(), *lane.dead.values()]
            for phase in JobState:
                if phase not in (JobState.DONE, JobState.REFUSED):
                    assert lane.state_counts[phase] == sum(job.current_state is phase for job in jobs), phase
            assert lane.unfinished == len(lane.jobs)
            assert lane.running == lane.state_counts[JobState.LEASED]
            assert len(lane.dead) <= lane.settings.dead_letters
        assert self.ledger.room.unfinished == len(self.kept)
        everyone = [job for lane in self.ledger.lanes for job in (*lane.jobs.values(), *lane.dead.values())]
        assert self.ledger.room.disk_bytes == sum(on_disk(job.held_bytes) for job in everyone)
        topics = [lane for lane in self.ledger.lanes if lane.key.kind == "topic"]
        assert self.ledger.lanes.topic("orders") == topics

    @invariant()
    def memory_is_bounded(self) -> None:
        jobs = [job for lane in self.ledger.lanes for job in (*lane.jobs.values(), *lane.dead.values())]
        assert self.ledger.room.kept_bytes == sum(job.size for job in jobs if job.record.data is not None) <= 40


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
