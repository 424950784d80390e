"""The memory for subscribers, with a journal and a ledger only: absences, and what the store is told (Q7, Q34)."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock as Clock

from iii_trio import QueueConfig
from iii_trio.triggers.queue import Change, MemoryStore, Remember
from iii_trio.triggers.queue.journal import Journal
from iii_trio.triggers.queue.lane import Job, Lane
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.operators import Operators
from iii_trio.triggers.queue.protocol import read_subscriber
from iii_trio.triggers.queue.record import Timestamp
from iii_trio.triggers.queue.store import Forget, Remove
from iii_trio.triggers.queue.subscribers import Subscribers
from tests.helpers.queue_world import inline, settled
from tests.queue.ledgers import stored

KEY = LaneKey("topic", "orders", "default", "f")
CONFIG = b'{"topic":"orders"}'
DAY = 86_400.0


class Noted(MemoryStore):
    """A store that notes its commits."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[list[Change]] = []

    def write(self, changes: Sequence[Change]) -> None:
        super().write(changes)
        self.commits.append(list(changes))


class World:
    """The parts of a dispatcher that subscribers and operators use. `wall` is the date, in seconds."""

    place = "memory"

    def __init__(self, config: QueueConfig) -> None:
        self.ledger = Ledger(config, lambda: 1.0)
        self.store = Noted()
        self.journal = Journal(self.store, inline)
        self.wall = 1_000_000.0
        self.began = trio.current_time()
        self.stopped: list[Job] = []
        self.looks = 0
        dispatcher: Any = self
        self.operators = Operators(dispatcher)
        self.subscribers = Subscribers(dispatcher, self.operators)

    @property
    def timestamp(self) -> Timestamp:
        now = trio.current_time()
        return Timestamp(now, round((self.wall + now - self.began) * 1000))

    def start_jobs(self) -> None:
        self.looks += 1

    go_on = start_jobs

    def stop(self, job: Job, reason: str) -> None:
        self.stopped.append(job)

    def erased(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.ledger.erased(job)

    def come(self) -> Lane:
        return self.subscribers.subscribe(KEY, read_subscriber(CONFIG))

    async def come_and_go(self) -> Lane:
        lane = self.come()
        await self.subscribers.remembered(lane, CONFIG)
        self.subscribers.unsubscribe(lane, for_good=False)
        return lane

    def reconfigure(self, **bounds: Any) -> None:
        self.ledger.reconfigure(QueueConfig(**bounds))
        self.subscribers.reconfigure()

    def is_remembered(self) -> bool:
        return bool(self.ledger.lanes.topic("orders"))

    async def gone_after(self, seconds: float) -> None:
        """Assert that the subscription ends after so many seconds, and not a second before."""
        await trio.sleep(seconds - 1)
        assert self.is_remembered()
        await trio.sleep(2)
        assert not self.is_remembered()


@asynccontextmanager
async def world(**bounds: Any) -> AsyncIterator[World]:
    made = World(QueueConfig(**bounds))
    async with trio.open_nursery() as nursery:
        await nursery.start(made.journal.keep)
        nursery.start_soon(made.subscribers.end_absences)
        await settled()
        yield made
        nursery.cancel_scope.cancel()


# --- coming and going


async def test_Q7_the_store_learns_of_a_subscriber_of_its_absence_and_of_its_return(autojump_clock: Clock) -> None:
    async with world() as w:
        lane = w.come()
        assert (lane.listeners, lane.config, w.looks) == (1, None, 1)
        await w.subscribers.remembered(lane, CONFIG)
        await w.subscribers.remembered(lane, CONFIG)
        assert lane.config == CONFIG and w.store.commits == [[Remember("orders", "default", "f", CONFIG)]], "once"
        w.subscribers.unsubscribe(lane, for_good=False)
        await settled()
        away = Remember("orders", "default", "f", CONFIG, 1_000_000_000)
        assert w.store.commits[1:] == [[away]] and lane.away_since_ms == 1_000_000_000
        assert w.come() is lane and lane.away_since_ms is None
        await settled()
        assert w.store.commits[2:] == [[Remember("orders", "default", "f", CONFIG)]]
        await w.subscribers.remembered(lane, b'{"topic":"orders","x":1}')
        assert lane.config == b'{"topic":"orders","x":1}' and len(w.store.commits) == 4


async def test_Q7_a_binding_that_ends_for_good_is_forgotten(autojump_clock: Clock) -> None:
    async with world() as w:
        lane = w.come()
        await w.subscribers.remembered(lane, CONFIG)
        w.subscribers.unsubscribe(lane, for_good=True)
        await settled()
        assert w.store.commits[1:] == [[Forget("orders", "default", "f")]] and not w.is_remembered()
        assert lane.config is None and w.subscribers._ends == {}


async def test_Q7_of_two_bindings_the_last_one_ends_the_presence(autojump_clock: Clock) -> None:
    async with world() as w:
        lane = w.come()
        assert w.come() is lane and lane.listeners == 2
        await w.subscribers.remembered(lane, CONFIG)
        w.subscribers.unsubscribe(lane, for_good=True)
        w.subscribers.forget(lane)
        await settled()
        assert lane.known and lane.away_since_ms is None and len(w.store.commits) == 1
        w.subscribers.unsubscribe(lane, for_good=False)
        assert lane.away_since_ms == 1_000_000_000 and lane.listeners == 0


async def test_a_subscriber_that_goes_before_the_store_knows_it_is_told_to_nobody(autojump_clock: Clock) -> None:
    async with world() as w:
        lane = w.come()
        w.subscribers.unsubscribe(lane, for_good=False)
        w.come()
        await settled()
        assert w.store.commits == [] and lane.listeners == 1


async def test_a_subscriber_that_is_forgotten_on_the_way_to_the_store_has_no_config(autojump_clock: Clock) -> None:
    async with world() as w:
        lane = w.come()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.subscribers.remembered, lane, CONFIG)
            await settled()
        lane.config = None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.subscribers.remembered, lane, CONFIG)
            await trio.lowlevel.checkpoint()
            w.subscribers.unsubscribe(lane, for_good=True)
        assert lane.config is None and not lane.known


