"""Engine and workers in one process, over memory, with Trio's memory channel as the floor. Prints one JSON object."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

import iii_trio

_MESSAGES = 40_000
_CALLS = 4_000


async def timed(work: Callable[[], Awaitable[None]], count: int) -> float:
    """CPU seconds for each of `count`."""
    before = time.process_time()
    await work()
    return (time.process_time() - before) / count


async def floor(found: dict[str, Any]) -> None:
    send, receive = trio.open_memory_channel[bytes](64)

    async def write() -> None:
        async with send:
            for _ in range(_MESSAGES):
                await send.send(b"x" * 64)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            async for _ in receive:
                pass

    found["memory_channel_message"] = await timed(both, _MESSAGES)

    there, here = trio.open_memory_channel[int](0), trio.open_memory_channel[int](0)

    async def echo() -> None:
        async for n in there[1]:
            await here[0].send(n)

    async def ping() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            for n in range(_CALLS):
                await there[0].send(n)
                await here[1].receive()
            await there[0].aclose()

    found["memory_channel_round_trip"] = await timed(ping, _CALLS)


async def channels(app: iii_trio.Worker, found: dict[str, Any]) -> None:
    for size in 64, 65_536:
        async with app.create_channel() as channel:
            data = bytes(size)

            async def write(writer: iii_trio.ChannelWriter = channel.writer, data: bytes = data) -> None:
                async with writer:
                    for _ in range(_MESSAGES):
                        await writer.send(data)

            async def both(reader: iii_trio.ChannelReader = channel.reader) -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write)
                    async for _ in reader:
                        pass

            found[f"channel_message_{size}"] = await timed(both, _MESSAGES)


async def calls(app: iii_trio.Worker, found: dict[str, Any]) -> None:
    async def one_after_the_other(count: int = _CALLS) -> None:
        for _ in range(count):
            await app.trigger("bench::echo", {"x": 1})

    async def many_at_once() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(64):
                nursery.start_soon(one_after_the_other, _CALLS // 64)

    found["call_sequential"] = await timed(one_after_the_other, _CALLS)
    found["call_64_at_once"] = await timed(many_at_once, _CALLS // 64 * 64)


async def teardown(engine: iii_trio.Engine, found: dict[str, Any]) -> None:
    """A worker that owns 1,000 channels leaves: one step ends them all."""
    async with engine.open_worker("owner") as owner:
        for _ in range(1_000):
            await owner.trigger("engine::channels::create", {})
        before = time.perf_counter()
    found["teardown_of_1000_channels"] = time.perf_counter() - before
    if engine.statistics().channels:
        raise RuntimeError("channels are left")


async def main() -> None:
    found: dict[str, Any] = {}
    await floor(found)
    async with iii_trio.open_engine() as engine:
        async with engine.open_worker("app") as app, engine.open_worker("callee") as callee:

            @callee.function("bench::echo")
            async def echo(x: int) -> dict[str, int]:
                return {"x": x}

            await calls(app, found)
            await channels(app, found)
        await teardown(engine, found)
    print(json.dumps(found))


trio.run(main)
