"""The subscribers of topics: those that are here, and those that are away and remembered (Q7)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, final

import trio

from ...report import get_logger
from .dispatcher import Dispatcher
from .lane import Job, Lane
from .lane_key import LaneKey
from .operators import Operators
from .protocol import SubscriberConfig, read_subscriber
from .settings import QueueConfig
from .store import Forget, Remember

LOGGER: Final = get_logger("iii_trio.queue")
_GRACE_SECONDS: Final = 3600.0
"""For how long a subscriber may stay away after an engine's start, because it may have been away with the engine."""


@final
class Subscribers:
    """The memory of a queue for its subscribers."""

    def __init__(self, dispatcher: Dispatcher, operators: Operators) -> None:
        self._dispatcher = dispatcher
        self._operators = operators
        self._lanes = dispatcher.ledger.lanes
        self._journal = dispatcher.journal
        self._ends: dict[Lane, float] = {}
        """When the subscriptions end of subscribers that are away, by the monotonic clock."""
        self._told: set[Lane] = set()
        """The absences in which messages have given way."""
        self._next_end = trio.CancelScope()

    def load(self, remembered: Iterable[Remember]) -> None:
        """Take over the subscribers of an earlier engine. They are away until they bind themselves again."""
        for one in remembered:
            self._load(one)

    def _load(self, one: Remember) -> None:
        try:
            read = read_subscriber(one.config)
        except ValueError as error:
            LOGGER.error(
                "the configuration of %s, a subscriber of %s, is damaged in %s, and the defaults hold until it is back: %s",
                one.function_id, one.topic, self._dispatcher.place, error,
            )  # fmt: skip
            read = read_subscriber(b"{}")
        key = LaneKey("topic", one.topic, one.namespace, one.function_id)
        lane = self._lanes.remember(key, read.settings, read.condition)
        lane.config = one.config
        lane.away_since_ms = one.away_since_ms or self._dispatcher.timestamp.wall_ms
        self._expect(lane, at_least=_GRACE_SECONDS)

    async def end_absences(self) -> None:
        """End the subscriptions of subscribers that are away for too long (Q34), until cancelled."""
        while True:
            with trio.CancelScope() as self._next_end:
                self._next_end.deadline = min(self._ends.values(), default=math.inf)
                await trio.sleep_forever()
            now = trio.current_time()
            for lane in [lane for lane, end in self._ends.items() if end <= now]:
                del self._ends[lane]
                await self._end_absence(lane)

    async def _end_absence(self, lane: Lane) -> None:
        self.forget(lane)
        count = await self._operators.purge([lane])
        LOGGER.warning(
            "the subscription of %s to %s has ended, because it was away for %g days (max_away_seconds); %d messages that "
            "waited for it are removed",
            lane.key.function_id, lane.key.name, (self._config.max_away_seconds or 0) / 86_400, count,
            extra={"queue": lane.key.name, "function": lane.key.function_id},
        )  # fmt: skip

    def reconfigure(self) -> None:
        """Use the bounds of the queue's new configuration from now on."""
        for lane in self._lanes:
            if lane.key.kind == "topic" and lane.known and not lane.listeners:
                self._expect(lane)

    def _expect(self, lane: Lane, *, at_least: float = 0.0) -> None:
        """Note when the subscription of a subscriber ends that is away."""
        self._ends.pop(lane, None)
        longest = self._config.max_away_seconds
        if longest is not None and lane.away_since_ms is not None:
            timestamp = self._dispatcher.timestamp
            # A clock that jumps shortens or lengthens no absence beyond its bounds (Q18).
            left = min(max(longest - (timestamp.wall_ms - lane.away_since_ms) / 1000, at_least), longest)
            self._ends[lane] = timestamp.now + left
        self._next_end.deadline = min(self._ends.values(), default=math.inf)

    def oldest_of_absent(self, lanes: Sequence[Lane]) -> dict[Lane, Job]:
        """Return the jobs that give way to a new message, by lane, where a subscriber is away and has `max_away_jobs`."""
        bound = self._config.max_away_jobs
        found: dict[Lane, Job] = {}
        for lane in lanes:
            if bound is None or lane.listeners or lane.unfinished + lane.unloaded < bound:
                continue
            job = lane.oldest_ready()
            if job is None:
                continue
            found[lane] = job
            lane.dropped += 1
            # Once an absence, because there may be many.
            if lane not in self._told:
                self._told.add(lane)
                LOGGER.warning(
                    "%d messages of %s wait for %s, which is away; the oldest give way to new ones (max_away_jobs)",
                    bound, lane.key.name, lane.key.function_id,
                    extra={"queue": lane.key.name, "function": lane.key.function_id},
                )  # fmt: skip
        return found

    @property
    def _config(self) -> QueueConfig:
        return self._dispatcher.ledger.room.config

    def subscribe(self, key: LaneKey, read: SubscriberConfig) -> Lane:
        """Add a subscriber. It receives the jobs that wait for it first, then new ones (Q7).

        Await `remembered` then, and call `unsubscribe` once.
        """
        lane = self._lanes.remember(key, read.settings, read.condition)
        if lane.away_since_ms is not None and lane.config is not None:
            self._journal.write([Remember(lane.key.name, *lane.key.subscriber, lane.config)])  # it is away no more
        lane.away_since_ms = None
        self._expect(lane)
        self._told.discard(lane)
        self._lanes.listen(lane, 1)
        self._dispatcher.start_jobs()
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

        await self._journal.written([Remember(lane.key.name, *lane.key.subscriber, config)], kept)

    def unsubscribe(self, lane: Lane, *, for_good: bool) -> None:
        """Note the end of a subscriber's binding. With `for_good`, later messages are not for it (Q7)."""
        self._lanes.listen(lane, -1)
        if lane.listeners:
            return
        self._dispatcher.ledger.withdraw(lane)
        lane.away_since_ms = self._dispatcher.timestamp.wall_ms
        if for_good:
            self.forget(lane)
            return
        self._expect(lane)
        if lane.known and lane.config is not None:
            self._journal.write([Remember(lane.key.name, *lane.key.subscriber, lane.config, lane.away_since_ms)])

    def forget(self, lane: Lane) -> None:
        """End a subscription, unless it has bindings. Later messages are not for it."""
        if lane.known and not lane.listeners:
            lane.config = None
            self._ends.pop(lane, None)
            self._told.discard(lane)
            self._lanes.forget(lane)
            self._journal.write([Forget(lane.key.name, *lane.key.subscriber)])

    async def withdraw(self, topic: str, function: tuple[str, str]) -> None:
        """End the subscription of a subscriber, unless it has bindings, and wait until the store has forgotten it.

        Raises CallError `storage_failed`. If cancelled: it may be forgotten.
        """
        for lane in self._lanes.topic(topic):
            if lane.key.subscriber == function:
                if lane.listeners:
                    return
                self.forget(lane)
        # It may be forgotten here already, and there still.
        await self._journal.written([Forget(topic, *function)])

    async def remove(self, lane: Lane) -> int:
        """End the subscription of a subscriber that is away, with all its jobs. Return how many there were (Q17).

        Raises CallError `storage_failed`: its dead letters are there still. If cancelled: they may be.
        """
        self.forget(lane)
        count = await self._operators.purge([lane])
        dead = list(lane.dead_letters())
        await self._operators.discard(dead)
        return count + len(dead)