# --- absences


async def test_Q34_a_subscription_ends_after_its_time_and_its_messages_are_removed(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "iii_trio")
    async with world(max_away_seconds=2.5 * DAY) as w:
        lane = await w.come_and_go()
        job = stored(w.ledger, "a", lane)
        await w.gone_after(2.5 * DAY)
        changes = [change for commit in w.store.commits for change in commit]
        assert changes[-2:] == [Forget("orders", "default", "f"), Remove(job.record.key)]
        assert [line.getMessage() for line in caplog.records] == [
            "the subscription of f to orders has ended, because it was away for 2.5 days (max_away_seconds); 1 messages "
            "that waited for it are removed"
        ]


async def test_Q34_each_absence_has_its_own_end(autojump_clock: Clock) -> None:
    async with world(max_away_seconds=100) as w:
        await w.come_and_go()
        await trio.sleep(30)
        other = w.subscribers.subscribe(LaneKey("topic", "orders", "default", "g"), read_subscriber(CONFIG))
        w.subscribers.unsubscribe(other, for_good=False)
        await trio.sleep(69)
        assert len(w.ledger.lanes.topic("orders")) == 2
        await trio.sleep(2)
        assert w.ledger.lanes.topic("orders") == [other]
        await trio.sleep(28)
        assert w.ledger.lanes.topic("orders") == [other]
        await trio.sleep(2)
        assert w.ledger.lanes.topic("orders") == []


async def test_Q34_a_subscriber_that_comes_back_ends_its_absence(autojump_clock: Clock) -> None:
    async with world(max_away_seconds=100) as w:
        lane = await w.come_and_go()
        await trio.sleep(50)
        w.come()
        assert w.subscribers._ends == {}
        await trio.sleep(1000)
        assert w.is_remembered()
        w.subscribers.unsubscribe(lane, for_good=False)
        await w.gone_after(100)


