"""The parts of a worker that answering a call uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from ..report import RateLimitedLogger
from ..wire import Ref
from .ends import ChannelWriter
from .payload import End

RunSync: TypeAlias = Callable[[Callable[..., Any], dict[str, Any]], Awaitable[Any]]
"""Runs a handler that is a plain function with keyword arguments, and returns its value."""


class CallContext(msgspec.Struct, frozen=True):
    """What all calls of a worker share."""

    run_sync: RunSync
    log: RateLimitedLogger
    open_end: Callable[[Ref, str | None], End]
    """Makes the live end of a ref for a call with this invocation id."""
    finish_later: Callable[[ChannelWriter], None]
    """Closes a writer cleanly in a task that outlives the call."""
