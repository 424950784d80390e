"""Judges what the workers tell: which end of a stream, and which answer to a call, was wrong.

A broken end has an excuse if something was done to one who took part: killed, sent away, or cut off. A stop of a few
seconds (SIGSTOP) is none, nor is what happened to others. A stream that was cut and looks complete has none ever.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from .plans import Plan

_SLACK: Final = 0.5  # seconds between what was done and when it was said to have begun

EXPECTED: Final[Mapping[str, tuple[str, str, str]]] = {
    "close": ("end", "closed", "completed"),
    "abort": ("aborted", "aborted", "aborted"),
    "cancel": ("cancelled", "reader_cancelled", "reader_cancelled"),
}
"""What the reader saw, what the writer saw, and the outcome, when nobody was disturbed."""


@attrs.define(eq=False)
class Stream:
    """What is known of one stream."""

    plan: Plan
    reader: dict[str, Any] | None = None
    writer: dict[str, Any] | None = None
    outcome: str | None = None
    ended: float | None = None
    """When its owner had heard of everybody."""


class Ledger:
    """Everything that was told, and done."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        """Broken promises, in sentences."""
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self._streams: dict[str, Stream] = {}
        self._disturbed: dict[str, list[list[float]]] = {}

    # --- what was done to whom

    def disturb(self, name: str, now: float, seconds: float = math.inf) -> None:
        """Something that excuses broken ends is about to be done to this worker, and has effects for so long."""
        self._disturbed.setdefault(name, []).append([now, now + seconds])

    def recovered(self, name: str, now: float) -> None:
        """A worker of this name is there again."""
        for times in self._disturbed.get(name, []):
            times[1] = min(times[1], now)

    def was_disturbed(self, names: Iterable[str], began: float, ended: float) -> bool:
        """Whether anything was done to any of these in that time."""
        return any(
            since - _SLACK <= ended and began <= until + _SLACK
            for name in names
            for since, until in self._disturbed.get(name, [])
        )

    # --- what was told

    def hear(self, event: Mapping[str, Any], now: float) -> None:
        """One thing that a worker says."""
        match event["event"]:
            case "planned":
                self._stream(event["plan"])
            case "reader" | "writer" as side:
                stream = self._stream(event["plan"])
                setattr(stream, side, event["report"])
                if side == "reader":
                    self.bytes += event["report"]["bytes"]
            case "owner":
                stream = self._stream(event["plan"])
                stream.outcome, stream.ended = event["outcome"], now
            case "call":
                self._hear_call(event)
            case "wrong":
                self.wrong.append(event["text"])

    def _stream(self, told: Mapping[str, Any]) -> Stream:
        stream = self._streams.get(told["id"])
        if stream is None:
            stream = self._streams[told["id"]] = Stream(Plan.from_json(told))
        return stream

    def _hear_call(self, event: Mapping[str, Any]) -> None:
        """`what` between `who` took place between `began` and `ended`; `problem` says what was wrong with it, if any."""
        self.counts[event["what"]] += 1
        if event["problem"] is None:
            return
        self.counts[f"{event['what']} that failed"] += 1
        if event["false"] or not self.was_disturbed(event["who"], event["began"], event["ended"]):
            self.wrong.append(f"a {event['what']} between {' and '.join(event['who'])} failed: {event['problem']}")

    # --- the judgement

    def settle(self, now: float) -> None:
        """All that was under way is over: judge every stream, and forget it."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self.wrong += self._judge(stream, now)
        self._disturbed = {
            name: kept for name, times in self._disturbed.items() if (kept := [each for each in times if each[1] > now])
        }

    def _judge(self, stream: Stream, now: float) -> list[str]:
        plan = stream.plan
        self.counts["stream"] += 1
        reader, writer, outcome = stream.reader, stream.writer, stream.outcome
        told = (
            f"stream {plan.id} ({plan.size} bytes, to {plan.ending}, {plan.writer} to {plan.reader} for {plan.owner})"
        )
        found = []
        saw = reader["saw"] if reader is not None else None
        if reader is not None and not reader["fits"]:
            found.append(f"{told}: the reader got {reader['bytes']} bytes that are not what was written")
        if reader is not None and saw == "end" and not reader["whole"]:
            found.append(f"{told} looked complete after {reader['bytes']} bytes")
        if saw == "end" and plan.ending != "close":
            found.append(f"{told} looked complete, and nobody closed it")
        if outcome == "completed" and plan.ending != "close":
            found.append(f"{told} is said to be completed, and nobody closed it")
        if outcome == "completed" and reader is not None and saw != "left" and not reader["whole"]:
            found.append(f"{told} is said to be completed, and its reader has {reader['bytes']} bytes of it ({saw})")
        everybody = (plan.owner, plan.writer, plan.reader)
        if self.was_disturbed(everybody, plan.began, stream.ended if stream.ended is not None else now):
            self.counts["stream that was disturbed"] += 1
        else:
            self.counts[f"stream to {plan.ending}"] += 1
            seen = (_of_sdk(reader, saw), writer["saw"] if writer is not None else None, outcome)
            if seen != EXPECTED[plan.ending]:
                found.append(f"{told} was left in peace, and ended otherwise: reader, writer, outcome saw {seen}")
        self.counts[f"outcome {outcome or 'not heard'}"] += 1
        return found


def _of_sdk(reader: Mapping[str, Any] | None, saw: str | None) -> str | None:
    """For Python's SDK any end is the end (clause C6.1): what tells is whether all has come."""
    if reader is not None and saw == "any end":
        return "end" if reader["whole"] else "any end, before all had come"
    return saw
