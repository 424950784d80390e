"""How channels ended, as the engine tells those who own or hold them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

from ..errors import ConnectionFailed
from .calls import Session
from .ends import Ended

_REMEMBERED: Final = 1_000


class Outcomes(OrderedDict[str, Ended]):
    """The last ones, by channel id."""

    def told(self, session: Session, channel_id: str, ended: Ended) -> None:
        """The engine told of one."""
        self[channel_id] = ended
        while len(self) > _REMEMBERED:
            self.popitem(last=False)
        event = session.outcomes.pop(channel_id, None)
        if event is not None:
            event.set()

    async def wait(self, session: Session, channel_id: str) -> Ended:
        """Wait for one. Raises ConnectionFailed if the link is lost before. If cancelled: nothing changes."""
        await session.outcomes.setdefault(channel_id, trio.Event()).wait()
        if channel_id not in self:
            raise ConnectionFailed("the link to the engine was lost before the channel's outcome was told")
        return self[channel_id]
