"""Serve a file download: the caller makes a channel, the worker writes the file into it.

The caller learns the size from the result and the end from the channel: a download that was cut raises.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import trio

import iii_trio


async def serve_files(worker: iii_trio.Worker, folder: Path) -> None:
    """Offer `files::download`."""

    @worker.function("files::download")
    async def download(name: str, writer: iii_trio.ChannelWriter) -> dict[str, int]:
        path = folder / Path(name).name  # a name, never a way out of the folder
        if not path.is_file():
            raise iii_trio.CallError("no_such_file", f"there is no file {name!r} here")
        sent = 0
        async with await trio.open_file(path, "rb") as file:
            while chunk := await file.read(65536):
                await writer.send(chunk)
                sent += len(chunk)
        return {"bytes": sent}  # the writer is closed cleanly by returning, and aborted by raising


async def fetch(app: iii_trio.Worker, name: str, into: Path) -> None:
    """Download a file, under its final name only once it is whole."""
    unfinished = into.with_suffix(".part")
    async with app.create_channel() as channel, trio.open_nursery() as nursery:

        async def save() -> None:
            async with await trio.open_file(unfinished, "wb") as file, channel.reader:
                async for chunk in channel.reader.chunks():  # raises ChannelBroken if the stream was cut
                    await file.write(chunk)
            unfinished.rename(into)

        nursery.start_soon(save)
        print("the worker sent", await app.trigger("files::download", {"name": name, "writer": channel.writer_ref}))


async def main() -> None:
    with tempfile.TemporaryDirectory() as there, tempfile.TemporaryDirectory() as here:
        original = Path(there, "big.bin")
        content = bytes(range(256)) * 20_000
        await trio.Path(original).write_bytes(content)
        async with iii_trio.open_engine() as engine:
            async with engine.open_worker("files") as files, engine.open_worker("app") as app:
                await serve_files(files, Path(there))
                await fetch(app, "big.bin", Path(here, "copy.bin"))
                copy = await trio.Path(here, "copy.bin").read_bytes()
                same = hashlib.sha256(copy).digest() == hashlib.sha256(content).digest()
                print(f"{len(copy):,} bytes arrived;", "the same" if same else "NOT the same")
                try:
                    await fetch(app, "nothing.bin", Path(here, "nothing.bin"))
                except* (iii_trio.CallError, iii_trio.ChannelBroken) as errors:
                    print("and the other file:", errors.exceptions[0])


if __name__ == "__main__":
    trio.run(main)
