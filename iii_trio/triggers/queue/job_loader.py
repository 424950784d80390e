"""The jobs of an earlier engine, as a ledger takes them over.

Synchronous, as the ledger. `loading.py` reads the jobs from the store and hands them in piece by piece.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from typing import final

from .lane import WAITING, Job, Lane
from .lane_key import LaneKey
from .ledger import Ledger
from .record import NEW, Record, Timestamp
from .states import JobState
from .store import Backlog, Damaged
from .texts import is_json


@final
class JobLoader:
    """Puts stored jobs into the lines of a ledger, each at its place."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._room = ledger.room
        self._lanes = ledger.lanes
        self._displaced: list[tuple[int, int, Record]] = []
        """While jobs are loaded: a heap of those that are behind their places by key."""
        self._backlog: Backlog | None = None
        """While jobs are loaded and others come: what the store had at first."""
        self._touched: set[Lane] = set()
        """The lanes of jobs that were loaded just now."""
        self.doubles: list[Job | int] = []
        """Of receipts that came again while jobs were loaded, one of the two jobs: it, or its key if it is not loaded."""

    def begin(self, backlog: Backlog, settings: Mapping[str, bytes]) -> None:
        """Expect these jobs of an earlier engine. Others may come meanwhile, behind them. `settings` as in `load`."""
        self._backlog = backlog
        self._ledger.skip_key(backlog.last)
        self._lanes.keep_all = True
        self._room.unloaded = sum(backlog.unfinished.values())
        for text, count in backlog.unfinished.items():
            try:
                self._lane(text, settings).unloaded = count
            except ValueError:
                continue  # its jobs are damaged, each by itself

    def load(
        self, records: Iterable[Record | Damaged], settings: Mapping[str, bytes], timestamp: Timestamp
    ) -> list[Damaged]:
        """Take over jobs of an earlier engine, in the order of their keys. Return those that cannot be made sense of.

        Subscribers are to be remembered before. `settings` are those of lanes that nothing configures any more, by the
        texts of their keys. Call `end` at last.
        """
        damaged: list[Damaged] = []
        for record in records:
            if self._backlog is not None and record.key > self._backlog.last:
                continue  # it came while jobs were loaded, and is there
            self._ledger.skip_key(record.key)
            self._load_displaced(record.key, settings, timestamp, damaged)
            if isinstance(record, Damaged):
                damaged.append(record)
            elif record.position > record.key:  # it was redriven, and its place in line is further behind
                heapq.heappush(self._displaced, (record.position, record.key, record))
            else:
                self._load(record, settings, timestamp, damaged)
        if self._backlog is not None:
            for lane in self._touched:
                self._lanes.wake(lane)
            self._touched.clear()
        return damaged

    def _load_displaced(
        self, before: float, settings: Mapping[str, bytes], timestamp: Timestamp, damaged: list[Damaged]
    ) -> None:
        while self._displaced and self._displaced[0][0] < before:
            self._load(heapq.heappop(self._displaced)[2], settings, timestamp, damaged)

    def _load(
        self, record: Record, settings: Mapping[str, bytes], timestamp: Timestamp, damaged: list[Damaged]
    ) -> None:
        try:
            self._load_one(record, settings, timestamp)
        except ValueError as error:
            damaged.append(Damaged(record.key, str(error)))

    def _load_one(self, record: Record, settings: Mapping[str, bytes], timestamp: Timestamp) -> None:
        if record.data is None or not is_json(record.data):
            raise ValueError("its data is not JSON")
        lane = self._lane(record.lane, settings)
        self._touched.add(lane)
        self._ledger.skip_key(record.position)
        # An earlier engine saw these events, so the job begins in the state that they led to.
        if record.progress.died_at_ms is not None:
            job = self._ledger.enter(record, lane, JobState.DEAD)
            self._room.count_unfinished(lane, -1)
            self._room.release_payload(job)
            lane.dead[record.key] = job
            return
        if self._backlog is None or not self._came_again(record):
            self._load_unfinished(record, lane, timestamp)
        if lane.unloaded:
            lane.unloaded -= 1
            self._room.unloaded -= 1
            if not lane.unloaded:
                lane.all_loaded()

    def _load_unfinished(self, record: Record, lane: Lane, timestamp: Timestamp) -> None:
        left = 0.0 if record.progress is NEW else record.progress.pause_left_seconds(timestamp)
        job = self._ledger.enter(record, lane, JobState.DELAYED if left > 0 else JobState.READY)
        self._room.release_payload(job, unless_room=True)
        if left > 0:
            self._ledger.timers.set(job, timestamp.now + left)
        if record.options.unique_key is not None:
            age = max(0.0, (timestamp.wall_ms - record.created_at_ms) / 1000)
            self._ledger.unique.take(job, timestamp.now, age)
        lane.join(job)

    def _lane(self, text: str, settings: Mapping[str, bytes]) -> Lane:
        """Return the lane of a stored job. Raises ValueError for a damaged key, or damaged settings."""
        lane = self._lanes.get(text)
        if lane is None:
            lane = self._lanes.open(LaneKey.parse(text))
            lane.known = False  # its jobs are still to be done
            if (description := settings.get(text)) is not None:
                lane.restore(description)
        return lane

    def _came_again(self, record: Record) -> bool:
        """Whether a job of the same receipt, which came while jobs were loaded, takes the place of this one (Q21)."""
        newer = self._ledger.find(record.id)
        if newer is None:
            done = self._ledger.recent_end(record.id) == "done"
            if done:
                self.doubles.append(record.key)
            return done
        # One that may be refused yet replaces nothing.
        if newer.record.key == record.key or newer.current_state is JobState.STORING:
            return False
        if newer.current_state in WAITING and not newer.record.progress.attempts:
            self._ledger.displace(newer)
            self.doubles.append(newer)
            return False
        self.doubles.append(record.key)
        return True

    def end(self, settings: Mapping[str, bytes], timestamp: Timestamp) -> list[Damaged]:
        """End the loading: put the dead letters into the order of their deaths, and look at all lanes. Returns as `load`."""
        damaged: list[Damaged] = []
        self._load_displaced(math.inf, settings, timestamp, damaged)
        self._backlog = None
        self._touched.clear()
        self._room.unloaded = 0  # damaged jobs are not counted one by one
        self._lanes.keep_all = False
        for lane in self._lanes:
            lane.all_loaded()
            self._lanes.wake(lane)
            lane.dead = dict(sorted(lane.dead.items(), key=lambda item: item[1].record.progress.died_at_ms or 0))
            self._lanes.drop_if_empty(lane)
        return damaged
