"""Plain HTTP requests that come to an engine's listeners."""

from __future__ import annotations

from typing import Protocol

import trio

from .http1 import Head


class PlainHandler(Protocol):
    """Serves some of the plain requests, each on a connection of its own."""

    def wants(self, head: Head) -> bool:
        """Return whether this request is the handler's."""

    async def serve(self, head: Head, stream: trio.abc.Stream) -> None:
        """Answer the request. The caller closes the stream. If cancelled: the client is cut off."""
