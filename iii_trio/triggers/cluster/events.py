"""Waiting for one of several events."""

from __future__ import annotations

import trio


async def wait_and_cancel(event: trio.Event, scope: trio.CancelScope) -> None:
    """Cancel a scope once an event is set. If cancelled: nothing happens."""
    await event.wait()
    scope.cancel()
