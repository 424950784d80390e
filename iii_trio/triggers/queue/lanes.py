"""All lanes: of the queues, of the subscribers of topics, and which of them may have a job that can start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from .lane import Lane
from .lane_key import LaneKey
from .settings import QueueConfig, QueueSettings


@final
class Lanes:
    """Finds lanes, makes them, and forgets those that nobody needs any more."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._queues: dict[str, Lane] = {}
        self._topics: dict[str, dict[str, Lane]] = {}
        self._awake: dict[str, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def get(self, text: str) -> Lane | None:
        """The lane whose key has this text."""
        return self._lanes.get(text)

    def queue(self, name: str) -> Lane | None:
        """The queue of this name, if it is configured."""
        lane = self._queues.get(name)
        return lane if lane is not None and lane.known else None

    def topic(self, name: str) -> list[Lane]:
        """The lanes of a topic: of whoever is remembered, or has something left in it."""
        return list(self._topics.get(name, {}).values())

    # --- which there are

    def open(self, key: LaneKey, settings: QueueSettings | None = None) -> Lane:
        """The lane of this key, made if there is none."""
        lane = self._lanes.get(key.text)
        if lane is None:
            lane = self._lanes[key.text] = Lane(key, settings or QueueSettings())
            if key.kind == "queue":
                self._queues[key.name] = lane
            else:
                self._topics.setdefault(key.name, {})[key.text] = lane
        return lane

    def reconfigure(self, config: QueueConfig) -> None:
        """These queues from now on. What is in one that is gone is still done, under its last settings."""
        for lane in self:
            if lane.key.kind == "queue":
                lane.known = lane.key.name in config.queues
                self.drop_if_empty(lane)
        for name, settings in config.queues.items():
            lane = self.open(LaneKey("queue", name), settings)
            lane.change(settings)
            self.wake(lane)

    def remember(self, key: LaneKey, settings: QueueSettings) -> Lane:
        """The lane of a subscriber: what is published from now on is for it."""
        lane = self.open(key, settings)
        lane.known = True
        lane.change(settings)
        return lane

    def listen(self, lane: Lane, change: int) -> None:
        """A subscriber has come (1) or gone (-1)."""
        lane.listeners += change
        self.wake(lane)
        self.drop_if_empty(lane)

    def forget(self, lane: Lane) -> None:
        """A subscriber does not want what is published from now on; what waits for it stays."""
        lane.known = False
        self.drop_if_empty(lane)

    def drop_if_empty(self, lane: Lane) -> None:
        """Forget a lane that nobody knows, or listens to, and that has nothing in it."""
        if lane.known or lane.listeners or lane.jobs or lane.dead or any(lane.state_counts.values()):
            return
        self._lanes.pop(lane.text, None)
        self._awake.pop(lane.text, None)
        if lane.key.kind == "queue":
            self._queues.pop(lane.key.name, None)
        of_topic = self._topics.get(lane.key.name, {})
        if lane.key.kind == "topic" and of_topic.pop(lane.text, None) is not None and not of_topic:
            del self._topics[lane.key.name]

    # --- which are to be looked at

    def wake(self, lane: Lane) -> None:
        """Look at a lane, if a job of it could start."""
        if lane.may_start:
            self._awake[lane.text] = lane

    def wake_subscribers(self, function: tuple[str, str]) -> None:
        """Look at the lanes that have this function called."""
        for lane in self._lanes.values():
            if lane.key.subscriber == function:
                self.wake(lane)

    def next_awake(self) -> Lane | None:
        """One that is to be looked at, and is not from then on until it is woken again."""
        return self._awake.popitem()[1] if self._awake else None
