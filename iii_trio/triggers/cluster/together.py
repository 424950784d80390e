"""Calls and answers of one read are passed on together, with one write for each link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import attrs

from ...transport.link import Link


@final
class Together:
    """The `Reads` of links whose messages are passed on over other links."""

    def __init__(self) -> None:
        self._depth = 0
        self._held: dict[Link, None] = {}

    def begin(self) -> None:
        """Begin a read: `hold` holds the output of a link from now on."""
        self._depth += 1

    def end(self) -> None:
        """End the read, and send all held output."""
        self._depth -= 1
        if not self._depth and self._held:
            held, self._held = self._held, {}
            _flush(iter(held))

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()

    def hold(self, link: Link) -> None:
        """Hold the output of a link until the end of this read. Within none, nothing is held."""
        if self._depth and link not in self._held:
            self._held[link] = None
            link.hold_output()


def _flush(links: Iterator[Link]) -> None:
    for link in links:
        try:
            link.flush_output()
        # One that fails must not keep the others held.
        except BaseException:
            _flush(links)
            raise


@attrs.frozen
class BothWays:
    """The calls that this engine's relays read, and the answers that other nodes' links read."""

    calls: Together = attrs.field(factory=Together)
    answers: Together = attrs.field(factory=Together)
