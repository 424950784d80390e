"""`iii-trio replay`: the steps of a recording, one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import attrs
import trio
from cyclopts import Parameter

from ..recorder.causes import Cause, ends_in, is_about, last_end, last_end_of_workers, why
from ..recorder.describe import Names, as_json, describe_effect, describe_input
from ..recorder.file_format import decode_recording
from ..recorder.recording import Recording, RecordingError, effects_differ
from ..recorder.replay import Difference, Done, Replay, damage_of, sentence
from ..records import frozen
from .exits import Exit, Failure, UsageError
from .files import check_name
from .output import say, to_json, visible
from .tables import AsJson

_MAX_ENDS = 5
"""The number of ends that are offered."""


async def replay(
    file: Annotated[str, Parameter(help="A recording that `iii-trio record`, or an engine, has written.")],
    /,
    *,
    from_: Annotated[
        str | None, Parameter(name="--from", help="The first step to show: its number, or its time such as 2.5s.")
    ] = None,
    to: Annotated[str | None, Parameter(help="The last step to show: its number, or its time.")] = None,
    channel: Annotated[
        str | None, Parameter(help="Show what has to do with this channel: its id, or how it begins.")
    ] = None,
    session: Annotated[
        str | None, Parameter(help="Show what has to do with this session: its id, or how it begins.")
    ] = None,
    why_: Annotated[
        bool,
        Parameter(
            name="--why",
            negative="",
            help="Only show why the channel, or the session, ended. Without either: the last end that was not meant so.",
        ),
    ] = False,
    json: AsJson = False,
) -> Exit:
    """Do the steps of a recording again, and show each: what came in, which state moved, what went out.

    The engine that does so is one of its own, in virtual time. It must decide as the recorded one did, and the first
    difference ends the command with exit code 1. For example: iii-trio replay engine.recording --why
    """
    check_name(file)
    data = await trio.to_thread.run_sync(_read, file)
    try:
        recording = decode_recording(data, file)
        shown = _Shown(recording, from_, to, channel or "", session or "")
        return await trio.to_thread.run_sync(_run, recording, shown, why_, json)
    # A difference is a defect of the engine and no wrong usage.
    except Difference as difference:
        raise Failure(Exit.FAILED, f"{file}: {difference}") from None
    except RecordingError as error:
        raise UsageError(str(error) if str(error).startswith(file) else f"{file}: {error}") from None


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None


@frozen
class _Shown:
    """Which steps are shown."""

    recording: Recording
    first: str | None
    last: str | None
    channel: str
    session: str

    def __attrs_post_init__(self) -> None:
        for name, text in (("--from", self.first), ("--to", self.last)):
            if text is not None and re.fullmatch(r"\d+(\.\d+s)?|\d+s", text) is None:
                raise UsageError(f"{name} is {text!r}; give the number of a step, or a time such as 2.5s")

    def includes(self, done: Done) -> bool:
        """Return whether a step is shown."""
        if self.first is not None and self._place(done, self.first) < _number(self.first):
            return False
        if self.last is not None and self._place(done, self.last) > _number(self.last):
            return False
        return all(is_about(done, id_) for id_ in (self.channel, self.session) if id_)

    def why_empty(self) -> str:
        """Return why no step is shown."""
        asked = {"--channel": self.channel, "--session": self.session, "--from": self.first, "--to": self.last}
        given = " ".join(f"{name} {value}" for name, value in asked.items() if value)
        steps = self.recording.steps
        # A recording of an engine that has only just started has none.
        if not given or not steps:
            return "the recording has no steps"
        return (
            f"no step is within {given}: the recording has the steps 1 to {len(steps)}, from 0s to "
            f"{self.recording.seconds:.4f}s"
        )

    def _place(self, done: Done, bound: str) -> float:
        return done.step.now - self.recording.steps[0].now if bound.endswith("s") else done.number


def _number(bound: str) -> float:
    return float(bound.removesuffix("s"))


def _run(recording: Recording, shown: _Shown, why_: bool, json: bool) -> Exit:
    player = Replay(recording, watched=True)
    names = Names(player.hub)
    done: list[Done] = []
    started_at = recording.steps[0].now if recording.steps else 0.0
    any_shown = False
    if not json and not why_:
        say(_heading(recording))
    for number, step in enumerate(recording.steps, 1):
        with damage_of(number, step):
            # The first step may end a session of the snapshot.
            if number == 1:
                names.update()
            one = player.do(number, step)
            names.update()
            # With --why it is not shown, but a step that cannot be told is found where it stands.
            text = _text(one, names, started_at, json) if why_ or shown.includes(one) else ""
            at = effects_differ(step, one.effects)
        if why_:
            done.append(one)
        elif text:
            any_shown = True
            say(text)
        # The step is shown first, so that its reader sees where the replay leaves the engine.
        if at is not None:
            raise Difference(number, sentence(one, at))
    if why_:
        _say_why(done, names, shown, json)
    elif not any_shown:
        raise UsageError(shown.why_empty())
    return Exit.DONE


def _heading(recording: Recording) -> str:
    cause = "" if recording.cause == "asked for" else f", saved because of: {visible(recording.cause)}"
    return f"{len(recording.steps)} steps of {recording.seconds:.3f} s, by iii-trio {recording.version}{cause}"


def _text(done: Done, names: Names, started_at: float, json: bool) -> str:
    if json:
        return to_json(as_json(done, names, started_at))
    lines = [f"{done.number:>6} {done.step.now - started_at:>10.4f} s  {visible(describe_input(done, names))}"]
    for move in done.moves:
        before = move.before or "new"
        lines.append(f"{'':>21}{move.kind} {visible(move.id)}: {before} -> {move.after}")
    lines += [f"{'':>21}=> {visible(describe_effect(effect, names))}" for effect in done.effects]
    return "\n".join(lines)


def _say_why(done: Sequence[Done], names: Names, shown: _Shown, json: bool) -> None:
    id_ = shown.channel or shown.session
    chain: list[Cause] = []
    problem = ""
    # Every step was told before, so what is left to fail are names of snapshots.
    with damage_of(done[-1].number, done[-1].step) if done else nullcontext():
        steps = [one for one in done if shown.includes(one)]
        end = last_end(steps, id_) if id_ else last_end_of_workers(steps, names)
        # Also a wrong id leads here.
        if end is None:
            problem = _nothing_ended(done, steps, names, id_, shown)
        else:
            chain = why(done, end, names, id_)
    if problem:
        raise UsageError(problem)
    if json:
        say(to_json([attrs.asdict(cause) for cause in chain]))
    else:
        say("\n".join(f"step {cause.step:>6}: {visible(cause.text)}" for cause in chain))


def _nothing_ended(done: Sequence[Done], steps: Sequence[Done], names: Names, id_: str, shown: _Shown) -> str:
    if done and not steps and (shown.first or shown.last):
        return shown.why_empty()
    what = f"nothing whose id begins with {id_}" if id_ else "nothing of a worker"
    ends = [(one, move) for one in done for move in ends_in(one)][-_MAX_ENDS:]
    # The reader may have mistyped an id, or looks for the end of a command.
    if not ends:
        return f"{what} ended in this recording, and nothing else did"
    these = "; ".join(
        f"step {one.number}: {names.of(move.id) if move.kind == 'session' else f'{move.kind} {move.id}'}"
        for one, move in ends
    )
    return f"{what} ended in this recording; give the --channel or --session of one of the last ends: {visible(these)}"
