"""The trigger type `durable:subscriber`: a function is called with the messages of a topic."""

from __future__ import annotations

from typing import Final, final

import trio

from ...errors import CallError
from ...report import get_logger
from ...wire import to_json
from ...worker import BoundTrigger
from .lane import Lane
from .lane_key import LaneKey
from .protocol import check_id, read_subscriber
from .subscribers import Subscribers

LOGGER: Final = get_logger("iii_trio.queue")
TRIGGER_TYPE: Final = "durable:subscriber"


@final
class SubscriberTriggers:
    """The provider of the trigger type. It remembers the subscribers."""

    def __init__(self, subscribers: Subscribers) -> None:
        self._subscribers = subscribers
        self._lanes: dict[str, Lane] = {}
        self._replaced: dict[str, Lane] = {}

    async def register_trigger(self, bound: BoundTrigger) -> None:
        """Take a binding. The topic's messages are kept for it from now on, until it is withdrawn."""
        config = to_json(bound.config)
        read = read_subscriber(config)
        lane = None
        if read.topic:
            for what, text in (("topic", read.topic), ("function_id", bound.function_id)):
                check_id(TRIGGER_TYPE, what, text)
            lane = self._subscribers.subscribe(LaneKey("topic", read.topic, bound.namespace, bound.function_id), read)
            self._lanes[bound.id] = lane
        else:
            fields = {"iii_binding": bound.id, "iii_function": bound.function_id}
            LOGGER.warning("the subscription of %s names no topic: it never fires", bound.function_id, extra=fields)
        before = self._replaced.pop(bound.id, None)
        if before is not None and before is not lane:
            self._subscribers.forget(before)  # the binding is for another topic now
        if lane is not None:
            try:
                await self._subscribers.remembered(lane, config)
            except CallError:
                self._leave(bound, for_good=lane.config is None)  # a subscription of before stays
                raise
            except trio.Cancelled:  # it ended before the store knew it
                self.unregister_trigger(bound)
                raise

    def unregister_trigger(self, bound: BoundTrigger) -> None:
        """End a binding. The subscriber is forgotten if it was withdrawn, and remembered if its worker has gone."""
        self._leave(bound, for_good=bound.why_ended == "withdrawn")

    def _leave(self, bound: BoundTrigger, *, for_good: bool) -> None:
        lane = self._lanes.pop(bound.id, None)
        if lane is None:
            return
        if bound.why_ended == "replaced":
            self._replaced[bound.id] = lane
        self._subscribers.unsubscribe(lane, for_good=for_good)
