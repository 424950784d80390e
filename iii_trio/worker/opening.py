"""Open a worker for the length of a block, and see it off."""

from __future__ import annotations

import functools
import os
import random
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from ..nursery import open_service_nursery
from ..transport.link import Address
from .worker import RunSync, Worker

_SYNC_HANDLERS: Final = 40
_GOODBYE_SECONDS: Final = 2.0


@asynccontextmanager
async def open_worker(
    address: Address,
    *,
    name: str | None = None,
    namespace: str | None = None,
    description: str | None = None,
    run_sync: RunSync | None = None,
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    rng: random.Random | None = None,
) -> AsyncIterator[Worker]:
    """A worker of the engine at `address`, for the length of the block; entered once the engine has taken it.

    `name` (default: host and process) is leased per namespace: one worker of a name at a time. A link that is lost is
    healed: the worker dials again, with growing and jittered pauses, and says anew what it offers; `connected`,
    `wait_connected` and `wait_phase` tell. `run_sync` runs handlers that are plain functions (default: a Trio worker
    thread, 40 at most at a time); `new_id` and `rng` make ids and jitter, for simulations that must repeat.

    Raises ConnectionFailed if there is no engine at first, Rejected (also out of the block) if it refuses this worker.
    Leaving the block cancels what still runs, ends the ends that are still held, and says goodbye.
    If cancelled: as leaving the block.
    """
    async with open_service_nursery() as nursery:
        leaving = trio.Event()
        connections = await nursery.start(_keep_connections, leaving)
        worker = Worker(
            address,
            connections,
            name=name or f"{socket.gethostname()}:{os.getpid()}",
            namespace=namespace,
            description=description,
            run_sync=run_sync or _in_threads(),
            new_id=new_id,
            rng=rng or random.Random(),
        )
        try:
            async with open_service_nursery() as worker.tasks:
                try:
                    await worker.tasks.start(worker.membership.stay)
                    yield worker
                finally:
                    worker.tasks.cancel_scope.cancel(reason="the worker left")
        finally:
            worker.retire()
            connections.cancel_scope.deadline = trio.current_time() + _GOODBYE_SECONDS
            leaving.set()


async def _keep_connections(leaving: trio.Event, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Give a worker's connections a nursery that outlives a cancellation by the time that goodbyes may take.

    Without its shield they would be cut by the cancellation that ends the worker, before a word can be said.
    """
    async with trio.open_nursery() as connections:
        connections.cancel_scope.shield = True
        task_status.started(connections)
        await leaving.wait()


def _in_threads() -> RunSync:
    limiter = trio.CapacityLimiter(_SYNC_HANDLERS)

    async def run(handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        return await trio.to_thread.run_sync(functools.partial(handler, **arguments), limiter=limiter)

    return run
