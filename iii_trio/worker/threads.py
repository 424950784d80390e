"""Plain functions as handlers. They run in threads, and no thread keeps its worker from leaving."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, Final, final

import trio

_MAX_THREADS: Final = 40


@final
class ThreadedHandlers:
    """Runs handlers that are plain functions in Trio's worker threads, 40 at most at a time.

    A thread cannot be stopped. So a cancelled call waits until its function returns, and the function can ask for the
    cancellation with `trio.from_thread.check_cancelled()`. Code that it runs with `trio.from_thread.run()` is not cancelled.
    When the worker leaves, a call waits for a bounded time only. Its thread is then abandoned and goes on as a daemon.
    """

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(_MAX_THREADS)
        self._waiting: set[trio.CancelScope] = set()
        self._deadline = math.inf

    async def run(self, handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Call a handler in a thread and return its value.

        If cancelled: waits for the function all the same, until the deadline of `abandon_at`. A function that returned
        wins over the cancellation.
        """
        borrower = object()
        await self._limiter.acquire_on_behalf_of(borrower)
        started = trio.CapacityLimiter(1)  # Trio gives its token back when the thread has ended, abandoned or not
        finished = trio.Event()
        results: list[tuple[Any, BaseException | None]] = []
        token = trio.lowlevel.current_trio_token()

        def on_finished() -> None:
            self._limiter.release_on_behalf_of(borrower)
            finished.set()

        def call() -> Any:
            try:
                value = handler(**arguments)
            except BaseException as error:
                results.append((None, error))
                raise
            else:
                results.append((value, None))
                return value
            finally:
                with contextlib.suppress(trio.RunFinishedError):  # abandoned, and Trio has ended meanwhile
                    token.run_sync_soon(on_finished)

        try:
            return await trio.to_thread.run_sync(call, limiter=started, abandon_on_cancel=True)
        except trio.Cancelled:  # noqa: ASYNC103
            if not started.borrowed_tokens and not results:
                raise  # before the thread had begun
            # A thread cannot be stopped, so its call stays until the function returns or the worker leaves.
            with trio.CancelScope(shield=True, deadline=self._deadline) as scope:
                self._waiting.add(scope)
                try:
                    await finished.wait()
                finally:
                    self._waiting.discard(scope)
            value, error = results[0] if results else (None, None)
            # A failure of the function tells more than the cancellation that came meanwhile.
            if error is not None and not isinstance(error, trio.Cancelled):
                raise error from None  # noqa: ASYNC104
            # Either the function obeyed the cancellation, or its thread was abandoned.
            if error is not None or not results:
                raise
            return value  # noqa: ASYNC104
        finally:
            # Without a thread, `on_finished` never runs to give the token back.
            if not started.borrowed_tokens and not results:
                self._limiter.release_on_behalf_of(borrower)

    def abandon_at(self, deadline: float) -> None:
        """Abandon the threads that still run at this time of Trio's clock."""
        self._deadline = deadline
        for scope in self._waiting:
            scope.deadline = deadline
