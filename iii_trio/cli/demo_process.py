"""The processes of `iii-trio demo`: `python -m iii_trio.cli.demo_process engine | reader URL | writer URL FILE [STOP]`.

Each tells its parent what happens, as JSON lines on standard output, and ends when its parent does.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import trio

import iii_trio

from ..config import EngineConfig, Listener
from ..errors import ChannelBroken
from .files import CHUNK, Source

FUNCTION: Final = "demo::receive"
REPORT_SECONDS: Final = 0.05


async def engine() -> None:
    """Run an engine on a port that the system chooses, and say its address."""
    async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=0),))) as running:
        addresses = await running.listen()
        _say(address=str(addresses[0]))
        await trio.sleep_forever()


async def reader(address: str) -> None:
    """Run a worker whose function takes a channel's reading end. It says how far it is, and how the stream ended."""
    async with iii_trio.open_worker(address, name="demo-reader") as worker, trio.open_nursery() as nursery:

        @worker.function(FUNCTION)
        async def receive(reader: iii_trio.ChannelReader) -> dict[str, Any]:
            # Detached: when the writer dies, its call is cancelled too, and the cancellation could come first. The
            # demo wants to hear what the *channel* says.
            told: dict[str, Any] = {}
            done = trio.Event()
            nursery.start_soon(_read, reader.detach(), told, done)
            await done.wait()
            return told

        await worker.trigger("engine::workers::list", {})  # answered behind the registration: the function is known now
        _say(ready=True)
        await trio.sleep_forever()


async def _read(reader: iii_trio.ChannelReader, told: dict[str, Any], done: trio.Event) -> None:
    digest, received = hashlib.sha256(), 0
    started = said = time.monotonic()
    try:
        async with reader:
            async for item in reader:
                data = item.encode() if isinstance(item, str) else item
                digest.update(data)
                received += len(data)
                # One line for each item would slow the stream that is being measured.
                if time.monotonic() >= said + REPORT_SECONDS:
                    said = time.monotonic()
                    _say(received=received)
        told.update(ended="clean", received=received, sha256=digest.hexdigest(), seconds=time.monotonic() - started)
    # The cut is the expected end of the second stream, and not a failure of this process.
    except ChannelBroken as broken:
        told.update(ended=broken.outcome, reason=broken.reason, received=received)
    done.set()
    _say(**told)


async def writer(address: str, path: str, stop: str = "") -> None:
    """Run a worker that streams a file into the reader's function. With `stop` it holds after so many bytes, for ever."""
    hold = int(stop) if stop else None
    with closing(await Source.open(path)) as source:
        async with (
            iii_trio.open_worker(address, name="demo-writer") as worker,
            worker.create_channel() as channel,
            trio.open_nursery() as nursery,
        ):

            async def write() -> None:
                sent = 0
                while chunk := await source.read(CHUNK if hold is None else min(CHUNK, hold - sent)):
                    await channel.writer.send(chunk)
                    sent += len(chunk)
                # Holding leaves the channel open, so that only the kill can end it.
                if hold is not None:
                    await channel.writer.wait_room()  # attached, also where nothing was written
                    _say(holding=sent)
                    await trio.sleep_forever()
                await channel.writer.aclose()

            nursery.start_soon(write)
            _say(result=await worker.trigger(FUNCTION, {"reader": channel.reader_ref}))


ROLES: Final[Mapping[str, Callable[..., Awaitable[None]]]] = {"engine": engine, "reader": reader, "writer": writer}


async def _until_parent_leaves(role: str, arguments: Sequence[str]) -> None:
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await trio.lowlevel.wait_readable(0)  # our parent never writes there: this is its end
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await ROLES[role](*arguments)
        nursery.cancel_scope.cancel()


def _say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    trio.run(_until_parent_leaves, sys.argv[1], sys.argv[2:])
