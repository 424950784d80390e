"""Take lost connections down a few at a time, so that whoever is to be told of their ends is told first.

A process that is killed loses a thousand connections within milliseconds. Its kernel ends one after the other, so the turns
of the loop that find the next ends would be shared with the taking down of the ones before.
"""

from __future__ import annotations

from typing import Final, final

import trio

_AT_ONCE: Final = 16  # connections taken down in one turn of the loop


@final
class LostConnections:
    """The connections that were lost and are not taken down yet."""

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        self._is_led = False  # the first one gives the others their turns, and is taken down last

    async def wait_turn(self) -> None:
        """Wait until this connection may be taken down.

        If cancelled: it may be taken down at once, and if it was the first one, so may all others.
        """
        if self._is_led:
            await self._waiting.park()
            return
        self._is_led = True
        try:
            await trio.lowlevel.checkpoint()
            while self._waiting:
                self._waiting.unpark(count=_AT_ONCE)
                await trio.lowlevel.checkpoint()
        finally:
            self._is_led = False
            self._waiting.unpark_all()
