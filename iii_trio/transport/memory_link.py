"""Messages without a socket: a worker's link to an engine in the same process."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Final, final

import trio

from .link import End

_MESSAGES_AT_ONCE: Final = 64


@final
class MemoryLink:
    """The worker's side of a link to an engine in the same process.

    What the worker sends is heard at once, by `hear`; what the engine sends waits here until the worker takes it.
    Where it is `gathered`, what the worker sends in one turn of the loop is heard together, in the next: for one that
    has a lot to say, so that what this leads to is written with one write per peer.
    """

    def __init__(
        self, hear: Callable[[list[bytes]], None], hung_up: Callable[[str], None], *, gathered: bool = False
    ) -> None:
        self._hear = hear
        self._hung_up = hung_up
        self._gathered = gathered
        self._said: list[bytes] = []
        self._spoke = trio.lowlevel.ParkingLot()
        self._into, self._out_of = trio.open_memory_channel[bytes](math.inf)
        self._waiting_bytes = 0
        self._ended: End | None = None
        self.over = trio.Event()

    # --- the worker's side

    async def receive(self) -> bytes | None:
        """As `Link.receive`."""
        try:
            message = await self._out_of.receive()
        except trio.EndOfChannel:
            return None
        self._waiting_bytes -= len(message)
        return message

    async def listen(self, hear: Callable[[bytes], object]) -> None:
        """As `Link.listen`."""
        while (message := await self.receive()) is not None:
            hear(message)
            with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                for _ in range(_MESSAGES_AT_ONCE):
                    message = self._out_of.receive_nowait()
                    self._waiting_bytes -= len(message)
                    hear(message)

    def send(self, message: bytes) -> None:
        """As `Link.send`."""
        if self._ended is None:
            self._said.append(message)
            if self._gathered:
                self._spoke.unpark()
            else:
                self._pass_on()

    @property
    def has_room(self) -> bool:
        """As `Link.has_room`."""
        return True

    async def wait_room(self) -> None:
        """As `Link.wait_room`: the engine hears at once, so there always is room."""
        await trio.lowlevel.checkpoint()

    def close(self, reason: str = "") -> None:
        """As `Link.close`."""
        self._pass_on()
        if self._ended is None:
            self._end(reason or "it closed")
            self._hung_up(reason or "it closed")

    @property
    def ended(self) -> End | None:
        return self._ended

    # --- the engine's side

    async def serve(self) -> None:
        """Hear what is gathered, until the link is over. If cancelled: what was said is heard."""
        try:
            while self._ended is None:
                if not self._said:
                    await self._spoke.park()
                self._pass_on()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._said:
            said, self._said = self._said, []
            self._hear(said)

    def put(self, message: bytes, *, bound: int) -> bool:
        """Take a message for the worker; False if more than `bound` bytes wait already."""
        if self._ended is not None:
            return True
        if self._waiting_bytes and self._waiting_bytes + len(message) > bound:
            return False
        self._waiting_bytes += len(message)
        self._into.send_nowait(message)
        return True

    def flush(self) -> None:
        """Nothing waits to be written: memory takes all."""

    def input_waits(self) -> bool:
        """Never: what the worker sends is heard at once."""
        return False

    def hang_up(self, code: int | None, reason: str) -> None:
        """End the link from the engine's side; what was put before is still delivered."""
        if self._ended is None:
            self._end(reason)

    def _end(self, reason: str) -> None:
        self._ended = End(None, reason)
        self._said.clear()  # nobody is there to hear it
        self._into.close()
        self._spoke.unpark_all()
        self.over.set()
