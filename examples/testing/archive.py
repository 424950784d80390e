"""A worker that archives streams of lines. It has a bug, which docs/testing.md finds."""

from __future__ import annotations

import attrs
import trio

import iii_trio


@attrs.define
class Folder:
    """What has been archived."""

    lines: list[str] = attrs.field(factory=list)
    complete: bool = False


async def serve_archive(worker: iii_trio.Worker, folder: Folder) -> None:
    """Offer `archive::save`, until cancelled."""

    @worker.function("archive::save")
    async def save(source: iii_trio.ChannelReader) -> int:
        try:
            async for line in source:
                folder.lines.append(str(line))
        except trio.BrokenResourceError:
            pass  # the sender has gone: nothing more will come
        folder.complete = True
        return len(folder.lines)

    await trio.sleep_forever()