@pytest.mark.parametrize(
    ("max_away_seconds", "away_for", "left"),
    [
        (2 * DAY, DAY, DAY),
        (2 * DAY, 2 * DAY - 3601, 3601),
        (2 * DAY, 2 * DAY - 3599, 3600),  # it may have been away with the engine
        (2 * DAY, 9 * DAY, 3600),
        (2 * DAY, -DAY, 2 * DAY),  # the calendar's clock was set back
        (60, 9 * DAY, 60),
        (2 * DAY, None, 2 * DAY),  # it was here when its engine ended
    ],
)
async def test_Q34_an_absence_goes_on_after_a_restart_for_an_hour_at_least(
    autojump_clock: Clock, max_away_seconds: float, away_for: float | None, left: float
) -> None:
    async with world(max_away_seconds=max_away_seconds) as w:
        since = None if away_for is None else round((w.wall - away_for) * 1000)
        w.subscribers.load([Remember("orders", "default", "f", CONFIG, since)])
        (lane,) = w.ledger.lanes.topic("orders")
        assert lane.config == CONFIG and lane.away_since_ms == (1_000_000_000 if since is None else since)
        await w.gone_after(left)


async def test_Q34_an_absence_is_counted_in_parts_of_seconds(autojump_clock: Clock) -> None:
    async with world(max_away_seconds=2 * DAY) as w:
        w.subscribers.load([Remember("orders", "default", "f", CONFIG, round(w.wall * 1000) - 1_500)])
        assert list(w.subscribers._ends.values()) == [w.began + 2 * DAY - 1.5]


async def test_Q34_an_absence_that_ends_while_another_is_ended_ends_next(autojump_clock: Clock) -> None:
    async with world(max_away_seconds=100) as w:
        await w.come_and_go()
        await trio.sleep(1)
        other = w.subscribers.subscribe(LaneKey("topic", "orders", "default", "g"), read_subscriber(CONFIG))
        w.subscribers.unsubscribe(other, for_good=False)
        await trio.sleep(98)
        async with w.journal._turn:  # the store is busy, and not done with the first one
            await trio.sleep(5)
            assert w.ledger.lanes.topic("orders") == [other]
        await trio.sleep(1)
        assert not w.is_remembered()


