"""streaq on Valkey: this module is what `streaq run` is given; `queue_produce` runs its producer.

The server is that of the environment's STREAQ_URL.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from streaq import Worker  # type: ignore[import-not-found]

from benchmarks.queue_load import Batch, JobData, Produced, Tally  # streaq imports this by its path

_tally = Tally()


@asynccontextmanager
async def say_ready() -> AsyncIterator[None]:
    print("ready", flush=True)
    yield


worker = Worker(redis_url=os.environ["STREAQ_URL"], lifespan=say_ready)


@worker.task(ttl=0, silent=True)  # type: ignore[untyped-decorator]
async def job(batch: str, of: int, sent: float) -> None:
    _tally.count(batch, of, sent)


def produce(batch: Batch) -> None:
    asyncio.run(_produce(batch))


async def _produce(batch: Batch) -> None:
    async def caller(jobs: Iterator[JobData]) -> None:
        for data in jobs:
            await job.enqueue(**data)
            if batch.pause:
                await asyncio.sleep(batch.pause)

    jobs = batch.jobs()
    async with worker:
        with Produced():
            await asyncio.gather(*(caller(jobs) for _ in range(batch.at_once)))
