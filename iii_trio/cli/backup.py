"""`iii-trio backup`: a copy of a running engine's jobs."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Annotated

import trio
from cyclopts import Parameter

from ..text import count_of
from ..triggers.queue.backup import check_backup
from ..worker import Queues
from .calling import connect
from .exits import Exit, UsageError
from .files import Sink
from .options import Address, engine_address
from .output import say, to_json, visible
from .progress import Meter, size
from .tables import AsJson


async def backup(
    file: Annotated[str, Parameter(name="FILE", help="The file to write. It is there only once it is whole.")],
    /,
    *,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the file if it is there.")] = False,
    json: AsJson = False,
    address: Address = None,
) -> Exit:
    """Copy all jobs of a running engine into a file, as they are at one moment, and check it.

    The engine works on meanwhile. The file is for this user only. As `queue.db`, alone in a directory, it starts another
    engine. For example: iii-trio backup jobs.db
    """
    await trio.to_thread.run_sync(_check_place, file)
    with closing(await Sink.open(file, private=True, overwrite=overwrite)) as sink:
        # The check needs a file that it can open.
        if sink.part is None:
            raise UsageError(f"{file} is not a regular file; name a file")
        meter = Meter(f"copying to {sink.name}")

        async def take(piece: bytes) -> None:
            await sink.write(piece)
            meter.add(len(piece))

        async with connect(engine_address(address), "backup") as worker:
            with meter:
                count = await Queues(worker).backup(take)
        jobs = await trio.to_thread.run_sync(check_backup, sink.part)
        await sink.keep()
    found = {"file": file, "bytes": count, "jobs": jobs}
    say(to_json(found) if json else f"{count_of(jobs, 'job')} in {visible(file)} ({size(count)}), checked")
    return Exit.DONE


def _check_place(file: str) -> None:
    """Raise UsageError for a file of a running engine: it would be taken away from under the engine."""
    if not file:
        raise UsageError("the file has no name; name the file to write")
    place = os.path.realpath(file)
    if os.path.isdir(place):
        raise UsageError(f"{file} is a directory; name a file, for example {os.path.join(file, 'jobs.db')}")
    # SQLite keeps these beside a database for as long as a program has it open.
    if os.path.exists(f"{place}-wal") or place.endswith(("-wal", "-shm")) or os.path.basename(place) == "queue.reserve":
        raise UsageError(f"{file} belongs to the jobs of an engine; name a file that is not part of an engine's data")
