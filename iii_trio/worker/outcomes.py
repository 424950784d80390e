"""The outcomes of channels, as the engine tells them to owners and holders."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

from ..errors import ConnectionFailed
from .calls import WorkerSession
from .ends import ChannelResult

_REMEMBERED: Final = 1_000


class Outcomes(OrderedDict[str, ChannelResult]):
    """The latest outcomes by channel id. The oldest are dropped."""

    def add(self, session: WorkerSession, channel_id: str, result: ChannelResult) -> None:
        """Keep an outcome that the engine told, and wake the tasks that wait for it."""
        self[channel_id] = result
        while len(self) > _REMEMBERED:
            self.popitem(last=False)
        event = session.outcomes.pop(channel_id, None)
        if event is not None:
            event.set()

    async def wait(self, session: WorkerSession, channel_id: str) -> ChannelResult:
        """Wait for an outcome. Raises ConnectionFailed if the link is lost before. If cancelled: nothing changes."""
        await session.outcomes.setdefault(channel_id, trio.Event()).wait()
        if channel_id not in self:
            raise ConnectionFailed("the link to the engine was lost before the channel's outcome was told")
        return self[channel_id]
