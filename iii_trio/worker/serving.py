"""What answering needs of its worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ..report import RateLimitedLogger
from ..wire import Ref
from .ends import ChannelWriter
from .offers import Offers
from .payload import End


class Serving(Protocol):
    """A worker, as its handlers' calls see it."""

    offers: Offers
    log: RateLimitedLogger
    run_sync: Callable[[Callable[..., Any], dict[str, Any]], Awaitable[Any]]

    def make_end(self, ref: Ref, invocation_id: str | None) -> End:
        """The live end that a ref names."""

    def finish_later(self, writer: ChannelWriter) -> None:
        """Close a writer cleanly, in a task of the worker's."""
