r"""A recording as bytes, and back.

    iii-trio recording 1\n
    length (4 bytes, big-endian)   CRC-32 of the record (4 bytes)   record (msgpack)
    …

The first record is the head, the second one is the snapshot, each further one is a step, and the last one is the number
of steps. Without the last one the file was cut off. The number in the first line is the version of this format.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import msgspec

from .inputs import INPUTS
from .recording import Recording, RecordingError, Step

FORMAT: Final = 1
_NAME: Final = b"iii-trio recording "
_FIRST_LINE: Final = _NAME + str(FORMAT).encode() + b"\n"
_HEAD_BYTES: Final = 8


def encode_recording(recording: Recording) -> Iterator[bytes]:
    """Yield a recording's bytes in pieces."""
    yield _FIRST_LINE
    yield _record(
        "h",
        recording.version,
        recording.saved_at_ms,
        recording.payloads,
        recording.asked_seconds,
        recording.cause,
    )
    yield _record("s", recording.snapshot)
    for step in recording.steps:
        yield _record("i", step.kind.name, step.now, list(step.ids), step.arguments, step.digests, step.compared)
    yield _record("e", len(recording.steps))


def decode_recording(data: bytes, name: str = "it") -> Recording:
    """Read a recording. `name` names the file in errors. Raises RecordingError, which names its fault."""
    if not data.startswith(_NAME):
        # A few bytes may be the beginning of a recording, and nothing else can be said of them.
        if data and _NAME.startswith(data[: len(_NAME)]):
            raise RecordingError(f"{name} is cut off in its first line: copy it again")
        raise RecordingError(f"{name} is not a recording of iii-trio: name a file that `iii-trio record` has written")
    line, _, _ = data[:64].partition(b"\n")
    if line + b"\n" != _FIRST_LINE:
        # Only a version that can be read is worth a hint at another iii-trio.
        if line == data or not line[len(_NAME) :].isdigit():
            raise RecordingError(f"{name} is damaged in its first line: copy it again")
        version = line[len(_NAME) :].decode()
        raise RecordingError(
            f"{name} has version {version} of the format, and this iii-trio reads version {FORMAT}: replay it with the "
            "iii-trio that wrote it"
        )
    return _Decoder(data, name).recording()


def _record(*parts: Any) -> bytes:
    body = msgspec.msgpack.encode(parts)
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


class _Decoder:
    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._at = len(_FIRST_LINE)
        self._steps: list[Step] = []

    def recording(self) -> Recording:
        version, saved_at_ms, payloads, asked_seconds, cause = self._parts("h", self._next(), 5)
        (snapshot,) = self._parts("s", self._next(), 1)
        self._check(isinstance(version, str | None) and isinstance(cause, str) and isinstance(payloads, bool))
        self._check(_is_number(saved_at_ms) and (asked_seconds is None or _is_number(asked_seconds)))
        while (record := self._next())[0] != "e":
            self._steps.append(self._step(*self._parts("i", record, 6)))
        (count,) = self._parts("e", record, 1)
        self._check(count == len(self._steps))
        # Two files that were joined would otherwise pass for the first one.
        if self._at != len(self._data):
            raise RecordingError(f"{self._name} has {len(self._data) - self._at} bytes behind its end: copy it again")
        return Recording(version, saved_at_ms, payloads, asked_seconds, cause, snapshot, tuple(self._steps))

    def _step(self, kind: Any, now: Any, ids: Any, arguments: Any, digests: Any, compared: Any) -> Step:
        self._check(isinstance(kind, str) and kind in INPUTS and _is_number(now) and isinstance(digests, bytes))
        self._check(isinstance(ids, list) and all(isinstance(each, str) for each in ids))
        self._check(isinstance(arguments, list) and isinstance(compared, bool))
        # A step of another version could have other arguments.
        found = INPUTS[kind]
        self._check(len(arguments) == len(found.arguments))
        return Step(found, float(now), tuple(ids), arguments, digests, compared)

    def _next(self) -> list[Any]:
        """Return the next record."""
        at, data = self._at, self._data
        body_at = at + _HEAD_BYTES
        size = int.from_bytes(data[at : at + 4], "big")
        # A damaged length looks like a file that was cut off, and the mend is the same.
        if len(data) < body_at + size or len(data) < body_at:
            raise RecordingError(
                f"{self._name} is cut off behind step {len(self._steps)}: copy it again, or record anew"
            )
        body = data[body_at : body_at + size]
        # Nothing of a damaged record is decoded.
        if zlib.crc32(body) != int.from_bytes(data[at + 4 : body_at], "big"):
            self._damaged()
        self._at = body_at + size
        try:
            record = msgspec.msgpack.decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._damaged()
        if not isinstance(record, list) or not record:
            self._damaged()
        return list(record)

    def _parts(self, kind: str, record: list[Any], count: int) -> list[Any]:
        self._check(record[0] == kind and len(record) == count + 1)
        return record[1:]

    def _check(self, holds: bool) -> None:
        if not holds:
            self._damaged()

    def _damaged(self) -> NoReturn:
        raise RecordingError(
            f"{self._name} is damaged at byte {self._at}, behind step {len(self._steps)}: copy it again, or record anew"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
