"""All lanes, and which of them may have a job that can start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

from .lane import Lane
from .lane_key import LaneKey
from .settings import QueueConfig, QueueSettings


@final
class Lanes:
    """The lanes by name. They are made when they are needed, and dropped when they are not."""

    def __init__(self, belongs: Callable[[str], bool] = lambda name: True) -> None:
        self._belongs = belongs
        """Whether the queue of this name is one of these. Another node of a mesh may have it."""
        self._lanes: dict[str, Lane] = {}
        self._queues: dict[str, Lane] = {}
        self._topics: dict[str, dict[str, Lane]] = {}
        self._awake: dict[str, Lane] = {}
        self.keep_all = False
        """Whether no lane is dropped, because jobs are loaded that may belong to it."""
        self.on_drop: Callable[[Lane], object] = lambda lane: None
        """Called with each lane that is dropped."""

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def get(self, text: str) -> Lane | None:
        """Return the lane whose key has this text, if there is one."""
        return self._lanes.get(text)

    def find(self, queue: str | None, topic: str | None) -> list[Lane]:
        """Return the lanes of a name. A queue is looked for first if `queue` is given, and the topic first if not.

        The other kind is taken where there is none of that name, because iii's clients say `queue` for both.
        """
        name = queue or topic or ""
        of_queue = [self._queues[name]] if name in self._queues else []
        of_topic = self.topic(name)
        return (of_queue or of_topic) if queue else (of_topic or of_queue)

    def queue(self, name: str) -> Lane | None:
        """Return the queue of this name, if it is configured."""
        lane = self._queues.get(name)
        return lane if lane is not None and lane.known else None

    def topic(self, name: str) -> list[Lane]:
        """Return the lanes of a topic: of all subscribers that are remembered or have jobs left."""
        return list(self._topics.get(name, {}).values())

    # --- which there are

    def open(self, key: LaneKey, settings: QueueSettings | None = None) -> Lane:
        """Return the lane of this key. Make it if there is none."""
        lane = self._lanes.get(key.text)
        if lane is None:
            lane = self._lanes[key.text] = Lane(key, settings or QueueSettings())
            if key.kind == "queue":
                self._queues[key.name] = lane
            else:
                self._topics.setdefault(key.name, {})[key.text] = lane
        return lane

    def reconfigure(self, config: QueueConfig) -> None:
        """Have these queues from now on. The jobs of other queues are still finished, under their last settings (Q12)."""
        for lane in self:
            if lane.key.kind == "queue":
                lane.known = lane.key.name in config.queues
                self.drop_if_empty(lane)
        for name, settings in config.queues.items():
            if not self._belongs(name):
                continue
            lane = self.open(LaneKey("queue", name), settings)
            lane.change(settings)
            self.wake(lane)

    def remember(self, key: LaneKey, settings: QueueSettings, condition: str | None) -> Lane:
        """Return the lane of a subscriber. It receives the messages that are published from now on."""
        lane = self.open(key, settings)
        lane.known = True
        lane.condition = condition
        lane.change(settings)
        return lane

    def listen(self, lane: Lane, change: int) -> None:
        """Count a binding of the subscriber that has come (1) or ended (-1)."""
        lane.listeners += change
        self.wake(lane)
        self.drop_if_empty(lane)

    def forget(self, lane: Lane) -> None:
        """End a subscription. The jobs in it stay."""
        lane.known = False
        self.drop_if_empty(lane)

    def drop_if_empty(self, lane: Lane) -> None:
        """Drop a lane that is not known, has no listeners, and has no jobs."""
        if self.keep_all or lane.known or lane.listeners or lane.jobs or lane.dead or any(lane.state_counts.values()):
            return
        if self._lanes.pop(lane.text, None) is None:
            return
        self._awake.pop(lane.text, None)
        if lane.key.kind == "queue":
            self._queues.pop(lane.key.name, None)
        of_topic = self._topics.get(lane.key.name, {})
        if lane.key.kind == "topic" and of_topic.pop(lane.text, None) is not None and not of_topic:
            del self._topics[lane.key.name]
        self.on_drop(lane)

    # --- which are to be looked at

    def wake(self, lane: Lane) -> None:
        """Have a lane looked at, if a job of it could start."""
        if lane.text not in self._awake and lane.may_start:
            self._awake[lane.text] = lane

    def wake_subscribers(self, function: tuple[str, str]) -> None:
        """Have the lanes looked at whose subscriber is this function."""
        for lane in self._lanes.values():
            if lane.key.subscriber == function:
                self.wake(lane)

    def release_held(self) -> None:
        """Line up the jobs that waited for a suspect."""
        for lane in self._lanes.values():
            if lane.held:
                lane.release_held()
                self.wake(lane)

    def next_awake(self) -> Lane | None:
        """Return a lane that is to be looked at. It is not returned again until it is woken."""
        return self._awake.popitem()[1] if self._awake else None
