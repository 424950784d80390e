"""Two channels for two directions make one stream: here a worker that shouts back, line by line.

`duplex` gives a `trio.abc.HalfCloseableStream`, so everything written for Trio streams works over channels: TLS, a line
reader, another protocol. Ending one direction leaves the other open.
"""

from __future__ import annotations

import trio

import iii_trio


def offer_shouting(worker: iii_trio.Worker) -> None:
    """Offer `shout::serve`."""

    @worker.function("shout::serve")
    async def serve(reader: iii_trio.ChannelReader, writer: iii_trio.ChannelWriter) -> dict[str, int]:
        stream, lines, unfinished = iii_trio.duplex(reader, writer), 0, b""
        async for data in stream:
            *whole, unfinished = (unfinished + data).split(b"\n")
            for line in whole:
                lines += 1
                await stream.send_all(line.upper() + b"!\n")
        await stream.send_all(b"that was all\n")  # the caller has ended its direction; ours is still open
        return {"lines": lines}


async def main() -> None:
    async with iii_trio.open_engine() as engine:
        async with engine.open_worker("shout") as shout, engine.open_worker("app") as app:
            offer_shouting(shout)
            async with app.create_channel() as there, app.create_channel() as back, trio.open_nursery() as nursery:
                stream = iii_trio.duplex(back.reader, there.writer)

                async def talk() -> None:
                    for line in (b"structured concurrency\n", b"is ", b"worth it\n"):
                        await stream.send_all(line)
                    await stream.send_eof()
                    async for data in stream:
                        print(data.decode(), end="")

                nursery.start_soon(talk)
                payload = {"reader": there.reader_ref, "writer": back.writer_ref}
                print(await app.trigger("shout::serve", payload))


if __name__ == "__main__":
    trio.run(main)
