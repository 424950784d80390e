"""An engine with queues, as a process: `… queue_engine DIRECTORY|memory [NUMBER_OF_QUEUES]`. Prints its port."""

from __future__ import annotations

import sys

import trio

import iii_trio


async def main(place: str, queues: int) -> None:
    config = iii_trio.EngineConfig(
        listeners=(iii_trio.Listener(host="127.0.0.1", port=0),),
        modules={
            "queue": iii_trio.QueueConfig(
                {f"queue-{number}": iii_trio.QueueSettings() for number in range(queues)},
                directory=None if place == "memory" else place,
            )
        },
    )
    async with iii_trio.open_engine(config) as engine:
        (address,) = await engine.listen()
        print(address.rpartition(":")[2], flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
