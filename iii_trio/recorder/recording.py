"""A recording: a snapshot of a hub, the inputs that followed it, and digests of what the hub decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import msgspec

from ..core.effects import Effect
from ..errors import IIIError
from ..records import frozen
from ..wire import Undecodable
from ..wire.telemetry import telemetry_kind
from . import inputs
from .compare import digests_of, first_difference
from .inputs import Input
from .plain import Plain, write_one
from .redaction import Redactor
from .ring import Entry, Segment, entries_of

_SESSION_SECRET: Final = "!"


class RecordingError(IIIError):
    """A file that cannot be used as a recording. The text says why and what to do."""


@frozen
class Step:
    """One input of a recording."""

    kind: Input
    now: float
    ids: tuple[str, ...]
    """The ids that the core was given, and the stand-ins of secrets, in order."""
    arguments: Plain
    digests: bytes = attrs.field(repr=False)
    compared: bool = True
    """Whether the effects of a replay can be compared. They cannot where the input itself is not in the recording."""


@frozen
class Recording:
    """A recording. Times are those of the engine's clock in seconds, and count from the first step when they are shown."""

    version: str | None
    """The version of the engine."""
    saved_at_ms: int
    payloads: bool
    """Whether payloads are in it."""
    asked_seconds: float | None
    """The time for which the recording was asked. It may begin earlier, because it begins with a snapshot."""
    cause: str
    """Why it was saved."""
    snapshot: Plain
    """None: the steps begin with a new engine that has default settings."""
    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """The time from the first step to the last one."""
        return self.steps[-1].now - self.steps[0].now if self.steps else 0.0


def record(
    segments: Sequence[Segment],
    redactor: Redactor,
    *,
    version: str | None,
    saved_at_ms: int,
    cause: str,
    last_seconds: float | None = None,
) -> Recording:
    """Make a recording of the newest segments, as many as `last_seconds` need. There must be one at least."""
    chosen = _newest(segments, last_seconds)
    entries = [entry for segment in chosen for entry in entries_of(segment.batches)]
    for segment in chosen:
        _know_secrets(redactor, segment)
    own_calls = {each for entry in entries for each in entry.ids.split() if each[0] not in "!#"}
    for entry in entries:
        for each in entry.ids.split():
            if each.startswith(_SESSION_SECRET):
                redactor.add_secret(each[1:])
    steps = []
    now = chosen[0].started_at
    for entry in entries:
        # Some inputs need no time of their own.
        now = entry.now or now
        steps.append(_step(entry, now, redactor, own_calls))
    return Recording(
        version=version,
        saved_at_ms=saved_at_ms,
        payloads=redactor.keep_payloads,
        asked_seconds=last_seconds,
        cause=cause,
        snapshot=redactor.snapshot(chosen[0].snapshot),
        steps=tuple(steps),
    )


def _newest(segments: Sequence[Segment], last_seconds: float | None) -> list[Segment]:
    # The whole ring is wanted.
    if last_seconds is None:
        return list(segments)
    newest = [entry.now for entry in entries_of(segments[-1].batches) if entry.now] or [segments[-1].started_at]
    since = newest[-1] - last_seconds
    chosen: list[Segment] = []
    for segment in reversed(segments):
        chosen.insert(0, segment)
        # Earlier segments are older than the time that was asked for.
        if segment.started_at <= since:
            break
    return chosen


def _know_secrets(redactor: Redactor, segment: Segment) -> None:
    redactor.add_secrets_of(msgspec.msgpack.decode(segment.snapshot)[1])


def _step(entry: Entry, now: float, redactor: Redactor, own_calls: set[str]) -> Step:
    kind, arguments, compared = entry.kind, entry.arguments, True
    if kind is inputs.RECEIVED:
        kind, arguments, compared = _received(arguments, redactor, own_calls)
    elif kind is inputs.CONNECTED:
        *others, credentials = arguments
        arguments = (*others, redactor.credentials(credentials))
    elif kind is inputs.ATTACH:
        channel, key, *rest = arguments
        arguments = (channel, redactor.stand_in(key), *rest)
    ids = tuple(redactor.stand_in(each[1:]) if each.startswith(_SESSION_SECRET) else each for each in entry.ids.split())
    plain = [write_one(argument) for argument in arguments]
    # Other inputs name secrets only by mistake, so they are searched as a whole.
    if kind is not inputs.RECEIVED:
        plain = redactor.plain(plain)
    digests = digests_of(entry.effects, redactor.without_secrets)
    return Step(kind, now, ids, plain, digests, compared)


def _received(
    arguments: tuple[Any, ...], redactor: Redactor, own_calls: set[str]
) -> tuple[Input, tuple[Any, ...], bool]:
    session, text = arguments
    text = bytes(text)
    redactor.has_other_meaning = False
    redacted = redactor.received(text, own_calls)
    # The message could be read, as most can.
    if isinstance(redacted, bytes):
        return inputs.RECEIVED, (session, redacted), not redactor.has_other_meaning
    # Telemetry is binary and no broken message, and neither are blank texts.
    if telemetry_kind(text) is not None:
        return inputs.RECEIVED, (session, redactor.telemetry(text)), True
    if not text.strip():
        return inputs.RECEIVED, (session, text), True
    problem: Undecodable = redacted
    return (
        inputs.UNREADABLE,
        (session, problem.problem, problem.type, problem.invocation_id, dict(problem.names)),
        True,
    )


def effects_differ(step: Step, effects: Sequence[Effect]) -> int | None:
    """Return the place of the first effect that differs from the recorded ones, or None."""
    return first_difference(step.digests, effects) if step.compared else None
