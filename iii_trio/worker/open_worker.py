"""Open a worker for the length of a block."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import trio

from ..environment import Environment
from ..nursery import keep_shielded, open_service_nursery
from ..transport.link import Address
from .call_context import RunSync
from .payload import check_text
from .threads import ThreadedHandlers
from .worker import Worker

_GOODBYE_SECONDS: Final = 2.0
_FINISH_SECONDS: Final = 5.0  # for streams that handlers have written in full, and whose readers are slow


@asynccontextmanager
async def open_worker(
    address: Address,
    *,
    name: str | None = None,
    namespace: str | None = None,
    description: str | None = None,
    run_sync: RunSync | None = None,
    environment: Environment | None = None,
    features: Iterable[str] = (),
) -> AsyncIterator[Worker]:
    """Open a worker of the engine at `address`, for the length of the block. The body begins once the engine accepted it.

    `name` (default: host and process) is leased per namespace, so that one worker of a name is connected at a time. A
    lost link is healed. The worker dials again with growing, jittered pauses, and repeats its registrations. `run_sync`
    runs handlers that are plain functions (default: a Trio worker thread, 40 at most at a time). `environment` is for
    simulations. `features` are announced beside those of every worker (`wire/codes.py`).

    Raises ConnectionFailed if there is no engine at first, and Rejected (also out of the block) if it refuses this worker.
    Raises MisuseError for a name, a namespace or a description that is not a text that can be sent.
    Leaving the block cancels the handlers that still run, and waits for them. A plain function in a thread is waited for
    at most 2 seconds, and its thread is abandoned then. Streams that finished handlers wrote get 5 seconds to arrive. All
    other ends are ended by force, and the link is closed with a goodbye.
    If cancelled: as leaving the block.
    """
    for what, text in (("name", name), ("namespace", namespace), ("description", description)):
        if text is not None:
            check_text(text, f"the {what} of the worker")
    threads = ThreadedHandlers()
    async with open_service_nursery() as nursery:
        leaving = trio.Event()
        try:
            worker = Worker(
                address,
                await nursery.start(keep_shielded, leaving, _GOODBYE_SECONDS),
                name=name or f"{socket.gethostname()}:{os.getpid()}",
                namespace=namespace,
                description=description,
                run_sync=run_sync or threads.run,
                environment=environment or Environment(),
                features=features,
            )
            async with open_service_nursery() as staying:
                try:
                    async with open_service_nursery() as worker._tasks:
                        try:
                            await staying.start(worker._membership.stay)
                            yield worker
                        finally:
                            worker._tasks.cancel_scope.cancel(reason="the worker left")
                            threads.abandon_at(trio.current_time() + _GOODBYE_SECONDS)
                finally:
                    # The handlers are over, and had a link for their last words. Their streams have one, too.
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + _FINISH_SECONDS):
                        await worker._ends.wait_finished()
                    worker._close()
        finally:
            leaving.set()
