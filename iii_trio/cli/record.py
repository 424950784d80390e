"""`iii-trio record`: the last inputs of a running engine, in a file."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Annotated

import trio
from cyclopts import Parameter

from ..recorder.file_format import decode_recording
from ..recorder.recording import Recording, RecordingError
from .calling import Deadline, call, connect
from .exits import Exit, Failure, UsageError
from .files import Sink
from .options import Address, Timeout, check_timeout, engine_address
from .output import say, visible
from .progress import size
from .transfer import settle

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


async def record(
    file: Annotated[str, Parameter(help="The file to write, which only you can read.")],
    /,
    *,
    last: Annotated[
        str | None,
        Parameter(help="The time that matters, such as 60, 60s or 5m. All that is kept if not said."),
    ] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the file if it is there.")] = False,
    timeout: Timeout = None,
    address: Address = None,
) -> Exit:
    """Save the last inputs of a running engine in a file, for `iii-trio replay`.

    The file begins with a snapshot, so it may hold more than was asked for. It holds the names and ids of workers,
    functions and channels, and their addresses. Keys and tokens are not in it, and payloads only if the engine's setting
    `recorder.payloads` says so. For example: iii-trio record --last 60s engine.recording
    """
    seconds = None if last is None else read_duration(last)
    check_timeout(timeout)
    deadline = Deadline(timeout)
    # A mistyped name is told before anything is asked of the engine.
    with closing(await Sink.open(file, private=True, overwrite=overwrite)) as sink:
        pieces: list[bytes] = []
        async with connect(engine_address(address), "record", deadline) as worker, worker.create_channel() as channel:
            payload = {"writer": channel.writer_ref} | ({} if seconds is None else {"last_seconds": seconds})
            await call(worker, "engine::recorder::save", payload, namespace=None, deadline=deadline)
            with trio.CancelScope(deadline=deadline.at) as scope:
                async for item in channel.reader:
                    pieces.append(item.encode() if isinstance(item, str) else item)
            # A recording without its end is of no use.
            if scope.cancelled_caught:
                raise deadline.passed("the recording did not arrive")
            await settle(worker, channel)
        data = b"".join(pieces)
        try:
            recording = decode_recording(data, "what the engine sent")
        # The engine is of another version, or another program.
        except RecordingError as error:
            raise Failure(Exit.FAILED, str(error)) from None
        await sink.write(data)
        await sink.keep()
    say(_summary(file, recording, len(data)))
    return Exit.DONE


def read_duration(text: str) -> float:
    """Return a duration in seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match is not None else 0.0
    # Zero stands for a text that is not a duration.
    if not 0 < seconds < 10**9:
        raise UsageError(f"--last is {text!r}; give a time such as 60s, 5m or 1h")
    return seconds


def _summary(file: str, recording: Recording, length: int) -> str:
    what = "payloads are in it" if recording.payloads else "payloads are redacted to their length and a hash"
    return (
        f"{visible(file)}: {len(recording.steps)} steps of {recording.seconds:.1f} s ({size(length)}); {what}, "
        "and keys and tokens have stand-ins"
    )
