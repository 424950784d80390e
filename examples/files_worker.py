"""Offer the functions of the README's commands to an engine that runs in another terminal.

Start `iii-trio` first, then `python examples/files_worker.py`. `III_URL` names another engine. Ctrl-C ends the worker.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import trio

import iii_trio

DEFAULT_URL: Final = "ws://127.0.0.1:49134"


async def serve_files(worker: iii_trio.Worker, folder: trio.Path) -> None:
    """Register functions that read the files of one folder and of streams, and one that takes jobs."""

    def find(name: str) -> trio.Path:
        path = folder / trio.Path(name).name  # only the last part, so that no name leads out of the folder
        if not os.path.isfile(path):
            raise iii_trio.CallError("no_such_file", f"there is no file {name!r} in {folder}")
        return path

    @worker.function("files::count")
    async def count() -> dict[str, int]:
        """Count the files of the folder."""
        return {"files": sum([await path.is_file() for path in await folder.iterdir()])}

    @worker.function("files::count_lines")
    async def count_lines(reader: iii_trio.ChannelReader) -> dict[str, int]:
        """Count the lines of a stream."""
        return {"lines": sum([chunk.count(b"\n") async for chunk in reader.chunks()])}

    @worker.function("files::download")
    async def download(name: str, writer: iii_trio.ChannelWriter) -> dict[str, int]:
        """Write a file into a stream."""
        sent = 0
        async with await trio.open_file(find(name), "rb") as file:
            while chunk := await file.read(65536):
                await writer.send(chunk)
                sent += len(chunk)
        return {"bytes": sent}  # returning closes the writer cleanly, raising aborts the stream

    @worker.function("mail::send")
    async def send(to: str) -> None:
        """Take a job."""
        print(f"a mail to {to}", flush=True)

    await worker.wait_registered()


async def main() -> None:
    async with iii_trio.open_worker(os.environ.get("III_URL", DEFAULT_URL), name="files") as worker:
        await serve_files(worker, trio.Path("."))
        print("files::count, files::count_lines, files::download and mail::send can be called", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    try:
        trio.run(main)
    except KeyboardInterrupt:
        print()
    except iii_trio.Rejected as error:
        sys.exit(f"{error}; end that one first, if it is another start of this program")
    except iii_trio.ConnectionFailed as error:
        sys.exit(f"{error}; start `iii-trio` in another terminal first")
