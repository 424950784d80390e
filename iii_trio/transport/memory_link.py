"""Messages without a socket: a worker's link to an engine in the same process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from .link import EndReason, Reads
from .listening import Listening


@final
class MemoryLink:
    """The worker's side of a link to an engine in the same process.

    The engine takes the worker's messages at once, by `on_message`. The worker's listener gets the engine's messages at the
    end of the engine's step. They wait until there is a listener.
    Where it is `gathered`, what the worker sends in one turn of the loop is heard together, in the next, or when it
    hurries: for one that has a lot to say, so that what this leads to is written with one write per peer.
    """

    is_checked: Final = True  # the engine checks messages before it passes them on
    has_room: Final = True  # the engine takes messages at once

    def __init__(
        self, on_messages: Callable[[list[bytes]], None], on_close: Callable[[str], None], *, gathered: bool = False
    ) -> None:
        self._on_messages = on_messages
        self._on_close = on_close
        self._gathered = gathered
        self._held = False
        self._reads: Reads | None = None
        self._said: list[bytes] = []
        self._spoke = trio.lowlevel.ParkingLot()
        self._waiting: list[bytes] = []  # few wait, and an empty deque would take 600 bytes
        self._waiting_bytes = 0
        self._came = trio.lowlevel.ParkingLot()
        self._listening: Listening | None = None
        self._flushing = False
        self.ended: EndReason | None = None
        """As `Link.ended`."""

    # --- the worker's side

    async def receive(self) -> bytes | None:
        """As `Link.receive`."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self.ended is not None:
                return None
            await self._came.park()
        return self._take()

    async def listen(self, on_message: Callable[[bytes], object]) -> None:
        """As `Link.listen`."""
        listening = self._listening = Listening(on_message)
        try:
            self.flush()
            if self.ended is not None:
                listening.end()
            await listening.wait()
            self.flush()
        finally:
            self._listening = None

    def _take(self) -> bytes:
        message = self._waiting.pop(0)
        self._waiting_bytes -= len(message)
        return message

    def send(self, message: bytes) -> None:
        """As `Link.send`."""
        if self.ended is not None:
            return
        if not (self._held or self._gathered):
            self._on_messages([message])
            return
        if not (self._held or self._said):  # else it is delivered by whoever holds it, or `serve` is awake already
            self._spoke.unpark()
        self._said.append(message)

    def send_later(self, message: bytes) -> None:
        """As `Link.send_later`. Nothing is saved by waiting here."""
        self.send(message)

    def bracket(self, reads: Reads) -> None:
        """As `Link.bracket`."""
        self._reads = reads

    def hold_output(self) -> None:
        """As `Link.hold_output`."""
        self._held = True

    def flush_output(self) -> None:
        """As `Link.flush_output`."""
        self._held = False
        if self._said:
            said, self._said = self._said, []
            self._on_messages(said)

    async def wait_room(self) -> None:
        """As `Link.wait_room`: the engine hears at once, so there always is room."""
        await trio.lowlevel.checkpoint()

    def close(self, reason: str = "") -> None:
        """As `Link.close`."""
        self.flush_output()
        if self.ended is None:
            self._end(reason or "it closed")
            self._on_close(reason or "it closed")

    # --- the engine's side

    async def serve(self) -> None:
        """Deliver the gathered messages until the link is over. If cancelled: all messages so far are delivered."""
        try:
            while self.ended is None:
                if not self._said:
                    await self._spoke.park()
                self.flush_output()
        finally:
            self.flush_output()

    def put(self, message: bytes, *, bound: int) -> bool:
        """Take a message for the worker; False if more than `bound` bytes wait already."""
        if self.ended is not None:
            return True
        if self._waiting_bytes and self._waiting_bytes + len(message) > bound:
            return False
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        return True

    def flush(self) -> None:
        """Deliver all messages so far."""
        if self._listening is None:
            self._came.unpark()
        elif not self._flushing:  # else whoever listens has said something, and its answer follows in its turn
            self._flushing = True
            try:
                while (messages := self._waiting) and self._listening is not None:
                    self._waiting, self._waiting_bytes = [], 0
                    self._listening.give(messages, self._reads)
            finally:
                self._flushing = False

    def input_waits(self) -> bool:
        """Return False, because the engine takes the worker's messages at once."""
        return False

    def hang_up(self, code: int | None, reason: str) -> None:
        """End the link from the engine's side. Earlier messages are still delivered."""
        if self.ended is None:
            self._end(reason)

    def challenge(self, seconds: float, answered: Callable[[bool], object]) -> None:
        """Answer for a worker in this process, which is there as long as its link."""
        answered(self.ended is None)

    def _end(self, reason: str) -> None:
        self.ended = EndReason(None, reason)
        self._said.clear()  # nobody is there to hear it
        self._came.unpark_all()
        self._spoke.unpark_all()
        if self._listening is not None:
            self._listening.end()
