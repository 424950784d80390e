"""A channel's pipe with what is attached to its two ends."""

from __future__ import annotations

from typing import Protocol

import attrs

from ..transport.link import EndReason
from ..transport.memory_budget import MemoryAccount
from ..transport.pipe import Pipe


class AttachedEnd(Protocol):
    """What holds an end of a channel within the engine: a socket, or a worker in this process."""

    def finish(self, end: EndReason) -> None:
        """The channel has its outcome: tell whoever is at this end. Never waits, and never calls back."""


@attrs.define(eq=False)
class AttachedChannel:
    """One attached channel's bytes and ends. Its life is decided elsewhere (`core/channel.py`)."""

    channel_id: str
    pipe: Pipe
    memory: MemoryAccount
    """Of the channel's owner, where it has a socket; else of the channel alone."""
    writer: AttachedEnd | None = None
    reader: AttachedEnd | None = None

    def finish(self, end: EndReason, *, clean: bool) -> None:
        """Tell both ends the outcome; unless it was the clean end, drop what is still in the pipe (clause C4.3)."""
        if not clean:
            self.pipe.break_off(end)
        self.pipe.release_memory()
        for attached in (self.writer, self.reader):
            if attached is not None:
                attached.finish(end)
