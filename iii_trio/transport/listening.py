"""The listener of a link. It gets each message within the step that brought it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import trio

from .link import Reads


@final
class Listening:
    """A listener, until its link is over. An exception of its own ends its listening, not the sender's step."""

    def __init__(self, on_message: Callable[[bytes], object]) -> None:
        self._on_message = on_message
        self._over = trio.Event()
        self._problem: BaseException | None = None

    def give(self, messages: Sequence[bytes], reads: Reads | None) -> None:
        """Have the messages of one read heard, in their order, within `reads`."""
        if self._problem is not None or not messages:
            return
        on_message = self._on_message
        try:
            if reads is not None:
                reads.begin()
            try:
                for message in messages:
                    on_message(message)
            # It may fail as well, at what others have said within the read.
            finally:
                if reads is not None:
                    reads.end()
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # noqa: ASYNC103 - `wait` raises it
            self._problem = problem
            self._over.set()

    def end(self) -> None:
        """There will be no more."""
        self._over.set()

    async def wait(self) -> None:
        """Wait until there is no more; raises what the listener raised. If cancelled: nothing changes."""
        await self._over.wait()
        if self._problem is not None:
            raise self._problem
