"""The trigger type `durable:subscriber`: a function is called with what is published to a topic."""

from __future__ import annotations

from typing import Final, final

import trio

from ...errors import CallError
from ...report import get_logger
from ...wire import to_json
from ...worker import BoundTrigger
from .dispatcher import Dispatcher
from .lane import Lane
from .lane_key import LaneKey
from .protocol import read_subscriber

LOGGER: Final = get_logger("iii_trio.queue")
TRIGGER_TYPE: Final = "durable:subscriber"


@final
class SubscriberTriggers:
    """Provides the trigger type: remembers who has asked for it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._lanes: dict[str, Lane] = {}
        self._replaced: dict[str, Lane] = {}

    async def register_trigger(self, bound: BoundTrigger) -> None:
        """A binding: from now on, and for as long as nobody withdraws it, the topic's messages are kept for it."""
        config = to_json(bound.config)
        said = read_subscriber(config)
        lane = None
        if said.topic:
            lane = self._dispatcher.subscribe(LaneKey("topic", said.topic, bound.namespace, bound.function_id), said)
            self._lanes[bound.id] = lane
        else:
            about = {"iii_binding": bound.id, "iii_function": bound.function_id}
            LOGGER.warning("the subscription of %s names no topic: it never fires", bound.function_id, extra=about)
        before = self._replaced.pop(bound.id, None)
        if before is not None and before is not lane:
            self._dispatcher.forget(before)  # it wants something else now
        if lane is not None:
            try:
                await self._dispatcher.remembered(lane, config)
            except CallError:
                self._leave(bound, for_good=lane.said is None)  # it is refused; what was remembered before, is still
                raise
            except trio.Cancelled:  # gone, or withdrawn, before the disk knew of it
                self.unregister_trigger(bound)
                raise

    def unregister_trigger(self, bound: BoundTrigger) -> None:
        """It is withdrawn; or who asked for it has gone, and it is remembered."""
        self._leave(bound, for_good=bound.why_ended == "withdrawn")

    def _leave(self, bound: BoundTrigger, *, for_good: bool) -> None:
        lane = self._lanes.pop(bound.id, None)
        if lane is None:
            return
        if bound.why_ended == "replaced":
            self._replaced[bound.id] = lane
        self._dispatcher.unsubscribe(lane, for_good=for_good)
