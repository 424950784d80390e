"""Send progress during a long task, as text messages on a channel; and stop the work when nobody watches any more.

The worker finds out at its next message that the reader is gone: `send` raises ChannelBroken, and the task ends.
"""

from __future__ import annotations

import json

import trio

import iii_trio


def offer_rendering(worker: iii_trio.Worker) -> None:
    """Offer `video::render`."""

    @worker.function("video::render")
    async def render(frames: int, progress: iii_trio.ChannelWriter) -> dict[str, int]:
        for done in range(1, frames + 1):
            await trio.sleep(0.01)  # the work
            try:
                await progress.send(json.dumps({"done": done, "of": frames}))
            except iii_trio.ChannelBroken as gone:
                print(f"  the worker stops after {done} frames: {gone}")
                return {"frames": done}
        return {"frames": frames}


async def main() -> None:
    async with iii_trio.open_engine() as engine:
        async with engine.open_worker("video") as video, engine.open_worker("app") as app:
            offer_rendering(video)

            print("a task that is watched to its end:")
            async with app.create_channel() as channel, trio.open_nursery() as nursery:

                async def watch() -> None:
                    async for message in channel.reader:
                        state = json.loads(message)
                        if state["done"] % 10 == 0:
                            print(f"  {state['done']} of {state['of']}")

                nursery.start_soon(watch)
                payload = {"frames": 30, "progress": channel.writer_ref}
                print("  result:", await app.trigger("video::render", payload))

            print("a task that nobody watches any more:")
            async with app.create_channel() as channel, trio.open_nursery() as nursery:

                async def watch_a_little() -> None:
                    async with channel.reader:
                        for _ in range(5):
                            await channel.reader.receive()

                nursery.start_soon(watch_a_little)
                payload = {"frames": 1000, "progress": channel.writer_ref}
                print("  result:", await app.trigger("video::render", payload))


if __name__ == "__main__":
    trio.run(main)
