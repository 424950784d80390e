"""Our workers: `… queue_ours produce|consume|subscribe URL [JSON]`, or all in one process: `… embedded DIRECTORY|memory`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import trio

import iii_trio

from ..queue_load import Batch, JobData, Produced, Tally

FUNCTION = "bench::job"


async def produce(worker: iii_trio.Worker, batch: Batch) -> None:
    async def caller(jobs: Iterator[JobData]) -> None:
        for job in jobs:
            await worker.trigger(FUNCTION, job, action=iii_trio.enqueue())
            if batch.pause:
                await trio.sleep(batch.pause)

    jobs = batch.jobs()
    with Produced():
        async with trio.open_nursery() as nursery:
            for _ in range(batch.at_once):
                nursery.start_soon(caller, jobs)


def offer(worker: iii_trio.Worker) -> None:
    tally = Tally()

    @worker.function(FUNCTION)
    async def job(batch: str, of: int, sent: float) -> None:
        tally.count(batch, of, sent)


async def main(role: str, where: str, *said: str) -> None:
    if role == "embedded":
        await embedded(where)
        return
    async with iii_trio.open_worker(where, name=f"bench-{role}") as worker:
        if role == "produce":
            await produce(worker, Batch(**json.loads(said[0])))
            return
        offer(worker)
        if role == "subscribe":
            for number in range(int(said[0])):
                worker.register_trigger("durable:subscriber", FUNCTION, {"topic": f"topic-{number}"})
        await worker.wait_registered()
        print("ready", flush=True)
        await trio.sleep_forever()


async def embedded(place: str) -> None:
    """Each line of stdin is a batch to produce; it is handled here too."""
    queue = iii_trio.QueueConfig(directory=None if place == "memory" else place)
    async with iii_trio.open_engine(iii_trio.EngineConfig(modules={"queue": queue})) as engine:
        async with engine.open_worker("producer") as producer, engine.open_worker("consumer") as consumer:
            print("ready", flush=True)
            async for line in trio.wrap_file(sys.stdin):
                said = json.loads(line)
                if said == "consume":
                    offer(consumer)
                else:
                    await produce(producer, Batch(**said))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
