"""Process a large upload as it comes: the worker never holds more of it than one item.

The second upload fails half-way, at its source. The worker's stream then raises, with the source's own words, and the
worker does not take half a file for a whole one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import trio

import iii_trio


def offer_digest(worker: iii_trio.Worker) -> None:
    """Offer `uploads::digest`."""

    @worker.function("uploads::digest")
    async def digest(reader: iii_trio.ChannelReader) -> dict[str, object]:
        sha, size = hashlib.sha256(), 0
        try:
            async for chunk in reader.chunks():
                sha.update(chunk)
                size += len(chunk)
        except iii_trio.ChannelBroken as cut:
            print(f"  the worker saw {size:,} bytes, and then: {cut}")
            raise
        return {"bytes": size, "sha256": sha.hexdigest()[:16]}


def good_source() -> Iterator[bytes]:
    for number in range(200):
        yield bytes([number]) * 65536


def failing_source() -> Iterator[bytes]:
    for number, chunk in enumerate(good_source()):
        if number == 100:
            raise OSError("the disk could not be read")
        yield chunk


async def upload(app: iii_trio.Worker, source: Iterator[bytes]) -> object:
    """Stream a source into the worker, and give back what it made of it."""
    async with app.create_channel() as channel, trio.open_nursery() as nursery:

        async def send() -> None:
            async with channel.writer:  # left by an exception, it aborts with the exception's words
                for chunk in source:
                    await channel.writer.send(chunk)

        nursery.start_soon(send)
        digest = await app.trigger("uploads::digest", {"reader": channel.reader_ref})
    return digest


async def main() -> None:
    async with iii_trio.open_engine() as engine:
        async with engine.open_worker("uploads") as uploads, engine.open_worker("app") as app:
            offer_digest(uploads)
            print("a good upload:", await upload(app, good_source()))
            print("a bad one:")
            try:
                await upload(app, failing_source())
            except* OSError as errors:
                print("  the caller got:", errors.exceptions[0])
            except* iii_trio.CallError:
                pass  # the worker's answer says the same, if it was there before the nursery had cancelled the call


if __name__ == "__main__":
    trio.run(main)
