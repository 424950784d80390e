"""The flight recorder of an engine: it saves recordings into channels and files.

The ring is fed by the hub itself (`recorder/recorded_hub.py`). A recording is made of a copy of the ring, in a thread.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

import attrs
import msgspec
import trio

from ..config import EngineConfig, RecorderSettings
from ..core.effects import AskRecording
from ..core.hub import Hub
from ..errors import ChannelBroken, ConnectionFailed, MisuseError
from ..observed import TraceSource
from ..report import LOGGER
from ..transport.link import Address, WritingEnd
from ..version import installed_version
from ..wire import JsonValue, Ref

if TYPE_CHECKING:
    from ..recorder.recorded_hub import RecordedHub
    from ..recorder.ring import Segment

OFF: Final = (
    "the flight recorder of this engine is off: write `recorder: { enabled: true }` under `iii-trio:` of its configuration "
    "file, or EngineConfig(recorder=RecorderSettings(enabled=True)) in a program, and start the engine again"
)
_BUSY: Final = "other recordings are being saved: try again in a moment"
_KEY_BYTES: Final = 32
_MAX_WAITING: Final = 4
_PIECE: Final = 256 * 1024
_PAUSE_SECONDS: Final = 60.0
"""The time after a saved error in which no further one is saved, because a fault often comes again and again."""
_TAKING_SECONDS: Final = 120.0
"""The time that a worker has to take a recording, because others wait for theirs."""
SUFFIX: Final = ".recording"

Answer: TypeAlias = tuple[dict[str, JsonValue] | None, str | None]


class RunInThread(Protocol):
    """Runs a function that takes its time, and waits for its result."""

    def __call__(self, function: Callable[[], Any], /) -> Awaitable[Any]: ...


class NothingRecorded(Exception):
    """There is no recording. The text says why."""


class _Saving(msgspec.Struct, frozen=True):
    writer: Ref
    segments: list[Segment]
    last_seconds: float | None


@final
class FlightRecorder:
    """The recorder of one engine."""

    def __init__(self, settings: RecorderSettings, wall_clock: Callable[[], float], name: str) -> None:
        self.settings = settings
        self._wall_clock = wall_clock
        self._engine_name = name
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._hub: RecordedHub | None = None
        self._queue, self._jobs = trio.open_memory_channel[_Saving](_MAX_WAITING)
        self._cause = ""
        self._run: RunInThread = trio.to_thread.run_sync
        self._failed = trio.lowlevel.ParkingLot()

    def open_hub(self, config: EngineConfig, new_id: Callable[[], str], now: float, traces: TraceSource) -> Hub:
        """Return a new hub, which is recorded unless the recorder is off."""
        started_at_ms = int(self._wall_clock() * 1000)
        if not self.settings.enabled:
            version = installed_version()
            return Hub(config, new_id, version=version, started_at_ms=started_at_ms, traces=traces)
        # Here, so that the engines without a recorder, which are most, load nothing of it.
        from ..recorder.recorded_hub import RecordedHub
        from ..recorder.ring import Ring

        self._hub = RecordedHub(
            config,
            new_id,
            Ring(self.settings.bytes),
            now,
            version=installed_version(),
            started_at_ms=started_at_ms,
            traces=traces,
        )
        return self._hub

    def reconfigure(self, settings: RecorderSettings) -> None:
        """Use these settings from now on. The ring stays as it is."""
        self.settings = settings

    # --- recordings

    def copy(self) -> list[Segment]:
        """Return a copy of the ring. Raises NothingRecorded."""
        hub = self._hub
        # The hub of an engine without a recorder keeps nothing.
        if hub is None:
            raise NothingRecorded(OFF)
        hub.flush()
        # A fault says why the ring was emptied, and is over once a segment begins.
        if hub.fault or not hub.ring.segments:
            raise NothingRecorded(f"the flight recorder has nothing: {hub.fault}")
        return [attrs.evolve(segment, batches=list(segment.batches)) for segment in hub.ring.segments]

    def encode(self, segments: Sequence[Segment], cause: str, last_seconds: float | None) -> bytes:
        """Return a recording of copied segments. It takes up to seconds, and may be called in a thread."""
        from ..recorder.file_format import encode_recording
        from ..recorder.recording import record
        from ..recorder.redaction import Redactor

        recording = record(
            segments,
            Redactor(self._key, keep_payloads=self.settings.payloads),
            version=installed_version(),
            saved_at_ms=int(self._wall_clock() * 1000),
            cause=cause,
            last_seconds=last_seconds,
        )
        return b"".join(encode_recording(recording))

    async def make(self, last_seconds: float | None = None) -> bytes:
        """Return a recording. Raises MisuseError if there is none. If cancelled: nothing has changed."""
        try:
            segments = self.copy()
        except NothingRecorded as problem:
            raise MisuseError(str(problem)) from None
        made = functools.partial(self.encode, segments, "asked for", last_seconds)
        data: bytes = await self._run(made)
        return data

    def begin_saving(self, effect: AskRecording) -> Answer:
        """Begin to save a recording into a channel. Return the answer for the worker that asked."""
        try:
            segments = self.copy()
            self._queue.send_nowait(_Saving(effect.writer, segments, effect.last_seconds))
        except NothingRecorded as problem:
            return None, str(problem)
        # Each recording takes memory and a thread, so only a few are made at a time.
        except trio.WouldBlock:
            return None, _BUSY
        return {"payloads": self.settings.payloads, "bytes": sum(segment.bytes for segment in segments)}, None

    def note_error(self, text: str) -> None:
        """Save a recording soon, because the engine has logged an error of its own."""
        # The first error of several is the one to look at.
        if self.settings.directory is not None and self._hub is not None:
            self._cause = self._cause or text
            self._failed.unpark_all()

    # --- tasks

    async def keep(self, address: Address, run_in_thread: RunInThread | None) -> None:
        """Save the recordings that workers ask for, and those of errors. If cancelled: they are broken off."""
        self._run = run = run_in_thread or trio.to_thread.run_sync
        if self.settings.directory is not None and self._hub is not None:
            # An error is too late to learn that its recording has no place.
            try:
                await run(self._make_directory)
            except OSError as problem:
                LOGGER.warning(
                    "recordings of errors cannot be written: %s; name another `recorder.directory`, or make it writable",
                    problem,
                )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_errors, run)
            async for job in self._jobs:
                try:
                    await self._save(job, address, run)
                # The worker that asked has left, or its channel has ended. It knows better than the engine why.
                except* (ChannelBroken, ConnectionFailed) as group:
                    LOGGER.debug("a recording was not taken: %s", group.exceptions[0])

    async def _save(self, job: _Saving, address: Address, run: RunInThread) -> None:
        async with trio.open_nursery() as nursery:
            end: WritingEnd = await nursery.start(address.attach_writer, job.writer, None)
            try:
                data = await run(functools.partial(self.encode, job.segments, "asked for", job.last_seconds))
            # A fault of the recorder must not end the engine.
            except Exception as error:
                LOGGER.error("a recording cannot be made", exc_info=error)
                end.abort("the engine failed at the recording; see its log")
            else:
                await _hand_over(data, end)

    async def _keep_errors(self, run: RunInThread) -> None:
        while True:
            while not self._cause:
                await self._failed.park()
            cause, self._cause = self._cause, ""
            try:
                place = await run(functools.partial(self._write, self.copy(), cause))
                LOGGER.warning("the last inputs of the engine are saved in %s, because of: %s", place, cause)
            except NothingRecorded as problem:
                LOGGER.warning("the error is in no recording: %s", problem)
            # A full disk must not end the engine.
            except OSError as problem:
                LOGGER.warning("the recording of an error cannot be written: %s", problem)
            # Neither must a fault of the recorder.
            except Exception as error:
                LOGGER.error("the recording of an error cannot be made", exc_info=error)
            await trio.sleep(_PAUSE_SECONDS)
            self._cause = ""

    def _make_directory(self) -> Path:
        """Make the directory of the recordings if it is not there, and return it. Blocks. Raises OSError."""
        directory = Path(self.settings.directory or ".").expanduser()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
        return directory

    def _write(self, segments: Sequence[Segment], cause: str) -> Path:
        """Write a recording into the directory, and remove the oldest ones. Blocks. Raises OSError."""
        directory = self._make_directory()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._wall_clock()))
        name = re.sub(r"[^\w.-]+", "-", self._engine_name)[:64] or "engine"
        place = directory / f"{name}-{stamp}-{secrets.token_hex(2)}{SUFFIX}"
        part = place.with_name(f".{place.name}.part")
        # Under its name the file is whole.
        try:
            write_private(part, self.encode(segments, cause, None))
            os.replace(part, place)
        finally:
            part.unlink(missing_ok=True)
        mine = re.compile(re.escape(name) + r"-\d{8}T\d{6}-[0-9a-f]{4}" + re.escape(SUFFIX))
        # The names begin with the date, so that they sort by age.
        for old in sorted(each for each in directory.iterdir() if mine.fullmatch(each.name))[: -self.settings.files]:
            old.unlink(missing_ok=True)
        return place


def write_private(place: str | os.PathLike[str], data: bytes) -> None:
    """Write a new file that only its owner can read. Blocks. Raises OSError."""
    # The mode is given when the file is made, so that it is never open to others.
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


async def _hand_over(data: bytes, end: WritingEnd) -> None:
    """Write a recording into the channel that was made for it, within bounds."""
    with trio.move_on_after(_TAKING_SECONDS) as scope:
        for at in range(0, len(data), _PIECE):
            await end.put(data[at : at + _PIECE])
        await end.close()
    # Other workers wait for their recordings.
    if scope.cancelled_caught:
        end.abort(f"the recording was not taken within {_TAKING_SECONDS:g} s")