async def test_a_subscriber_whose_config_is_damaged_is_remembered_with_the_defaults(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as w:
        w.subscribers.load(
            [
                Remember("orders", "default", "f", b"{"),
                Remember("orders", "default", "g", b'{"queue_config":{"concurrency":2}}'),
            ]
        )
        bad, good = w.ledger.lanes.topic("orders")
        assert (bad.settings.concurrency, good.settings.concurrency) == (10, 2)
        assert "the configuration of f, a subscriber of orders, is damaged in memory" in caplog.text


async def test_Q34_the_bound_is_changed_while_the_queue_runs(autojump_clock: Clock) -> None:
    async with world(max_away_seconds=None) as w:
        lane = await w.come_and_go()
        assert w.subscribers._ends == {}
        await trio.sleep(50)
        w.reconfigure(max_away_seconds=100)
        assert w.subscribers._ends == {lane: w.began + 100}
        w.reconfigure(max_away_seconds=None)
        assert w.subscribers._ends == {} and w.subscribers._next_end.deadline == math.inf
        w.reconfigure(max_away_seconds=60)
        await w.gone_after(10)


async def test_Q34_a_change_of_the_bound_concerns_those_that_are_away_only(autojump_clock: Clock) -> None:
    async with world(max_away_seconds=None) as w:
        away = await w.come_and_go()
        here = w.subscribers.subscribe(LaneKey("topic", "orders", "default", "g"), read_subscriber(CONFIG))
        here.away_since_ms = 5  # it has no meaning while there are bindings
        unknown = w.subscribers.subscribe(LaneKey("topic", "orders", "default", "h"), read_subscriber(CONFIG))
        stored(w.ledger, "a", unknown)
        w.subscribers.unsubscribe(unknown, for_good=True)
        for queue in w.ledger.lanes.find("default", None):
            queue.away_since_ms = 5
        w.reconfigure(max_away_seconds=100)
        assert list(w.subscribers._ends) == [away]


async def test_Q34_the_oldest_messages_of_an_absent_subscriber_give_way(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "iii_trio")
    async with world(max_away_jobs=2) as w:
        lane = await w.come_and_go()
        here = w.subscribers.subscribe(LaneKey("topic", "orders", "default", "g"), read_subscriber(CONFIG))
        lanes = [here, lane]
        for number in range(2):
            assert w.subscribers.oldest_of_absent(lanes) == {} and lane.dropped == 0
            for one in lanes:
                stored(w.ledger, f"{number} {one.key.function_id}", one)
        stored(w.ledger, "more", here)
        oldest = w.ledger.find("0 f")
        assert w.subscribers.oldest_of_absent(lanes) == w.subscribers.oldest_of_absent(lanes) == {lane: oldest}
        assert (lane.dropped, here.dropped) == (2, 0)
        sentence = "2 messages of orders wait for f, which is away; the oldest give way to new ones (max_away_jobs)"
        assert [line.getMessage() for line in caplog.records] == [sentence], "once an absence"
        w.come()
        assert w.subscribers.oldest_of_absent(lanes) == {}
        w.subscribers.unsubscribe(lane, for_good=False)
        assert w.subscribers.oldest_of_absent(lanes) == {lane: oldest}
        assert [line.getMessage() for line in caplog.records] == [sentence] * 2, "another absence"
        stored(w.ledger, "third", lane)
        assert w.subscribers.oldest_of_absent(lanes) == {lane: oldest}, "the bound may have been lowered"
        for job in list(lane.jobs.values()):
            w.ledger.cancel(job)
        w.subscribers.unsubscribe(here, for_good=False)
        first = w.ledger.find("0 g")
        assert w.subscribers.oldest_of_absent([lane, here]) == {here: first}, "none of the other one is ready"
        w.reconfigure()
        assert w.subscribers.oldest_of_absent(lanes) == {}


# --- what operators do


async def test_Q17_a_removed_subscriber_takes_its_jobs_and_its_dead_letters_along(autojump_clock: Clock) -> None:
    async with world() as w:
        lane = w.come()
        await w.subscribers.remembered(lane, CONFIG)
        jobs = [stored(w.ledger, name, lane) for name in "abcde"]
        assert len(list(w.ledger.lease(w.timestamp, iter([True, True, True, False, False]).__next__))) == 2
        for job in jobs[:2]:
            w.ledger.give_up(job, "c", "m", w.timestamp)
            w.ledger.dead_lettered(job)
        w.subscribers.unsubscribe(lane, for_good=False)
        assert await w.subscribers.remove(lane) == 5
        assert not w.is_remembered() and w.ledger.room.disk_bytes == 0
        removed = [change for commit in w.store.commits for change in commit if isinstance(change, Remove)]
        assert [change.key for change in removed] == [3, 4, 5, 1, 2]


async def test_Q17_many_jobs_are_purged_in_commits_of_five_hundred(autojump_clock: Clock) -> None:
    async with world() as w:
        lane = w.come()
        for number in range(1001):
            stored(w.ledger, str(number), lane)
        written: list[int] = []
        write = w.journal.write

        def noting(changes: Sequence[Change], *callbacks: Any) -> None:
            written.append(len(changes))
            write(changes, *callbacks)

        w.journal.write = noting  # type: ignore[method-assign]
        assert await w.operators.purge([lane]) == 1001
        assert written == [500, 500, 1, 0] and lane.jobs == {}
        assert [change.key for commit in w.store.commits for change in commit if isinstance(change, Remove)] == list(
            range(1, 1002)
        )


async def test_Q24_a_cancelled_job_is_stopped_and_removed(autojump_clock: Clock) -> None:
    async with world() as w:
        lane = w.come()
        job, other = stored(w.ledger, "a", lane), stored(w.ledger, "b", lane)
        looks = w.looks
        await w.operators.cancel(job)
        assert w.stopped == [job] and w.looks == looks + 1 and list(lane.jobs.values()) == [other]
        assert w.store.commits == [[Remove(1)]]


@attrs.define
class Pieces:
    """A store's pieces of a file."""

    pieces: list[bytes]
    place: str = "file"

    def backup(self) -> Any:
        yield from self.pieces


async def test_Q32_a_backup_counts_the_bytes_that_it_gives(autojump_clock: Clock) -> None:
    async with world() as w:
        taken: list[bytes] = []

        async def take(piece: bytes) -> None:
            taken.append(piece)

        w.journal._store = Pieces([b"abc", b"", b"de"])  # type: ignore[assignment]
        assert await w.operators.backup(take) == 5 and taken == [b"abc", b"", b"de"]
