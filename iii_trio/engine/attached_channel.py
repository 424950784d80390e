"""A channel's pipe with its two attached ends."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..transport.link import EndReason
from ..transport.memory_budget import MemoryAccount
from ..transport.pipe import Pipe


class AttachedEnd(Protocol):
    """The holder of a channel's end within the engine, a socket or a worker in this process."""

    def finish(self, end: EndReason) -> None:
        """Report the channel's outcome to this end. Never waits, and never calls back."""

    def flush(self) -> None:
        """Write what `finish` left to be written, as far as that takes no waiting."""


class AttachedChannel(msgspec.Struct, eq=False):
    """One attached channel's bytes and ends. Its life is decided elsewhere (`core/channel.py`)."""

    channel_id: str
    pipe: Pipe
    memory: MemoryAccount
    """Of the channel's owner, where it has a socket; else of the channel alone."""
    writer: AttachedEnd | None = None
    reader: AttachedEnd | None = None

    def finish(self, end: EndReason, *, clean: bool) -> None:
        """Report the outcome to both ends. Unless it was the clean end, drop the pipe's content (clause C4.3)."""
        if not clean:
            self.pipe.break_off(end)
        self.pipe.release_memory()
        for attached in (self.writer, self.reader):
            if attached is not None:
                attached.finish(end)

    def forget_ends(self) -> None:
        """Take apart the circles of an ended channel, so that nothing waits for the cycle collector."""
        self.writer = self.reader = None
        self.pipe.forget_ends()
